"""Where a run computes: devices, the mesh over them, `jit` or `pmap`, and the seeds.

Several devices share each batch of one seed. Several seeds share the devices and
nothing else: each device trains as many networks as the others, one after the other,
each on whole batches of its own, by the program of a single device.
"""

import dataclasses
import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXIS = "data"
MODES = ("jit", "pmap")

# Fewer images a device than this and the collectives cost more than the cores bring.
MIN_IMAGES_PER_DEVICE = 25


class Part(enum.Enum):
    """What an argument of a compiled step is, which says where its parts lie.

    With one seed a state is replicated and a batch is cut into equal parts, one on each
    device. With several seeds each has a state and training batches of its own, on its
    device, and evaluation pictures are replicated. `WHOLE` is always replicated.
    """

    STATE = enum.auto()
    TRAINING_BATCH = enum.auto()
    EVALUATION_BATCH = enum.auto()
    WHOLE = enum.auto()


@dataclasses.dataclass(frozen=True)
class Partitioner:
    """Compiles steps for a mesh of devices and places their arguments.

    Attributes:
        mesh: one axis, `AXIS`; from `make_mesh`.
        mode: one of `MODES`; several seeds and several processes take `jit`.
        num_seeds: how many networks are trained at once; a multiple of the devices if
            it is more than one.
    """

    mesh: Mesh
    mode: str = "jit"
    num_seeds: int = 1

    @property
    def num_devices(self) -> int:
        """Number of devices of all processes."""
        return self.mesh.size

    @property
    def axis_name(self) -> str | None:
        """The axis that a step sums over; None where each device is on its own."""
        return AXIS if self.num_seeds == 1 else None

    @property
    def _cut(self) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec(AXIS))

    def rows(self, batch_size: int) -> slice:
        """Returns the rows of the global batch that this process makes."""
        count = batch_size // self.mesh.size * self.mesh.local_mesh.size
        return slice(jax.process_index() * count, (jax.process_index() + 1) * count)

    def replicate(self, tree: Any) -> Any:
        """Returns `tree` with every array replicated on every device."""
        sharding = NamedSharding(self.mesh, PartitionSpec())
        if jax.process_count() == 1:
            return jax.device_put(tree, sharding)
        # `device_put` would compare every array with those of the other processes.
        return jax.tree.map(
            lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)),
            tree,
        )

    def put_each(self, trees: Sequence[Any], part: Part = Part.STATE) -> Any:
        """Places what each seed has of its own, in the order of the seeds.

        Args:
            trees: one tree of arrays a seed; a batch is the global batch.
            part: `STATE` or `TRAINING_BATCH`.

        Returns:
            One tree; with several seeds every array leads with [num_seeds].
        """
        if self.num_seeds > 1:
            stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
            return jax.device_put(stacked, self._cut)
        (tree,) = trees
        return self.replicate(tree) if part is Part.STATE else self.put_batch(tree)

    def put_batch(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """Places a global batch, or this process's rows of one, for a step.

        With several seeds, which share it, it is replicated.
        """
        if self.num_seeds > 1:
            replicated: dict[str, jax.Array] = self.replicate(dict(batch))
            return replicated
        if self.mode == "pmap":
            n = self.mesh.local_mesh.size
            batch = {
                k: v.reshape(n, len(v) // n, *v.shape[1:]) for k, v in batch.items()
            }
        if jax.process_count() == 1:
            # The same, in half the time.
            return jax.device_put(dict(batch), self._cut)
        return {
            name: jax.make_array_from_process_local_data(self._cut, array)
            for name, array in batch.items()
        }

    def compile(
        self, step: Callable[..., Any], *parts: Part, donate: bool = False
    ) -> Any:
        """Returns `step`, the program of one device and one seed, for all of them.

        A step of one seed sums over `axis_name` by itself, so that its results are the
        same on every device; `check_vma=False` keeps `shard_map` from summing the
        gradients once more. Several seeds are looped over on a device: under `vmap`
        their weights make grouped convolutions, about a third of the images a second;
        unrolled, the loop is no quicker and compiles four times as long (CifarCNN, four
        seeds on two cores).

        Args:
            step: a function of as many arguments as there are `parts`.
            *parts: what its arguments are.
            donate: whether the memory of the first argument is given to the result.
        """
        donated = (0,) if donate else ()
        cut = {Part.TRAINING_BATCH, Part.EVALUATION_BATCH}
        whole, in_parts = PartitionSpec(), PartitionSpec(AXIS)
        if self.mode == "pmap":
            return jax.pmap(
                step,
                axis_name=AXIS,
                in_axes=tuple(0 if part in cut else None for part in parts),
                out_axes=None,
                donate_argnums=donated,
                devices=list(self.mesh.devices.flat),
            )
        out = whole
        if self.num_seeds > 1:
            cut, out = {Part.STATE, Part.TRAINING_BATCH}, in_parts
            step = _loop_over(step, [part in cut for part in parts])
        mapped = jax.shard_map(
            step,
            mesh=self.mesh,
            in_specs=tuple(in_parts if part in cut else whole for part in parts),
            out_specs=out,
            check_vma=False,
        )
        return jax.jit(mapped, donate_argnums=donated)

    def wait_for(self, arrays: Any) -> None:
        """Waits for the results of a step where the next must not start before.

        On CPU a step that starts before the last one's all-reduce has met can take the
        thread that it waits for: a deadlock. Waiting costs nothing there.
        """
        if self.mesh.devices.flat[0].platform == "cpu":
            jax.block_until_ready(arrays)


def _loop_over(step: Callable[..., Any], own: Sequence[bool]) -> Callable[..., Any]:
    """Returns `step` looped over the leading axis of the arguments that are `own`."""

    def on_device(*arguments: Any) -> Any:
        mine = [a for a, is_own in zip(arguments, own, strict=True) if is_own]
        shared = [a for a, is_own in zip(arguments, own, strict=True) if not is_own]
        return jax.lax.map(lambda parts: step(*parts, *shared), mine)

    return on_device


def make_partitioner(
    num_devices: int, *, mode: str, num_seeds: int, batch_size: int
) -> Partitioner:
    """Returns a partitioner over the devices that are asked for.

    Args:
        num_devices: of all processes; 0 for the largest number that divides the seeds,
            or the batch with at least `MIN_IMAGES_PER_DEVICE` images each.
        mode: one of `MODES`.
        num_seeds: how many networks are trained at once.
        batch_size: of the global batch of one seed.

    Raises:
        ValueError: there are fewer devices, or they do not divide what they share.
    """
    available, processes = jax.device_count(), jax.process_count()
    if num_seeds > 1:
        divisors = [n for n in range(1, available + 1) if num_seeds % n == 0]
        chosen = num_devices or max(divisors)
        check_seeds_divide(num_seeds, chosen)
    else:
        chosen = num_devices or choose_num_devices(batch_size, available, processes)
        check_divisible(batch_size, chosen)
    return Partitioner(make_mesh(chosen), mode, num_seeds)


def choose_num_devices(batch_size: int, available: int, num_processes: int = 1) -> int:
    """Returns the largest number of devices worth using for a batch.

    It divides `batch_size` and leaves each device at least `MIN_IMAGES_PER_DEVICE`. It
    is a multiple of the processes, which have as many devices each; at least one each.
    """
    usable = [
        n
        for n in range(num_processes, available + 1, num_processes)
        if batch_size % n == 0 and batch_size // n >= MIN_IMAGES_PER_DEVICE
    ]
    return max(usable, default=num_processes)


def check_divisible(batch_size: int, num_devices: int) -> None:
    """Raises ValueError unless the devices divide a batch, with the nearest sizes."""
    if batch_size % num_devices == 0:
        return
    below = batch_size // num_devices * num_devices
    nearest = [str(n) for n in (below, below + num_devices) if n > 0]
    raise ValueError(
        f"got a batch of {batch_size} for {num_devices} devices, need a multiple of"
        f" {num_devices}: take {' or '.join(nearest)}, or other devices"
    )


def check_seeds_divide(num_seeds: int, num_devices: int) -> None:
    """Raises ValueError unless the devices divide the seeds, with what would do."""
    if num_seeds % num_devices == 0:
        return
    good = [str(n) for n in range(1, num_seeds + 1) if num_seeds % n == 0]
    raise ValueError(
        f"got {num_seeds} seeds for {num_devices} devices, need as many on each: take"
        f" {', '.join(good[:-1])} or {good[-1]} devices, or other num_seeds"
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
