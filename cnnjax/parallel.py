"""Where a run computes: devices, the mesh over them, `jit` or `pmap`, and the seeds.

With one seed, the devices share each batch. With several seeds, each device trains the
same number of networks, one after the other or all at once, each on full batches of its
own, by the program of a single device; the seeds share nothing but the devices.
"""

import dataclasses
import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXIS = "data"

# With fewer images per device, collectives cost more time than further devices save.
MIN_IMAGES_PER_DEVICE = 25


class Part(enum.Enum):
    """The kind of an argument of a compiled step, which decides its sharding.

    With one seed, the state is replicated and a batch is split evenly over the devices.
    With several seeds, each seed's state and training batch are on one device, and
    evaluation batches are replicated. `WHOLE` is always replicated.
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
        mode: "jit" or "pmap"; several seeds or several processes need "jit".
        num_seeds: how many networks are trained at once; if more than one, a multiple
            of the number of devices.
        vmap_seeds: whether a device batches its seeds by `jax.vmap`, or else loops.

    Example:
        >>> from cnnjax.parallel import make_mesh
        >>> cj.Partitioner(make_mesh(1)).rows(128)
        slice(0, 128, None)
    """

    mesh: Mesh
    mode: str = "jit"
    num_seeds: int = 1
    vmap_seeds: bool = False

    @property
    def num_devices(self) -> int:
        """Number of devices over all processes."""
        return self.mesh.size

    @property
    def platform(self) -> str:
        """What the devices are: "cpu", "gpu"."""
        return str(self.mesh.devices.flat[0].platform)

    @property
    def axis_name(self) -> str | None:
        """The axis that a step sums over; None where each batch is on one device."""
        return AXIS if self.num_seeds == 1 and self.mesh.size > 1 else None

    @property
    def _cut(self) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec(AXIS))

    def rows(self, batch_size: int) -> slice:
        """Returns the rows of the global batch, or a seed's, of this process."""
        if self.num_seeds > 1:
            return slice(None)
        count = batch_size // self.mesh.size * self.mesh.local_mesh.size
        return slice(jax.process_index() * count, (jax.process_index() + 1) * count)

    def replicate(self, tree: Any) -> Any:
        """Returns `tree` with every array replicated on every device."""
        sharding = NamedSharding(self.mesh, PartitionSpec())
        if jax.process_count() == 1:
            return jax.device_put(tree, sharding)
        # `device_put` would compare every array across the processes.
        return jax.tree.map(
            lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)),
            tree,
        )

    def put_each(self, trees: Sequence[Any], part: Part = Part.STATE) -> Any:
        """Places one tree per seed, in the order of the seeds, and returns one tree.

        `part` is `STATE` or `TRAINING_BATCH`; a batch of one seed is as in `put_batch`.
        With several seeds, every array of the result leads with [num_seeds].
        """
        if self.num_seeds > 1:
            stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
            return jax.device_put(stacked, self._cut)
        (tree,) = trees
        return self.replicate(tree) if part is Part.STATE else self.put_batch(tree)

    def put_batch(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """Places this process's rows of a batch; replicates them with several seeds."""
        if self.num_seeds > 1:
            return dict(self.replicate(dict(batch)))
        if self.mode == "pmap":
            n = self.mesh.local_mesh.size
            batch = {k: v.reshape(n, -1, *v.shape[1:]) for k, v in batch.items()}
        if jax.process_count() == 1:
            # The same result as below, in half the time.
            return jax.device_put(dict(batch), self._cut)
        return {
            name: jax.make_array_from_process_local_data(self._cut, array)
            for name, array in batch.items()
        }

    def compile(
        self, step: Callable[..., Any], *parts: Part, donate: bool = False
    ) -> Any:
        """Returns `step`, written for one device and one seed, mapped over all of them.

        `parts` are the kinds of its arguments; with `donate` the memory of the first
        argument is reused for the result. A step of one seed sums over `axis_name`
        itself, so its results are the same on every device; `check_vma=False` keeps
        `shard_map` from summing the gradients again.

        Several seeds are a loop on each device, or batched by `vmap`, where their
        weights make grouped convolutions: on a CPU a third to two thirds of the images
        per second; unrolled, the loop is no faster and takes four times as long to
        compile (CifarCNN, four seeds on two cores). A GPU may be faster with `vmap`.
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
            own = [part in cut for part in parts]
            if self.vmap_seeds:
                step = jax.vmap(step, in_axes=[0 if is_own else None for is_own in own])
            else:
                step = _loop_over(step, own)
        mapped = jax.shard_map(
            step,
            mesh=self.mesh,
            in_specs=tuple(in_parts if part in cut else whole for part in parts),
            out_specs=out,
            check_vma=False,
        )
        return jax.jit(mapped, donate_argnums=donated)

    def wait_for(self, arrays: Any) -> None:
        """On CPU, waits until the results of a step are ready.

        The next step could otherwise occupy a thread that this step's all-reduce still
        waits for, which is a deadlock. Waiting costs no time on CPU.
        """
        if self.platform == "cpu":
            jax.block_until_ready(arrays)


def _loop_over(step: Callable[..., Any], own: Sequence[bool]) -> Callable[..., Any]:
    """Returns `step` looped over the leading axis of the arguments marked in `own`."""

    def on_device(*arguments: Any) -> Any:
        marked = list(zip(arguments, own, strict=True))

        def of_one(parts: list[Any]) -> Any:
            each = iter(parts)
            return step(*[next(each) if is_own else a for a, is_own in marked])

        return jax.lax.map(of_one, [a for a, is_own in marked if is_own])

    return on_device


def make_partitioner(
    num_devices: int,
    *,
    mode: str,
    num_seeds: int,
    batch_size: int,
    vmap_seeds: bool = False,
) -> Partitioner:
    """Returns a partitioner over `num_devices` devices, counted over all processes.

    0 means the largest number that divides the seeds or, with one seed, that
    `choose_num_devices` finds for the batch. `batch_size` is that of one seed.

    Raises:
        ValueError: there are fewer devices, or they do not divide the batch or seeds.
    """
    available, processes = jax.device_count(), jax.process_count()
    if num_seeds > 1:
        good = [n for n in range(1, num_seeds + 1) if num_seeds % n == 0]
        chosen = num_devices or max(n for n in good if n <= available)
        if chosen not in good:
            raise ValueError(
                f"got {num_seeds} seeds for {chosen} devices, need as many on each:"
                f" take {', '.join(map(str, good[:-1]))} or {num_seeds} devices, or"
                " other num_seeds"
            )
    else:
        chosen = num_devices or choose_num_devices(batch_size, available, processes)
        if batch_size % chosen:
            below = batch_size // chosen * chosen
            near = [str(n) for n in (below, below + chosen) if n > 0]
            raise ValueError(
                f"got a batch of {batch_size} for {chosen} devices, need a multiple of"
                f" {chosen}: take {' or '.join(near)}, or other devices"
            )
    return Partitioner(make_mesh(chosen), mode, num_seeds, vmap_seeds)


def choose_num_devices(batch_size: int, available: int, num_processes: int = 1) -> int:
    """Returns the largest number of devices worth using for a batch.

    It divides `batch_size`, leaves each device at least `MIN_IMAGES_PER_DEVICE` and is
    a multiple of `num_processes`; if there is none, one device for each process.
    """
    usable = [
        n
        for n in range(num_processes, available + 1, num_processes)
        if batch_size % n == 0 and batch_size // n >= MIN_IMAGES_PER_DEVICE
    ]
    return max(usable, default=num_processes)


def make_mesh(num_devices: int) -> Mesh:
    """Returns the 1-D mesh over `num_devices` devices, axis `AXIS`.

    It has the first devices of each process, equally many of each, process by process.

    Raises:
        ValueError: there are fewer devices, or the processes cannot share them evenly.
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
    devices = [
        device
        for process in range(num_processes)
        for device in [x for x in available if x.process_index == process][:each]
    ]
    return jax.make_mesh(
        (num_devices,), (AXIS,), axis_types=(AxisType.Auto,), devices=devices
    )
