"""Which runs are trained, and which are known already."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from ml_collections import ConfigDict

from chapter import lab, look
from chapter.budgets import BUDGETS
from chapter.ledger import Ledger
from cnnjax.config import default_config
from cnnjax.errors import InputError, RunError
from cnnjax.workdir import files

FIGURES = {"dataset": "cifar10_jpeg", "test/accuracy": [0.7, 0.71]}
AGAIN = {"dataset": "cifar10_jpeg", "test/accuracy": [0.7, 0.72]}


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
        {"cifar": lab.Data("cifar10_jpeg", "")},
        BUDGETS["quick"],
        Ledger(tmp_path),
        tmp_path / "runs",
    )


def test_what_is_trained_once_is_known(bench: lab.Lab, trained: list[Path]) -> None:
    first = bench.train("base", steps=20)
    assert bench.train("base", steps=20) == first
    # The recipe's own values are no changes, whoever names them.
    own = {"optim.l2": 0.004, "data.distortions": (), "model.activation": "relu"}
    assert bench.train("base", steps=20, changes=own) == first
    assert len(trained) == 1
    other = bench.train("base", steps=20, changes={"optim.l2": 0.0})
    assert other.key == "cifar10_jpeg, base, optim.l2=0.0, 20 steps, seeds 0 to 1"
    assert trained == [first.folder, other.folder]
    assert bench.used == [first.key, other.key]


def test_weights_that_are_gone_are_trained_again(
    bench: lab.Lab, trained: list[Path]
) -> None:
    run = bench.train("base", steps=20, weights=True)
    bench.train("base", steps=20, weights=True)
    assert len(trained) == 1
    (run.folder / files.CHECKPOINTS / "20").rmdir()
    bench.train("base", steps=20)  # its figures are enough
    assert len(trained) == 1
    bench.train("base", steps=20, weights=True)
    assert len(trained) == 2


def test_killed_before_its_figures_a_run_goes_on(
    bench: lab.Lab, trained: list[Path]
) -> None:
    run = bench.train("base", steps=20, weights=True)
    (run.folder / files.FINAL_METRICS).unlink()
    again = bench.train("base", steps=20, weights=True)
    assert trained == [run.folder] * 2
    assert (again.folder / files.FINAL_METRICS).exists()


def test_weights_of_an_earlier_step_are_refused(
    bench: lab.Lab, trained: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = bench.train("base", steps=20, weights=True)
    monkeypatch.setattr(look, "load_network", lambda _: SimpleNamespace(step=15))
    with pytest.raises(RunError, match="step 15, need 20; delete the folder"):
        look.network_of(run)
    whole = SimpleNamespace(step=20)
    monkeypatch.setattr(look, "load_network", lambda _: whole)
    assert look.network_of(run) is whole


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
    (first.folder / files.CHECKPOINTS / "20").rmdir()
    # Another machine rounds otherwise.
    monkeypatch.setattr(lab, "figures", lambda folder: AGAIN)
    assert bench.train("base", steps=20, weights=True).figures == AGAIN
    assert bench.train("base", steps=20).figures == FIGURES


def test_a_short_run_is_not_one_call(bench: lab.Lab) -> None:
    calls = [
        bench.config("base", steps=n).train.steps_per_call for n in (1, 20, 100, 3000)
    ]
    assert calls == [1, 5, 25, 100]
