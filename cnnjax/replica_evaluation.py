"""Exact evaluation of every replica at once."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh

from cnnjax import parallel
from cnnjax.clocks import Clocks
from cnnjax.data import augment
from cnnjax.data.datasets import Split
from cnnjax.evaluation import Evaluator, padded_batches, viewing
from cnnjax.metrics import Metrics
from cnnjax.replicas import compile_replicas
from cnnjax.step import LossFn, make_eval_step

Evaluate = Callable[[Any, Split], Metrics]


class ReplicasEvaluator:
    """Counts what each replica gets right on a split; compiles its step once."""

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFn,
        preprocessing: augment.Preprocessing,
        *,
        batch_size: int,
        top_k: int,
        mesh: Mesh,
        clocks: Clocks,
        num_views: int = 1,
    ) -> None:
        """Compiles nothing yet: that takes the first batch.

        Args:
            model: a network of `cnnjax.models`.
            loss_fn: (logits, labels) -> loss of each example.
            preprocessing: crop and normalisation; its distortions are not applied.
            batch_size: pictures at a time.
            top_k: a prediction is right when the label is among the first `top_k`.
            mesh: the devices, which share the replicas.
            clocks: where the time for compiling is added.
            num_views: of each picture, see `viewing`.
        """
        eval_step = make_eval_step(
            model,
            loss_fn=loss_fn,
            preprocess=viewing(preprocessing, num_views),
            top_k=top_k,
            num_views=num_views,
        )
        self._mapped = compile_replicas(eval_step, mesh, num_own=1, num_whole=1)
        self._compiled: Any = None
        self._batch_size, self._mesh, self._clocks = batch_size, mesh, clocks

    def __call__(self, params: Any, split: Split) -> Metrics:
        """Returns each replica's sums over `split`, float64 [num_seeds] on the host."""
        sums = []
        for batch in padded_batches(split, self._batch_size):
            placed = parallel.replicate(batch, self._mesh)
            if self._compiled is None:
                self._compiled = self._clocks.compile(self._mapped, params, placed)
            sums.append(jax.device_get(self._compiled(params, placed)))
        total = jax.tree.map(
            lambda *leaves: np.sum(leaves, axis=0, dtype=np.float64), *sums
        )
        assert (total.count == len(split.labels)).all(), "every picture counts once"
        return total


def make_evaluator(
    model: nn.Module,
    loss_fn: LossFn,
    preprocessing: augment.Preprocessing,
    *,
    num_seeds: int,
    batch_size: int,
    top_k: int,
    mesh: Mesh,
    mode: str,
    clocks: Clocks,
    num_views: int = 1,
) -> Evaluate:
    """Returns (params, split) -> sums: of one seed, or of each, as `start_state` is.

    Args:
        model: a network of `cnnjax.models`.
        loss_fn: (logits, labels) -> loss of each example.
        preprocessing: crop and normalisation; its distortions are not applied.
        num_seeds: how many replicas there are.
        batch_size: pictures at a time.
        top_k: a prediction is right when the label is among the first `top_k`.
        mesh: the devices.
        mode: `jit` or `pmap`, for one seed.
        clocks: where the time for compiling is added.
        num_views: of each picture, see `viewing`.
    """
    common: dict[str, Any] = {
        "num_views": num_views,
        "batch_size": batch_size,
        "top_k": top_k,
        "mesh": mesh,
        "clocks": clocks,
    }
    if num_seeds == 1:
        return Evaluator(model, loss_fn, preprocessing, mode=mode, **common)
    return ReplicasEvaluator(model, loss_fn, preprocessing, **common)
