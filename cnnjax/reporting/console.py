"""What a run prints as it begins and as it ends."""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from cnnjax import spread
from cnnjax.data.arrays import Dataset
from cnnjax.models import summary
from cnnjax.reporting import writer

# What final_metrics.json holds accuracies of, where they exist, in this order. Of the
# validation split where a search has not opened the test set.
TESTED = tuple(
    f"{split}{views}{average}"
    for split in ("test", "val")
    for views in ("", "_multiview")
    for average in ("", "_ema")
)


def print_setup(
    model: nn.Module,
    image_shape: tuple[int, int, int],
    dataset: Dataset,
    *,
    batch_size: int,
    num_seeds: int,
    mesh: Mesh,
    mode: str,
) -> None:
    """Prints the network's layers, the data set and the devices.

    Args:
        model: a network of `cnnjax.models`.
        image_shape: (height, width, channels) of what it is fed.
        dataset: what it is trained and tested on.
        batch_size: of the global batch.
        num_seeds: how many replicas are trained at once.
        mesh: the devices.
        mode: `jit` or `pmap`.

    Raises:
        ValueError: the network does not take such pictures or so many classes.
    """
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    params: Any = jax.eval_shape(model.init, jax.random.key(0), images)
    total = sum(leaf.size for leaf in jax.tree.leaves(params))
    print(summary.table(summary.layers(model, image_shape), total))
    print(
        f"data: {dataset.name} {dataset.version}, {dataset.num_classes} classes,"
        f" {len(dataset.train.labels)} training and {len(dataset.test.labels)} test"
        " pictures"
    )
    count, what = batch_size, "pictures of a batch"
    if num_seeds > 1:
        count, what = num_seeds, "seeds"
    print(
        f"devices: {mesh.size} x {mesh.devices.flat[0].device_kind}"
        f" ({mode}), {count // mesh.size} of the {count} {what} on each",
        flush=True,
    )


def print_summary(final: Mapping[str, Any], top_k: int) -> None:
    """Prints the precision, with counts and the data set's name, and the time taken.

    Args:
        final: what `final_metrics.json` holds.
        top_k: that the precision is at.
    """
    print_precisions(final, final["dataset"], top_k)
    print(
        f"{final['steps']} steps in {final['train_seconds']:.1f} s"
        f" ({final['perf/examples_per_sec']:.1f} examples/sec), compiled in"
        f" {final['compile_seconds']:.1f} s",
        flush=True,
    )


def print_precisions(
    values: Mapping[str, Any], dataset: str, top_k: int, seeds: Sequence[int] = ()
) -> None:
    """Prints the precision of each of `TESTED` that `values` holds.

    Args:
        values: as `evaluation.summarise` names them.
        dataset: the name of what was tested on.
        top_k: that the precision is at.
        seeds: of the replicas, each of which gets a line before that of them all.
    """
    for prefix in TESTED:
        if f"{prefix}/accuracy" in values:
            for k, seed in enumerate(seeds):
                own = spread.of_seed(values, k)
                line = writer.precision_line(own, prefix, dataset, top_k)
                print(f"seed {seed}: {line}")
            print(writer.precision_line(values, prefix, dataset, top_k))
