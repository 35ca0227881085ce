"""Exact evaluation: every picture counts once, whatever the batch and the devices."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from cnnjax import parallel
from cnnjax.data import augment
from cnnjax.data.load import Split
from cnnjax.metrics import Metrics, with_spread
from cnnjax.replicas import compile_replicas
from cnnjax.runtime.clocks import Clocks
from cnnjax.step import LossFn, make_eval_step


def padded_batches(split: Split, batch_size: int) -> Iterator[dict[str, np.ndarray]]:
    """Yields the pictures in order, the last batch filled up with masked zeros.

    Yields:
        image uint8 [batch_size, height, width, channels], label int32 [batch_size],
        mask float32 [batch_size], 1 for pictures and 0 for padding.
    """
    for start in range(0, len(split.labels), batch_size):
        image = split.images[start : start + batch_size]
        label = split.labels[start : start + batch_size]
        padding = batch_size - len(label)
        yield {
            "image": np.pad(image, [(0, padding), (0, 0), (0, 0), (0, 0)]),
            "label": np.pad(label, (0, padding)),
            "mask": np.pad(np.ones(len(label), np.float32), (0, padding)),
        }


def viewing(
    preprocessing: augment.Preprocessing, num_views: int
) -> Callable[[jax.Array], jax.Array]:
    """Returns how pictures become what the network is fed, without distortions.

    Args:
        preprocessing: crop and normalisation.
        num_views: 1 for the central crop, else see `views.take`.
    """
    if num_views == 1:
        return partial(augment.standard_view, preprocessing=preprocessing)
    mirrored = num_views == 10
    return partial(take, preprocessing=preprocessing, mirrored=mirrored)


class Evaluator:
    """Counts what a network, or each of many, gets right on a split.

    The step is compiled once, as every batch has the same shape: `batch_size` rounded
    up to a multiple of the devices.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFn,
        preprocessing: augment.Preprocessing,
        *,
        batch_size: int,
        top_k: int,
        mesh: Mesh,
        mode: str,
        clocks: Clocks,
        num_views: int = 1,
        num_seeds: int = 1,
    ) -> None:
        """Compiles nothing yet: that takes the first batch.

        Args:
            model: a network of `cnnjax.models`.
            loss_fn: (logits, labels) -> loss of each example.
            preprocessing: crop and normalisation; its distortions are not applied.
            batch_size: pictures at a time.
            top_k: a prediction is right when the label is among the first `top_k`.
            mesh: the devices, which share a batch, or the seeds if there are several.
            mode: `jit` or `pmap`.
            clocks: where the time for compiling is added.
            num_views: of each picture, see `viewing`.
            num_seeds: how many replicas are evaluated at once.
        """
        self._batch_size = math.ceil(batch_size / mesh.size) * mesh.size
        eval_step = make_eval_step(
            model,
            loss_fn=loss_fn,
            preprocess=viewing(preprocessing, num_views),
            top_k=top_k,
            num_views=num_views,
            axis_name=parallel.AXIS if num_seeds == 1 else None,
        )
        self._mapped: Any
        self._place: Callable[[dict[str, np.ndarray]], Any]
        if num_seeds == 1:
            rows = parallel.own_rows(self._batch_size, mesh)
            self._mapped = parallel.compile_step(eval_step, mesh, mode)
            self._place = lambda batch: parallel.put_batch(
                {name: values[rows] for name, values in batch.items()}, mesh, mode
            )
        else:
            self._mapped = compile_replicas(eval_step, mesh, num_own=1, num_whole=1)
            self._place = partial(parallel.replicate, mesh=mesh)
        self._compiled: Any = None
        self._clocks = clocks

    def __call__(self, params: Any, split: Split) -> Metrics:
        """Returns the sums over all pictures of `split`, float64 on the host.

        Args:
            params: of the network; of several, every array leads with [num_seeds], and
                so do the sums.
            split: the pictures.
        """
        sums = []
        for batch in padded_batches(split, self._batch_size):
            placed = self._place(batch)
            if self._compiled is None:
                self._compiled = self._clocks.compile(self._mapped, params, placed)
            # Fetched each time: on CPU a step must end before the next one starts.
            sums.append(jax.device_get(self._compiled(params, placed)))
        total = jax.tree.map(
            lambda *leaves: np.sum(leaves, axis=0, dtype=np.float64), *sums
        )
        assert np.all(total.count == len(split.labels)), "each counts exactly once"
        return total


def summarise(prefix: str, sums: Metrics) -> dict[str, Any]:
    """Returns `prefix/accuracy`, a fraction, `/correct`, `/count` and `/loss` in nats.

    The loss is the mean of the network's own, the cross-entropy but for LeNet-5 of
    1998; it holds no penalty on weights and smooths no labels. Of sums of many
    seeds each is a list, with its mean and deviation; but not the count, which is one.
    """
    values = {
        f"{prefix}/accuracy": np.asarray(sums.correct / sums.count).tolist(),
        f"{prefix}/correct": np.asarray(sums.correct, np.int64).tolist(),
        f"{prefix}/count": int(np.ravel(sums.count)[0]),
        f"{prefix}/loss": np.asarray(sums.loss / sums.count).tolist(),
    }
    return with_spread(values)


def take(
    images: jax.Array, preprocessing: augment.Preprocessing, *, mirrored: bool
) -> jax.Array:
    """Returns several standard views of each picture.

    The crops of the four corners and of the middle, and with `mirrored` then the
    mirror images of these five; each is normalised by itself.

    Args:
        images: uint8 [batch, height, width, channels].
        preprocessing: crop (more than 0) and normalisation; its distortions are not
            applied.
        mirrored: whether mirror images are views too; they make no sense for digits.

    Returns:
        float32 [views, batch, crop, crop, channels], 5 or 10 views.

    Source: cuda-convnet's multiview test, `CroppedCIFARDataProvider` of `convdata.py`.
    """
    height, width = images.shape[1:3]
    crop = preprocessing.crop
    below, right = height - crop, width - crop
    places = ((0, 0), (0, right), (below, 0), (below, right), (below // 2, right // 2))
    crops = [
        images[:, top : top + crop, left : left + crop].astype(jnp.float32)
        for top, left in places
    ]
    if mirrored:
        crops += [view[:, :, ::-1] for view in crops]
    how = preprocessing.normalise
    return jnp.stack([augment.normalise(view, how) for view in crops])
