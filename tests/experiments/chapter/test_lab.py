"""Which runs are trained, and which are known already."""

import re
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from chapter import lab, look
from chapter.budgets import BUDGETS
from chapter.ledger import Ledger
from chapter.past import Part
from cnnjax.config import default_config
from cnnjax.data.augment import Preprocessing
from cnnjax.errors import InputError, RunError
from cnnjax.workdir import files

FIGURES = {"dataset": "cifar10", "test/accuracy": [0.7, 0.71]}
AGAIN = {"dataset": "cifar10", "test/accuracy": [0.7, 0.72]}


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders of the runs that were trained, in place of trainings."""
    folders = []

    def train(config: ConfigDict, folder: Path, **_: object) -> None:
        if (folder / files.FINAL_METRICS).exists():
            return
        folders.append(folder)
        saved = folder / files.CHECKPOINTS / str(config.train.steps)
        saved.mkdir(parents=True, exist_ok=True)
        (folder / files.FINAL_METRICS).touch()

    monkeypatch.setattr(lab.launch, "train", train)
    monkeypatch.setattr(lab, "figures", lambda folder: FIGURES)
    monkeypatch.setattr(lab.Lab, "data_of", lambda self, kind: None)
    return folders


@pytest.fixture
def bench(tmp_path: Path) -> lab.Lab:
    return lab.Lab(
        {"base": default_config("CifarCNN")},
        {"cifar": lab.Data("cifar10", "")},
        BUDGETS["quick"],
        Ledger(tmp_path),
        tmp_path / "runs",
    )


def test_what_is_trained_once_is_known(bench: lab.Lab, trained: list[Path]) -> None:
    first = bench.train("base", steps=20)
    assert bench.train("base", steps=20) == first
    [part] = first.parts
    # The recipe's own values are no changes, whoever names them.
    own = {"optim.l2": 0.004, "data.distortions": (), "model.activation": "relu"}
    assert bench.train("base", steps=20, changes=own) == first
    assert len(trained) == 1
    [other] = bench.train("base", steps=20, changes={"optim.l2": 0.0}).parts
    assert other.key == "cifar10, base, optim.l2=0.0, 20 steps, seeds 0 to 1"
    assert trained == [part.folder, other.folder]
    assert bench.used == [part.key, other.key]


def test_more_seeds_are_trained_beside_those_there_are(
    bench: lab.Lab, trained: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    # As the figures of a run say which seeds it is of.
    def of_folder(folder: Path) -> dict:
        first, last = map(int, re.findall(r"seeds-(\d+)-to-(\d+)", folder.name)[0])
        values = [float(seed) for seed in range(first, last + 1)]
        curve = {5: [v + 0.25 for v in values], 20: values}
        return {**FIGURES, "test/accuracy": values, "eval/accuracy/curve": curve}

    monkeypatch.setattr(lab, "figures", of_folder)
    bench.seeds = 4
    four = bench.train("base", steps=20)
    assert [part.key for part in four.parts] == [
        "cifar10, base, 20 steps, seeds 0 to 3"
    ]
    for bench.seeds in (8, 16):
        run = bench.train("base", steps=20)
        assert run.parts[0] == four.parts[0]
        assert run.values().tolist() == list(range(bench.seeds))
        assert run.highest.tolist() == [k + 0.25 for k in range(bench.seeds)]
    assert len(trained) == 4
    configs = [(part.config.seed, part.config.num_seeds) for part in run.parts]
    assert configs == [(0, 4), (4, 4), (8, 4), (12, 4)]
    assert run.parts[-1].key.endswith("seeds 12 to 15")
    assert (run.dataset, run.steps) == ("cifar10", 20)


def test_weights_that_are_gone_are_trained_again(
    bench: lab.Lab, trained: list[Path]
) -> None:
    run = bench.train("base", steps=20, weights=True)
    bench.train("base", steps=20, weights=True)
    assert len(trained) == 1
    (run.parts[0].folder / files.CHECKPOINTS / "20").rmdir()
    bench.train("base", steps=20)  # its figures are enough
    assert len(trained) == 1
    bench.train("base", steps=20, weights=True)
    assert len(trained) == 2


def test_killed_before_its_figures_a_run_goes_on(
    bench: lab.Lab, trained: list[Path]
) -> None:
    run = bench.train("base", steps=20, weights=True)
    [part] = run.parts
    (part.folder / files.FINAL_METRICS).unlink()
    bench.train("base", steps=20, weights=True)
    assert trained == [part.folder] * 2
    assert (part.folder / files.FINAL_METRICS).exists()


def test_weights_of_an_earlier_step_are_refused(
    bench: lab.Lab, trained: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    [part] = bench.train("base", steps=20, weights=True).parts
    monkeypatch.setattr(look, "load_network", lambda _: SimpleNamespace(step=15))
    with pytest.raises(RunError, match="step 15, need 20; delete the folder"):
        look.network_of(part)
    whole = SimpleNamespace(step=20)
    monkeypatch.setattr(look, "load_network", lambda _: whole)
    assert look.network_of(part) is whole


def test_networks_of_several_programs_are_looked_at_in_the_order_of_seeds(
    bench: lab.Lab, trained: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def network(part: Part) -> SimpleNamespace:
        first, seeds = part.config.seed, part.config.num_seeds
        weights = jnp.arange(first, first + seeds, dtype=jnp.float32)
        if seeds == 1:  # as a program of one seed has them
            (weights,) = weights
        plain = Preprocessing(0, (), "unit")
        return SimpleNamespace(
            model=None,
            variables={"params": {"w": weights}},
            num_seeds=seeds,
            preprocessing=plain,
        )

    def times(model: None, variables: dict, images: jax.Array) -> jax.Array:
        return variables["params"]["w"] * images.mean(axis=(1, 2, 3))

    monkeypatch.setattr(look, "network_of", network)
    bench.seeds = 5
    run = bench.train("base", steps=20, weights=True)
    assert [part.config.num_seeds for part in run.parts] == [4, 1]
    images = np.full((3, 8, 8, 1), 255, np.uint8)
    found = look.each_seed(run, images, times, batch_size=2)
    np.testing.assert_allclose(found, np.arange(5.0)[:, None] * np.ones((5, 3)))


def test_a_recipe_that_was_changed_is_refused(tmp_path: Path) -> None:
    recipe = default_config("CifarCNN")
    ledger = Ledger(tmp_path)
    ledger.keep_recipes({"base": lab.lasting(recipe)})
    ledger.put_run("a run", FIGURES)
    # What a lab sets itself may be anything, and a recipe may be new.
    recipe.data.name, recipe.num_seeds, recipe.train.steps = "cifar100", 7, 9
    same = lab.lasting(recipe)
    Ledger(tmp_path).keep_recipes({"base": same, "long": same})
    recipe.optim.l2, recipe.data.distortions = 0.5, ("flip",)
    changed = {"base": lab.lasting(recipe)}
    with pytest.raises(InputError) as caught:
        Ledger(tmp_path).keep_recipes(changed)
    for part in (
        "configs/base.py now has",
        "data.distortions=['flip'] (was [])",
        "optim.l2=0.5 (was 0.004)",
        "--out=DIR",
    ):
        assert part in str(caught.value)


def test_a_field_that_the_ledger_does_not_know_is_at_its_default(
    tmp_path: Path,
) -> None:
    recipe = default_config("CifarCNN")
    before = lab.lasting(recipe)
    # Version 0.1.0 had no such field.
    assert "optim.weight_decay" not in before
    recipe.optim.weight_decay = 0.1
    for then, now, changed in (
        (before, lab.lasting(recipe), "optim.weight_decay=0.1 (was 'the default')"),
        (lab.lasting(recipe), before, "optim.weight_decay='the default' (was 0.1)"),
    ):
        ledger = Ledger(tmp_path)
        ledger.keep_recipes({"base": then})
        with pytest.raises(InputError, match=re.escape(changed)):
            ledger.keep_recipes({"base": now})


@pytest.mark.parametrize(
    ("model", "kind"),
    [("CifarCNN", "cifar"), *((m, "mnist") for m in ("SimpleCNN", "MLP", "LeNet5"))],
)
def test_a_network_is_trained_on_its_own_kind_of_data(
    tmp_path: Path, model: str, kind: str
) -> None:
    data = {"cifar": lab.Data("some_cifar", ""), "mnist": lab.Data("some_mnist", "")}
    recipes = {"one": default_config(model)}
    bench = lab.Lab(recipes, data, BUDGETS["quick"], Ledger(tmp_path), tmp_path)
    assert bench.config("one", steps=1).data.name == f"some_{kind}"


def test_weights_come_with_figures_of_their_own(
    bench: lab.Lab, trained: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = bench.train("base", steps=20)
    (first.parts[0].folder / files.CHECKPOINTS / "20").rmdir()
    # Another machine rounds otherwise.
    monkeypatch.setattr(lab, "figures", lambda folder: AGAIN)
    again = bench.train("base", steps=20, weights=True)
    assert again.parts[0].figures == AGAIN
    assert bench.train("base", steps=20).parts[0].figures == FIGURES


def test_a_short_run_is_not_one_call(bench: lab.Lab) -> None:
    calls = [
        bench.config("base", steps=n).train.steps_per_call for n in (1, 20, 100, 3000)
    ]
    assert calls == [1, 5, 25, 100]
