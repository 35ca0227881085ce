"""Exact evaluation: every image counts once, for any batch size and devices."""

import math
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from cnnjax.data.dataset import Split, checked
from cnnjax.errors import InputError
from cnnjax.metrics import Metrics, with_spread
from cnnjax.models.checking import check_network
from cnnjax.models.forward import Variables
from cnnjax.parallel import Part, Partitioner, make_mesh
from cnnjax.recipe import Recipe
from cnnjax.runtime.clocks import Clocks, Compiled, remembered
from cnnjax.state import TrainState
from cnnjax.step import make_eval_step

# More at once take no less time on a CPU, and CifarCNN a quarter of a MB each.
MAX_IMAGES_PER_CPU = 128


def padded_batches(split: Split, batch_size: int) -> Iterator[dict[str, np.ndarray]]:
    """Yields the images in order, the last batch padded with masked zeros.

    Yields:
        image uint8 [batch_size, height, width, channels], label int32 [batch_size],
        mask float32 [batch_size], 1 for images and 0 for padding.
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


@remembered  # as JAX keeps what it has compiled with the function
def _step(recipe: Recipe, partitioner: Partitioner, num_views: int, top_k: int) -> Any:
    axis = partitioner.axis_name
    step = make_eval_step(recipe, num_views=num_views, top_k=top_k, axis_name=axis)
    return partitioner.compile(step, Part.STATE, Part.EVALUATION_BATCH)


class Evaluator:
    """Counts the correct predictions of one network, or of several, on a split.

    The step is compiled once: every batch has `batch_size` images, rounded up to a
    multiple of the devices that share it, but on a CPU at most `MAX_IMAGES_PER_CPU` for
    each of them.
    """

    def __init__(
        self,
        recipe: Recipe,
        partitioner: Partitioner,
        *,
        batch_size: int,
        clocks: Clocks,
        num_views: int = 1,
        top_k: int = 1,
    ) -> None:
        """Compiles nothing yet: compilation needs the first batch.

        `num_views` is 1, 5 or 10, see `augment.views`; `top_k` is the `k` of
        `is_among_top`; `clocks` measure compilation.
        """
        sharing = 1 if partitioner.num_seeds > 1 else partitioner.num_devices
        each = math.ceil(batch_size / sharing)
        if partitioner.platform == "cpu":
            each = min(each, MAX_IMAGES_PER_CPU)
        self._batch_size = each * sharing
        self._partitioner = partitioner
        step = _step(recipe, partitioner, num_views, top_k)
        self._step = Compiled(step, clocks)

    def __call__(self, variables: Variables, split: Split) -> Metrics:
        """Returns the sums over all images of `split`, float64 on the host.

        `variables` are on the devices; with several seeds all their arrays lead with
        [num_seeds], and so do the sums.
        """
        sums, rows = [], self._partitioner.rows(self._batch_size)
        for batch in padded_batches(split, self._batch_size):
            mine = {name: values[rows] for name, values in batch.items()}
            placed = self._partitioner.put_batch(mine)
            self._step.prepare(variables, placed)
            sums.append(self._step(variables, placed))
            self._partitioner.wait_for(sums[-1])
        total = jax.tree.map(
            lambda *leaves: np.sum(leaves, axis=0, dtype=np.float64),
            *jax.device_get(sums),
        )
        assert np.all(total.count == len(split.labels)), "each counts exactly once"
        return total


def evaluate_state(
    evaluator: Evaluator, state: TrainState, split: Split, prefix: str
) -> dict[str, Any]:
    """Returns the metrics of the weights, and of their moving average if one is kept.

    `state` is on the devices. The keys begin with `prefix`, such as "test", and those
    of the moving average with `<prefix>_ema`.
    """
    values = summarise(prefix, evaluator(state.variables, split))
    if state.ema_variables is not None:
        values |= summarise(f"{prefix}_ema", evaluator(state.ema_variables, split))
    return values


def summarise(prefix: str, sums: Metrics) -> dict[str, Any]:
    """Returns `prefix/accuracy`, a fraction, `/correct`, `/count` and `/loss` in nats.

    The loss is the mean of the network's own (of several views, and except for LeNet-5
    of 1998, cross-entropy) without penalties and label smoothing. With several seeds
    all but the count are lists, with their mean and deviation added.
    """
    values = {
        f"{prefix}/accuracy": np.asarray(sums.correct / sums.count).tolist(),
        f"{prefix}/correct": np.asarray(sums.correct, np.int64).tolist(),
        f"{prefix}/count": int(np.ravel(sums.count)[0]),
        f"{prefix}/loss": np.asarray(sums.loss / sums.count).tolist(),
    }
    return with_spread(values)


def evaluate(
    recipe: Recipe,
    state: TrainState,
    split: Split,
    *,
    batch_size: int = 500,
    num_views: int = 1,
    top_k: int = 1,
) -> dict[str, Any]:
    """Evaluates a state of one seed on a split, on one device; for notebooks.

    Every image counts exactly once, for any `batch_size`. `num_views` is 1, 5 or 10,
    see `augment.views`; `top_k` is the `k` of `is_among_top`, less than the classes.

    Returns:
        `accuracy` (a fraction), `correct`, `count` and `loss` (mean, in nats); and the
        same as `ema/...` if the recipe keeps a moving average of the weights.

    Raises:
        InputError: the split is empty or not as `Split` says, a label is beyond the
            network's outputs, or a number is out of range.

    Example:
        >>> data, recipe = cj.load_dataset("digits"), cj.make_recipe(cj.MLP())
        >>> state = cj.init_state(recipe, data.image_shape, seed=0)
        >>> found = cj.evaluate(recipe, state, data.test)
        >>> found["count"], sorted(found)
        (296, ['accuracy', 'correct', 'count', 'loss'])
    """
    split = checked("evaluate", split)
    shape = recipe.preprocessing.output_shape(split.images.shape[1:])
    classes = check_network(recipe.model, shape)
    checked("evaluate", split, classes)
    crop, side = recipe.preprocessing.crop, min(split.images.shape[1:3])
    fit = num_views == 1 or (num_views in (5, 10) and 0 < crop < side)
    if batch_size < 1 or not (fit and 0 < top_k < classes):
        raise InputError(
            f"got {batch_size=}, {top_k=} and {num_views=} of {crop=} in {side} pixels,"
            f" need 1 or more, top_k below {classes} (the classes), and 1"
            " view, or 5 or 10 of a smaller crop; correct them"
        )
    partitioner = Partitioner(make_mesh(1))
    evaluator = Evaluator(
        recipe,
        partitioner,
        batch_size=batch_size,
        clocks=Clocks(),
        num_views=num_views,
        top_k=top_k,
    )
    found = evaluate_state(evaluator, partitioner.replicate(state), split, "eval")
    return {
        name.replace("eval_ema/", "ema/").removeprefix("eval/"): value
        for name, value in found.items()
    }
