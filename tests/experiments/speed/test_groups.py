"""The groups of the benchmark: what they time and compare, without timing it."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import config as configs
from cnnjax.errors import MissingPackageError
from speed import groups, measure, ours, sizes
from speed.peer import Peer
from speed.timing import Case


@pytest.fixture
def small(monkeypatch):
    """A configuration of each CNN, with data that take no time to make."""
    monkeypatch.setattr(
        ours, "SHAPES", {"cifar10": (60, 32, 32, 3), "mnist": (60, 28, 28, 1)}
    )
    ours._noise.cache_clear()
    yield {
        "base": configs.default_config("CifarCNN"),
        "mnist": configs.default_config("SimpleCNN"),
    }
    ours._noise.cache_clear()


@pytest.fixture
def on_gpu(monkeypatch):
    """The sizes of a GPU, but for its largest batch."""
    gpu = sizes.SIZES["gpu"]
    fewer = dataclasses.replace(gpu, batches=gpu.batches[:2])
    monkeypatch.setitem(sizes.SIZES, "cpu", fewer)


def names(cases):
    return [case.name for case in cases]


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_every_case_has_something_to_be_compared_with(kind) -> None:
    chosen = sizes.SIZES[kind]
    assert chosen.batches[0] == 128
    assert chosen.seeds[0] == chosen.steps_per_call[0] == 1
    for steps in chosen.steps_per_call:
        assert max(steps, ours.RUN_STEPS) % steps == 0


def test_many_steps_a_call_are_compared_with_one(small, on_gpu) -> None:
    [(cases, pairs)] = groups.calls(small)
    one, *others = names(cases)
    assert one == "1 step a call"
    assert others == [f"{n} steps a call" for n in (10, 100, 1000)]
    assert pairs == [(name, one) for name in others]
    assert [case.steps for case in cases] == [20, 20, 100, 1000]


def test_seeds_are_looped_over_and_batched(small, on_gpu) -> None:
    [(cases, pairs)] = groups.seeds(small)
    several = [f"{n} seeds, {how}" for n in (4, 16, 64) for how in ("looped", "vmap")]
    assert names(cases) == ["1 seed", *several]
    size = small["base"].train.batch_size
    of_all = [n * 50 * size for n in (1, 4, 4, 16, 16, 64, 64)]
    assert [case.images for case in cases] == of_all
    # gpu.sh reads this one.
    assert ("16 seeds, vmap", "16 seeds, looped") in pairs
    assert {own for own, other in pairs if other == "1 seed"} == set(several)


def test_a_peer_is_compared_with_the_same_precision(small, on_gpu, monkeypatch) -> None:
    none = (lambda: np.zeros(1), lambda steps: None)
    others = [
        Peer("TF32", *none),
        Peer("bf16", *none, half=True),
        Peer("tuned", *none, slow_to_compile=True),
    ]
    tried = []
    monkeypatch.setattr(groups, "_installed", lambda run: others)
    monkeypatch.setattr(
        groups, "_usable", lambda run, found: tried.append(len(found)) or found
    )
    (cases, pairs), *more = groups.batches(small)
    own, in_one_call, theirs = names(cases)
    assert own == "CifarCNN, batches of 128, cnnjax"
    assert in_one_call == "CifarCNN, batches of 128, cnnjax, 20 steps a call"
    assert theirs == "CifarCNN, batches of 128, TF32"
    assert pairs == [(own, theirs), (in_one_call, theirs)]
    assert len(more) == 2 * 2 - 1
    assert tried == [1, 1]  # it is the same network at every size

    (cases, pairs), _ = groups.peers(small)
    own, half = "CifarCNN training, cnnjax", "CifarCNN training, cnnjax, bfloat16"
    compared = {other: one for one, other in pairs if "steps" not in one}
    assert compared["CifarCNN training, bf16"] == half
    assert compared["CifarCNN training, TF32"] == own
    assert compared["CifarCNN training, tuned"] == own
    assert {name for pair in pairs for name in pair} <= set(names(cases))


def test_other_shapes_are_those_of_plain_flax_too(small, monkeypatch) -> None:
    assert {field for fields in groups.SHAPES.values() for field in fields} == {
        *("data.crop", "model.width", "train.batch_size")
    }
    fields = {"data.crop": 8, "model.width": 0.25, "train.batch_size": 3}
    monkeypatch.setattr(groups, "SHAPES", {"small": fields})
    [(cases, pairs)] = groups.shapes(small)
    assert names(cases) == ["CifarCNN, small, cnnjax", "CifarCNN, small, plain Flax"]
    assert pairs == [tuple(names(cases))]
    assert {case.images for case in cases} == {3}


@pytest.mark.usefixtures("small")
def test_a_library_that_fails_or_differs_is_left_out(monkeypatch, capsys) -> None:
    run, logits = ours.noise_run(configs.default_config("MLP")), np.ones((2, 10))
    monkeypatch.setattr(groups, "forward", lambda *of: (jnp.asarray(logits), {}))

    def broken(steps):
        raise ValueError("no compiler\nand a traceback")

    same = Peer("same", lambda: logits, lambda steps: None)
    others = [
        dataclasses.replace(same, name="broken", train=broken),
        dataclasses.replace(same, name="other", forward=lambda: 1.1 * logits),
        same,
    ]
    assert groups._usable(run, others) == [same]
    printed = capsys.readouterr().out
    assert "left out: broken (no compiler and a traceback)\n" in printed
    assert "left out: other (other is not the same network" in printed


def test_without_tensorflow_its_cases_are_left_out(small, monkeypatch, capsys) -> None:
    def missing(*arguments):
        raise MissingPackageError("TensorFlow is not installed")

    monkeypatch.setattr(ours, "tfdata_case", missing)
    small["mnist_augmented"] = small["mnist"]
    [(cases, _)] = groups.pipelines(small)
    assert names(cases) == [
        f"{name}, device" for name in ("base", "mnist", "mnist_augmented")
    ]
    assert "left out: TensorFlow is not installed\n" in capsys.readouterr().out


def test_a_stop_loses_only_what_it_is_at(small, monkeypatch, tmp_path) -> None:
    def stopped(given):
        yield [Case("one", lambda: None), Case("two", lambda: None)], [("one", "two")]
        raise KeyboardInterrupt

    monkeypatch.setattr(measure, "GROUPS", {"group": stopped})
    with pytest.raises(KeyboardInterrupt):
        measure.measure(small, ["group"], 1, tmp_path, None)
    found = json.loads((tmp_path / measure.RESULTS).read_text())["groups"]["group"]
    assert found["cases"].keys() == {"one", "two"}
    assert found["ratios"].keys() == {"one / two"}
