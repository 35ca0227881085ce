"""Many seeds in one program: replicas that share the devices and nothing else.

Each device has as many replicas as the others and trains them one after the other, each
by the program of a single device on a whole batch. Nothing passes between devices.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cnnjax import parallel
from cnnjax.data.augment import Preprocessing
from cnnjax.data.dataset import Split
from cnnjax.resident import MakeChunk, ResidentUpdate
from cnnjax.runtime.clocks import Clocks
from cnnjax.state import TrainState, init_state
from cnnjax.step import Batch
from cnnjax.updates import Recipe


def choose_num_devices(num_seeds: int, available: int) -> int:
    """Returns the largest number of devices that divides the seeds; at least 1."""
    return max(n for n in range(1, available + 1) if num_seeds % n == 0)


def check_divisible(num_seeds: int, num_devices: int) -> None:
    """Raises ValueError, naming the numbers of devices that would do, if it must."""
    if num_seeds % num_devices == 0:
        return
    good = [str(n) for n in range(1, num_seeds + 1) if num_seeds % n == 0]
    raise ValueError(
        f"got {num_seeds} seeds for {num_devices} devices, need as many on each: take"
        f" {', '.join(good[:-1])} or {good[-1]} devices, or other num_seeds"
    )


def put(tree: Any, mesh: Mesh) -> Any:
    """Returns arrays [num_seeds, ...] with each seed's part on its device."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(parallel.AXIS)))


def start_state(
    recipe: Recipe,
    *,
    seed: int,
    num_seeds: int,
    image_shape: tuple[int, int, int],
    mesh: Mesh,
) -> TrainState:
    """Returns the state before the first update, on the mesh.

    Args:
        recipe: network and optimiser.
        seed: of the run, or of the first replica.
        num_seeds: how many replicas; replica k begins as a run with `seed + k` does,
            bit for bit.
        image_shape: (height, width, channels) of what the network is fed.
        mesh: the devices; with several seeds their number divides `num_seeds`.

    Returns:
        One seed: whole on every device. Several: every array leads with [num_seeds],
        which the devices share.
    """
    states = [
        init_state(
            recipe.model,
            recipe.tx,
            seed=one,
            image_shape=image_shape,
            ema=recipe.ema_decay > 0,
        )
        for one in range(seed, seed + num_seeds)
    ]
    if num_seeds == 1:
        return parallel.replicate(states[0], mesh)
    return put(jax.tree.map(lambda *leaves: np.stack(leaves), *states), mesh)


def compile_replicas(
    step: Callable[..., Any],
    mesh: Mesh,
    *,
    num_own: int,
    num_whole: int,
    donate: bool = False,
) -> Any:
    """Returns `step`, the program of one replica, compiled for all of them.

    On a device the replicas are looped over. Under `vmap` their weights make grouped
    convolutions: about a third of the images a second. Unrolled, the loop is no quicker
    and compiles four times as long (CifarCNN, four seeds on two cores).

    Args:
        step: (own ..., whole ...) -> anything; on one device, without collectives.
        mesh: from `parallel.make_mesh`.
        num_own: how many arguments lead with [num_seeds], from the first on.
        num_whole: how many more there are, the same for every replica.
        donate: whether the first argument's memory is given to the result.
    """

    def on_device(*arguments: Any) -> Any:
        own, whole = arguments[:num_own], arguments[num_own:]
        return jax.lax.map(lambda parts: step(*parts, *whole), own)

    by_seed, everywhere = PartitionSpec(parallel.AXIS), PartitionSpec()
    mapped = jax.shard_map(
        on_device,
        mesh=mesh,
        in_specs=(*[by_seed] * num_own, *[everywhere] * num_whole),
        out_specs=by_seed,
        check_vma=False,
    )
    return jax.jit(mapped, donate_argnums=(0,) if donate else ())


def make_update(
    recipe: Recipe,
    split: Split,
    preprocessing: Preprocessing,
    *,
    seed: int,
    num_seeds: int,
    batch_size: int,
    steps_per_call: int,
    mesh: Mesh,
    clocks: Clocks,
) -> ResidentUpdate:
    """Returns the updates of every replica, each of a whole batch of its own.

    Args:
        recipe: network, loss and optimiser.
        split: the training pictures.
        preprocessing: crop, distortions and normalisation.
        seed: of the first replica; the others have the seeds after it.
        num_seeds: how many replicas.
        batch_size: of each replica's batch.
        steps_per_call: at most, of each replica.
        mesh: the devices.
        clocks: where the time goes.
    """

    def put_chunk(make_chunk: MakeChunk) -> Batch:
        chunks = [make_chunk(seed=one) for one in range(seed, seed + num_seeds)]
        return put(jax.tree.map(lambda *own: np.stack(own), *chunks), mesh)

    return ResidentUpdate(
        recipe,
        split,
        preprocessing,
        put_chunk=put_chunk,
        compile_step=partial(compile_replicas, mesh=mesh, num_own=2),
        axis_name=None,
        batch_size=batch_size,
        steps_per_call=steps_per_call,
        mesh=mesh,
        clocks=clocks,
    )
