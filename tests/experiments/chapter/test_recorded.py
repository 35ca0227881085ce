"""Long runs that are recorded: read, paired by seed, and given to the rows."""

import json
from pathlib import Path

import pytest

from chapter import lab, recorded
from chapter.budgets import BUDGETS
from chapter.checks import HOLDS
from chapter.cifar_rows import LONG
from chapter.ledger import Ledger
from chapter.measure import ROWS
from chapter.row import looks
from cnnjax.config import default_config
from cnnjax.errors import InputError


def record(row: str, seeds: list[int], values: object, **final: object) -> dict:
    figures = {
        "dataset": "cifar10",
        "steps": LONG,
        "test/accuracy": values,
        "test_ema/accuracy": values,
    }
    return {"row": row, "seeds": seeds, "final": {**figures, **final}, "commit": "abc"}


# One seed a program, whose figures are numbers, and several, whose figures are lists.
RECORDS = [
    record("long", [1], 0.861),
    record("long", [0], 0.860),
    record("long", [2, 3], [0.859, 0.860]),
    record("long", [7], 0.1, dataset="shapes"),
    record("long without distortions", [2, 1, 0], [0.799, 0.800, 0.801]),
    record("base", [0], 0.7, steps=3000),
]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Returns (records, budget, data set) -> a lab that has nothing to train with."""
    monkeypatch.setattr(lab.Lab, "data_of", lambda self, kind: pytest.fail("no data"))
    recipes = {"base": default_config("CifarCNN")}

    def make(records=RECORDS, budget="standard", dataset="cifar10") -> lab.Lab:
        return lab.Lab(
            recipes,
            {"cifar": lab.Data(dataset, "")},
            BUDGETS[budget],
            Ledger(tmp_path),
            tmp_path / "runs",
            records,
        )

    return make


def test_rows_are_paired_by_seed(bench) -> None:
    made = bench()
    with_, without = made.recorded("long", "long without distortions")
    assert with_.values().tolist() == [0.860, 0.861, 0.859]
    assert without.values("test_ema/accuracy").tolist() == [0.801, 0.800, 0.799]
    assert (with_.dataset, with_.steps) == ("cifar10", LONG)
    assert made.used == ["runs.json: long, long without distortions"]
    [alone] = made.recorded("long")
    assert alone.values().tolist() == [0.860, 0.861, 0.859, 0.860]


def test_what_is_not_recorded_is_trained(bench) -> None:
    assert bench(RECORDS[:4]).recorded("long", "long without distortions") == []
    assert bench([]).recorded("long") == []
    assert bench(dataset="cifar100").recorded("long") == []
    # The quick budget shows that everything runs.
    assert bench(budget="quick").recorded("long") == []


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (record("long", [3], 0.8), "and again seed 3"),
        (record("long", [4], 0.8, steps=9000), "seed 4 of 9000 steps"),
    ],
)
def test_records_that_contradict_each_other_are_refused(bench, more, message) -> None:
    with pytest.raises(InputError, match=f"'long'.*{message}.*runs.json"):
        bench([*RECORDS, more]).recorded("long")


def test_a_file_of_records(tmp_path: Path) -> None:
    file = tmp_path / recorded.FILE
    assert recorded.read(file) == []
    file.write_text(json.dumps({"runs": RECORDS}))
    assert recorded.read(file) == RECORDS
    for bad in ({"runs": 3}, {"runs": [{"row": "long", "seeds": [0]}]}):
        file.write_text(json.dumps(bad))
        with pytest.raises(InputError, match=r"need \{'runs': .*restore the file"):
            recorded.read(file)


def test_claims_of_100_000_steps_are_judged_by_them(bench, monkeypatch) -> None:
    made = bench()
    monkeypatch.setattr(made, "about", lambda: {})
    [row] = looks(ROWS["cifar-long"], made)
    assert row["checks"][0]["values"] == [0.860, 0.861, 0.859, 0.860]
    assert (row["verdict"], row["n"], row["steps"]) == (HOLDS, 4, LONG)
    [row] = looks(ROWS["distortions-error"], made)
    gaps = [0.860 - 0.801, 0.861 - 0.800, 0.859 - 0.799]
    assert row["checks"][0]["values"] == pytest.approx(gaps)
    errors = [also["mean"] for also in row["also"]]
    assert errors == pytest.approx([0.2, 0.14])
    assert (row["verdict"], row["n"]) == (HOLDS, 3)
