"""From a configuration and a data set to states and updates, and back from a folder."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from cnnjax import config as configs
from cnnjax.data.dataset import Dataset, Split, make_dataset
from cnnjax.errors import InputError
from cnnjax.run import Run, make_run, of_one_seed, restore
from cnnjax.runtime.clocks import Clocks
from cnnjax.workdir import files
from cnnjax.workdir.checkpoints import Checkpoints
from cnnjax.workdir.identity import make_identity

SEED, STEPS = 7, 6


def noise(side: int = 28, channels: int = 1, classes: int = 10) -> Dataset:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, side, side, channels), np.uint8)
    split = Split(images, np.arange(40) % classes)
    names = tuple(map(str, range(classes)))
    return make_dataset("noise", "", split, split, names)


def config_of(model: str = "MLP", **changed) -> ConfigDict:
    """Of sixteen pictures a step, for two devices; `changed` has __ for dots."""
    config = configs.default_config(model)
    config.seed, config.parallel.num_devices = SEED, 2
    config.train.steps, config.train.batch_size = STEPS, 16
    config.optim.decay_steps = STEPS
    config.update_from_flattened_dict(
        {name.replace("__", "."): value for name, value in changed.items()}
    )
    configs.validate(config)
    return config


def run_of(model: str = "MLP", dataset: Dataset | None = None, **changed) -> Run:
    return make_run(config_of(model, **changed), dataset or noise())


SEVERAL = {"num_seeds": 4, "data__pipeline": "device"}


def test_each_seed_begins_as_a_run_of_its_own() -> None:
    run = run_of(**SEVERAL, optim__ema_decay=0.9)
    state = run.init_state()
    assert list(run.seeds) == [7, 8, 9, 10]
    assert state.step.shape == (4,) and state.seed.tolist() == list(run.seeds)
    for k, seed in enumerate(run.seeds):
        alone = run_of(seed=seed, optim__ema_decay=0.9)
        single = of_one_seed(alone.init_state(), 0)
        assert (single.step, single.seed) == (0, seed)
        jax.tree.map(np.testing.assert_array_equal, of_one_seed(state, k), single)


def test_a_network_that_there_is_not() -> None:
    several, single = run_of(**SEVERAL).init_state(), run_of().init_state()
    for k in (-1, 4):
        with pytest.raises(InputError, match=f"got replica {k}, need 0 to 3: .* of 4"):
            of_one_seed(several, k)
    with pytest.raises(InputError, match="got replica 1, need 0 to 0"):
        of_one_seed(single, 1)


@pytest.mark.parametrize("changed", [{}, {"optim__ema_decay": 0.9}, SEVERAL])
def test_an_abstract_state_is_of_the_shapes_of_a_state(changed) -> None:
    run = run_of(**changed)
    state, abstract = run.init_state(), run.abstract_state()
    assert jax.tree.structure(state) == jax.tree.structure(abstract)

    def check(leaf, like) -> None:
        assert (leaf.shape, leaf.dtype) == (like.shape, like.dtype)
        assert like.sharding.device_set == {jax.devices()[0]}

    jax.tree.map(check, state, abstract)


@pytest.mark.parametrize(
    ("model", "dataset", "message"),
    [
        ("MLP", noise(32, 3), r"MLP does not fit noise: got images .* 32, 32, 3\]"),
        ("LeNet5", noise(classes=11), "LeNet5 does not fit noise: got num_classes=11"),
    ],
)
def test_a_network_that_does_not_fit(model, dataset, message: str) -> None:
    with pytest.raises(InputError, match=message):
        run_of(model, dataset)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"parallel__num_devices": 3}, "=3: got a batch of 16 for 3 devices, need"),
        ({"parallel__num_devices": 16}, "=16: got 16 devices, need 1 to 8"),
        (SEVERAL | {"parallel__num_devices": 3}, "=3: got 4 seeds for 3 devices, need"),
    ],
)
def test_devices_that_do_not_fit(changed, message: str) -> None:
    with pytest.raises(InputError, match=f"^parallel.num_devices{message}"):
        run_of(**changed)


def test_its_identity_is_of_its_configuration_and_data() -> None:
    run, other = run_of(train__log_every=3), noise(28, 1, 9)
    assert run.identity() == make_identity(config_of().to_dict(), noise().fingerprint)
    assert dataclasses.replace(run, dataset=other).identity() != run.identity()
    assert run.input_shape == (28, 28, 1)
    assert run_of("CifarCNN", noise(32, 3), data__crop=24).input_shape == (24, 24, 3)


def test_a_run_goes_on_from_a_folder_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    run = run_of(optim__ema_decay=0.9)

    def train(state, first: int) -> list[bytes]:
        """Returns the bytes at the end, and saves the state on the way."""
        update = run.updates(first, Clocks())
        with Checkpoints(tmp_path, run=run.identity()) as checkpoints:
            for step in range(first, STEPS):
                if step == 4:
                    checkpoints.save(step, state, {})
                state, _ = update(state, range(step, step + 1), fetch=False)
        assert np.ravel(state.step)[0] == STEPS
        return [leaf.tobytes() for leaf in jax.tree.leaves(jax.device_get(state))]

    expected = train(run.init_state(), 0)
    with Checkpoints(tmp_path, run=run.identity()) as checkpoints:
        state, _ = checkpoints.restore_latest(run.init_state())
    assert train(state, 4) == expected


def test_a_state_is_restored_from_a_run_that_has_one(tmp_path: Path) -> None:
    run = run_of(optim__ema_decay=0.9)
    like, state = run.abstract_state(), run.init_state()
    with pytest.raises(InputError, match="has no checkpoint: need a run that has"):
        restore(tmp_path, like)
    data = {"name": "noise", "version": "", "classes": []}
    data |= {"fingerprint": run.dataset.fingerprint}
    files.write_json(tmp_path / files.CONFIG, run.config.to_dict())
    files.write_json(tmp_path / files.MANIFEST, {"data": data})
    with Checkpoints(tmp_path / files.CHECKPOINTS, run=run.identity()) as checkpoints:
        checkpoints.save(0, state, {})
    restored = restore(tmp_path, like)
    jax.tree.map(np.testing.assert_array_equal, restored, state)
    assert restored.step.sharding.device_set == {jax.devices()[0]}
    with pytest.raises(
        InputError, match=r"has no best checkpoint, which takes data\.v"
    ):
        restore(tmp_path, like, "best")
    files.write_json(tmp_path / files.CONFIG, config_of(seed=1).to_dict())
    with pytest.raises(InputError, match=r"0 is a checkpoint of another run: got .* s"):
        restore(tmp_path, like)
