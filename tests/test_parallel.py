"""Which devices a run takes, and where the arguments of its steps lie on them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from cnnjax import parallel
from cnnjax.parallel import Part, Partitioner, make_mesh, make_partitioner

DEVICES, SEEDS, BATCH = 2, 4, 6


def test_there_are_eight_devices() -> None:
    assert jax.device_count() == 8
    assert all(device.platform == "cpu" for device in jax.devices())


@pytest.mark.parametrize(
    ("batch_size", "available", "expected"),
    [
        (128, 1, 1),
        (128, 2, 2),
        (128, 8, 4),  # 16 pictures on each of eight would be too few
        (50, 2, 2),
        (50, 3, 2),
        (49, 2, 1),
        (99, 4, 3),
        (1, 8, 1),
        (1024, 8, 8),
    ],
)
def test_devices_for_a_batch(
    monkeypatch: pytest.MonkeyPatch, batch_size: int, available: int, expected: int
) -> None:
    assert parallel.choose_num_devices(batch_size, available) == expected
    monkeypatch.setattr(parallel.jax, "device_count", lambda: available)
    made = make_partitioner(0, mode="jit", num_seeds=1, batch_size=batch_size)
    assert (made.num_devices, made.num_seeds) == (expected, 1)


@pytest.mark.parametrize(
    ("num_seeds", "available", "expected"),
    [(4, 1, 1), (4, 2, 2), (4, 3, 2), (4, 8, 4), (6, 4, 3), (7, 2, 1), (16, 8, 8)],
)
def test_devices_for_several_seeds(
    monkeypatch: pytest.MonkeyPatch, num_seeds: int, available: int, expected: int
) -> None:
    """Whatever the batch: each seed has the whole of its own."""
    monkeypatch.setattr(parallel.jax, "device_count", lambda: available)
    made = make_partitioner(0, mode="jit", num_seeds=num_seeds, batch_size=1)
    assert (made.num_devices, made.num_seeds) == (expected, num_seeds)


def test_indivisible_batches_name_the_nearest_that_would_do() -> None:
    with pytest.raises(ValueError, match="multiple of 3: take 126 or 129"):
        make_partitioner(3, mode="jit", num_seeds=1, batch_size=128)
    with pytest.raises(ValueError, match="multiple of 8: take 8,"):
        make_partitioner(8, mode="pmap", num_seeds=1, batch_size=5)
    made = make_partitioner(4, mode="pmap", num_seeds=1, batch_size=128)
    assert (made.num_devices, made.mode) == (4, "pmap")


def test_devices_that_do_not_divide_the_seeds() -> None:
    with pytest.raises(ValueError, match=r"6 seeds for 4 .* take 1, 2, 3 or 6 devices"):
        make_partitioner(4, mode="jit", num_seeds=6, batch_size=128)


def test_more_devices_than_there_are() -> None:
    for num_seeds in (1, 9):
        with pytest.raises(ValueError, match="got 9 devices, need 1 to 8"):
            make_partitioner(9, mode="jit", num_seeds=num_seeds, batch_size=9)


def arguments(partitioner: Partitioner, seeds: int):
    """Returns what a step takes, on the host and where the partitioner puts it."""
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return rng.integers(0, 100, shape).astype(np.float32)

    states = [{"w": draw(3), "step": draw()} for _ in range(seeds)]
    batches = [{"x": draw(BATCH, 5)} for _ in range(seeds)]
    pictures, table = {"x": draw(BATCH, 5)}, draw(7)
    placed = (
        partitioner.put_each(states),
        partitioner.put_each(batches, Part.TRAINING_BATCH),
        partitioner.put_batch(pictures),
        partitioner.replicate(table),
    )
    return (states, batches, pictures, table), placed


def is_placed(tree, partitioner: Partitioner, spec: PartitionSpec) -> bool:
    wanted = NamedSharding(partitioner.mesh, spec)
    return all(
        leaf.sharding.is_equivalent_to(wanted, leaf.ndim)
        for leaf in jax.tree.leaves(tree)
    )


WHOLE, CUT = PartitionSpec(), PartitionSpec(parallel.AXIS)


@pytest.mark.parametrize("mode", ("jit", "pmap"))
def test_the_devices_share_a_batch_of_one_seed(mode: str) -> None:
    partitioner = Partitioner(make_mesh(DEVICES), mode)
    assert partitioner.axis_name == parallel.AXIS
    assert partitioner.rows(BATCH) == slice(0, BATCH)
    host, placed = arguments(partitioner, seeds=1)
    assert is_placed((placed[0], placed[3]), partitioner, WHOLE)
    assert is_placed(placed[1:3], partitioner, CUT)
    lead = (BATCH,) if mode == "jit" else (DEVICES, BATCH // DEVICES)
    assert placed[1]["x"].shape == placed[2]["x"].shape == (*lead, 5)
    seen = []

    def step(state, batch, pictures, table):
        shapes = [batch["x"].shape, pictures["x"].shape, table.shape]
        seen.append([state["w"].shape, state["step"].shape, *shapes])
        total = jnp.sum(batch["x"]) + 3 * jnp.sum(pictures["x"])
        total = jax.lax.psum(total, partitioner.axis_name)
        return {"w": state["w"] * total, "step": state["step"] + 1}, table[0]

    parts = (Part.STATE, Part.TRAINING_BATCH, Part.EVALUATION_BATCH, Part.WHOLE)
    compiled = partitioner.compile(step, *parts, donate=True)
    found, first = compiled(*placed)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(placed[0])), "donated"
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(placed[1:]))
    each = (BATCH // DEVICES, 5)
    assert all(shapes == [(3,), (), each, each, (7,)] for shapes in seen)
    assert is_placed((found, first), partitioner, WHOLE)
    ((state,), (batch,), pictures, table) = host
    total = batch["x"].sum() + 3 * pictures["x"].sum()
    np.testing.assert_array_equal(found["w"], state["w"] * total)
    np.testing.assert_array_equal(found["step"], state["step"] + 1)
    assert first == table[0]
    again, _ = compiled(found, *placed[1:])  # its result is its argument
    np.testing.assert_array_equal(again["step"], state["step"] + 2)


@pytest.mark.parametrize("vmap_seeds", [False, True])
def test_several_seeds_share_the_devices_and_the_pictures(vmap_seeds: bool) -> None:
    partitioner = Partitioner(make_mesh(DEVICES), "jit", SEEDS, vmap_seeds)
    assert partitioner.axis_name is None
    host, placed = arguments(partitioner, SEEDS)
    assert is_placed(placed[:2], partitioner, CUT)
    assert is_placed(placed[2:], partitioner, WHOLE)
    assert placed[0]["w"].shape == (SEEDS, 3)
    assert placed[1]["x"].shape == (SEEDS, BATCH, 5)
    assert placed[2]["x"].shape == (BATCH, 5)
    seen = []

    def step(state, pictures, table, batch):  # in whatever order
        shapes = [batch["x"].shape, pictures["x"].shape, table.shape]
        seen.append([state["w"].shape, state["step"].shape, *shapes])
        total = jnp.sum(batch["x"]) + 3 * jnp.sum(pictures["x"])
        return {"w": state["w"] * total, "step": state["step"] + 1}, table[0]

    parts = (Part.STATE, Part.EVALUATION_BATCH, Part.WHOLE, Part.TRAINING_BATCH)
    compiled = partitioner.compile(step, *parts)
    states, batches, pictures, table = placed
    found, first = compiled(states, pictures, table, batches)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(placed))
    whole = (BATCH, 5)
    assert all(shapes == [(3,), (), whole, whole, (7,)] for shapes in seen)
    assert is_placed((found, first), partitioner, CUT)
    states, batches, pictures, table = host
    for k in range(SEEDS):
        total = batches[k]["x"].sum() + 3 * pictures["x"].sum()
        np.testing.assert_array_equal(found["w"][k], states[k]["w"] * total)
        np.testing.assert_array_equal(found["step"][k], states[k]["step"] + 1)
        assert first[k] == table[0]
