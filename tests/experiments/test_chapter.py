"""The chapter's figures, trained for: `pytest -m slow`, half an hour on two cores.

The bands are about three standard deviations of the seeds of
`experiments/results/runs.json`, or those of the issue that asked for the run.
"""

import json
import os
from pathlib import Path

import pytest

DATA = Path(
    os.environ.get("CNNJAX_DATA_DIR")
    or Path(__file__).parents[3] / "shared" / "data" / "tensorflow_datasets"
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.fixture
def train(start, tmp_path):
    """Returns (script, *flags) -> final metrics and the training losses logged."""

    def train(script, *flags):
        workdir = tmp_path / "run"
        process = start(script, *flags, f"--workdir={workdir}", cwd=tmp_path)
        _, err = process.communicate()
        assert process.returncode == 0, err
        lines = (workdir / "metrics.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        losses = [r["train/loss"] for r in records if "train/loss" in r]
        return json.loads((workdir / "final_metrics.json").read_text()), losses

    return train


def on_real(name):
    if not (DATA / name).is_dir():
        pytest.skip(f"{name} is not in {DATA}; set CNNJAX_DATA_DIR")
    return f"--config.data.name={name}", f"--config.data.dir={DATA}"


def test_the_embedded_pictures_are_learned_in_a_thousand_steps(train) -> None:
    final, _ = train(
        "cifar10.py", "--config.data.source=embedded", "--config.train.steps=1000"
    )
    assert final["dataset"] == "shapes"
    assert final["test/count"] == 2000
    assert final["test/accuracy"] > 0.9


@pytest.mark.real_data
def test_the_chapter_s_cifar_run(train) -> None:
    flags = on_real("cifar10")
    final, losses = train("cifar10.py", *flags, "--config.train.log_every=1")
    assert len(losses) == 3000
    assert 4.55 < losses[0] < 4.80
    assert 0.9 < sum(losses[-50:]) / 50 < 1.2
    assert final["test/count"] == 10_000
    assert 0.69 < final["test/accuracy"] < 0.74


@pytest.mark.real_data
def test_the_mlp_s_two_percent(train) -> None:
    final, _ = train("mnist.py", "--config=configs/mlp.py", *on_real("mnist"))
    assert 0.975 < final["test/accuracy"] < 0.985


@pytest.mark.parametrize(
    ("recipe", "least"),
    [("mlp", 0.9), ("lenet5", 0.95), ("mnist", 0.95), ("mnist_augmented", 0.95)],
)
def test_every_recipe_learns_the_embedded_digits(train, recipe, least) -> None:
    flags = (f"--config=configs/{recipe}.py", "--config.data.source=embedded")
    final, _ = train("mnist.py", *flags, "--config.train.log_every=1000")
    assert (final["dataset"], final["test/count"]) == ("digits", 296)
    assert final["test/accuracy"] > least
