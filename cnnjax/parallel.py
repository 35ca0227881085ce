"""Devices, the mesh over them, and a step compiled with `jit` or `pmap`."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXIS = "data"
MODES = ("jit", "pmap")

# Fewer images a device than this and the collectives cost more than the cores bring.
MIN_IMAGES_PER_DEVICE = 25


def choose_num_devices(batch_size: int, available: int, num_processes: int = 1) -> int:
    """Returns the largest number of devices worth using for a batch.

    It divides `batch_size` and leaves each device at least 25 images. It is a multiple
    of the processes, which have as many devices each; at least one of each.
    """
    usable = [
        n
        for n in range(num_processes, available + 1, num_processes)
        if batch_size % n == 0 and batch_size // n >= MIN_IMAGES_PER_DEVICE
    ]
    return max(usable, default=num_processes)


def check_divisible(batch_size: int, num_devices: int) -> None:
    """Raises ValueError, naming the nearest sizes that would do, if it must."""
    if batch_size % num_devices == 0:
        return
    below = batch_size // num_devices * num_devices
    nearest = [str(n) for n in (below, below + num_devices) if n > 0]
    raise ValueError(
        f"got a batch of {batch_size} for {num_devices} devices, need a multiple of"
        f" {num_devices}: take {' or '.join(nearest)}, or other devices"
    )


def make_mesh(num_devices: int) -> Mesh:
    """Returns the 1-D mesh over `num_devices` devices, axis `AXIS`.

    They are the first of each process, as many of each, in the order of the processes.

    Raises:
        ValueError: there are fewer devices, or some process would have more of them.
    """
    available, num_processes = jax.devices(), jax.process_count()
    if not 1 <= num_devices <= len(available):
        raise ValueError(
            f"got {num_devices} devices, need 1 to {len(available)}, which is what"
            f" there is of {available[0].platform}"
        )
    if num_devices % num_processes:
        raise ValueError(
            f"got {num_devices} devices for {num_processes} processes, need as many of"
            f" each: a multiple of {num_processes}"
        )
    each = num_devices // num_processes
    owned = [
        [device for device in available if device.process_index == process][:each]
        for process in range(num_processes)
    ]
    return jax.make_mesh(
        (num_devices,),
        (AXIS,),
        axis_types=(AxisType.Auto,),
        devices=[device for devices in owned for device in devices],
    )


def own_rows(batch_size: int, mesh: Mesh) -> slice:
    """Returns the rows of the global batch that this process makes.

    Args:
        batch_size: of the global batch, a multiple of the devices.
        mesh: from `make_mesh`.
    """
    count = batch_size // mesh.size * mesh.local_mesh.size
    return slice(jax.process_index() * count, (jax.process_index() + 1) * count)


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Returns `tree` with every array whole on every device of the mesh."""
    sharding = NamedSharding(mesh, PartitionSpec())
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)
    # `device_put` would compare every array with those of the other processes.
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), tree
    )


def put_batch(
    batch: Mapping[str, np.ndarray], mesh: Mesh, mode: str = "jit"
) -> dict[str, jax.Array]:
    """Returns the batch cut into equal parts, one on each device of the mesh.

    Args:
        batch: arrays [batch, ...], this process's part of the global batch.
        mesh: from `make_mesh`.
        mode: what the step is compiled with; `pmap` wants [devices, batch / devices].
    """
    sharding = NamedSharding(mesh, PartitionSpec(AXIS))
    if mode == "pmap":
        n = mesh.local_mesh.size
        batch = {k: v.reshape(n, len(v) // n, *v.shape[1:]) for k, v in batch.items()}
    if jax.process_count() == 1:
        # The same, in half the time.
        return jax.device_put(dict(batch), sharding)
    return {
        name: jax.make_array_from_process_local_data(sharding, array)
        for name, array in batch.items()
    }


def compile_step(
    step: Callable[..., Any],
    mesh: Mesh,
    mode: str = "jit",
    *,
    donate: bool = False,
    num_whole: int = 0,
) -> Any:
    """Returns `step` mapped over the mesh: first argument whole, second in parts.

    The step is the program of one device and sums over `AXIS` by itself, so that its
    results are the same on every device; `check_vma=False` keeps `shard_map` from
    summing the gradients once more.

    Args:
        step: (state, batch, ...) -> anything, all of it equal on every device.
        mesh: from `make_mesh`.
        mode: one of `MODES`.
        donate: whether the first argument's memory is given to the result.
        num_whole: how many more arguments there are, whole on every device.
    """
    donated = (0,) if donate else ()
    if mode == "pmap":
        return jax.pmap(
            step,
            axis_name=AXIS,
            in_axes=(None, 0, *[None] * num_whole),
            out_axes=None,
            donate_argnums=donated,
            devices=list(mesh.devices.flat),
        )
    whole = PartitionSpec()
    mapped = jax.shard_map(
        step,
        mesh=mesh,
        in_specs=(whole, PartitionSpec(AXIS), *[whole] * num_whole),
        out_specs=whole,
        check_vma=False,
    )
    return jax.jit(mapped, donate_argnums=donated)
