"""Every picture counts once, whatever the batch, the devices and the views."""

import dataclasses
import inspect
import statistics

import flax.linen as nn
import jax
import numpy as np
import pytest
from PIL import Image, ImageOps

from cnnjax import evaluation
from cnnjax.data.dataset import Split
from cnnjax.errors import InputError
from cnnjax.evaluation import (
    Evaluator,
    evaluate,
    evaluate_state,
    padded_batches,
    summarise,
)
from cnnjax.metrics import of_seed
from cnnjax.parallel import Partitioner, make_mesh
from cnnjax.recipe import Recipe, make_recipe
from cnnjax.runtime.clocks import Clocks
from cnnjax.state import init_state
from cnnjax.step import make_eval_step

BATCH = 16


class Linear(nn.Module):
    @nn.compact
    def __call__(self, images, dropout_keys=None):
        return nn.Dense(5)(images.reshape(images.shape[0], -1))


def recipe_of(model: nn.Module, **options) -> Recipe:
    """Labels are smoothed in training only, and so is what else it adds to a loss."""
    options = {"normalise": "unit", "label_smoothing": 0.3, "l2": 0.1} | options
    return make_recipe(model, **options)


def evaluator(num_devices: int, mode: str, recipe: Recipe, **options):
    partitioner = Partitioner(make_mesh(num_devices), mode)
    options = {"batch_size": BATCH, "clocks": Clocks()} | options
    return Evaluator(recipe, partitioner, **options), partitioner


def noise(n: int, seed: int, shape=(4, 4, 1)) -> Split:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, *shape), dtype=np.uint8)
    return Split(images, rng.integers(0, 5, n).astype(np.int32))


def by_hand(variables, split: Split) -> tuple[float, int]:
    """Returns the mean loss of `Linear` and how often it is right."""
    kernel = np.asarray(variables["params"]["Dense_0"]["kernel"], np.float64)
    bias = np.asarray(variables["params"]["Dense_0"]["bias"], np.float64)
    n = len(split.labels)
    logits = split.images.reshape(n, -1) / 255 @ kernel + bias
    log_sum = np.log(np.exp(logits).sum(-1))
    loss = (log_sum - logits[np.arange(n), split.labels]).mean()
    return loss, int((logits.argmax(-1) == split.labels).sum())


@pytest.mark.parametrize("mode", ["jit", "pmap"])
@pytest.mark.parametrize("num_devices", [1, 8])
def test_every_picture_counts_once(num_devices: int, mode: str) -> None:
    variables = Linear().init(jax.random.key(0), np.zeros((1, 4, 4, 1), np.float32))
    evaluate, partitioner = evaluator(num_devices, mode, recipe_of(Linear()))
    variables = partitioner.replicate(variables)
    for n in (1, BATCH - 1, BATCH, BATCH + 1, 3 * BATCH + 7):
        split = noise(n, seed=n)
        found = summarise("test", evaluate(variables, split))
        loss, correct = by_hand(variables, split)
        assert found["test/count"] == n
        assert found["test/correct"] == correct
        assert found["test/accuracy"] == correct / n
        np.testing.assert_allclose(found["test/loss"], loss, rtol=1e-5)


def test_each_process_evaluates_its_own_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if there were two, and the pictures filled the first one's half."""
    sizes = []

    def watched(self: Partitioner, batch):
        sizes.append(len(batch["label"]))
        return put_batch(self, batch)

    put_batch = Partitioner.put_batch
    monkeypatch.setattr(Partitioner, "rows", lambda _, size: slice(0, size // 2))
    monkeypatch.setattr(Partitioner, "put_batch", watched)
    evaluate, partitioner = evaluator(4, "jit", recipe_of(Linear()))
    state, split = init_state(recipe_of(Linear()), (4, 4, 1), seed=0), noise(8, seed=0)
    sums = evaluate(partitioner.replicate(state.variables), split)
    assert sizes == [BATCH // 2] and sums.correct == by_hand(state.variables, split)[1]


def test_a_constant_network_is_never_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """In batches of a multiple of the devices, no larger than is good for a CPU."""
    sizes = []

    def watched(split: Split, batch_size: int):
        sizes.append(batch_size)
        return padded_batches(split, batch_size)

    monkeypatch.setattr(evaluation, "padded_batches", watched)

    class Constant(nn.Module):
        @nn.compact
        def __call__(self, images, dropout_keys=None):
            return np.zeros((images.shape[0], 5), np.float32)

    split = Split(np.zeros((20, 4, 4, 1), np.uint8), np.zeros(20, np.int32))
    for top_k, batch_size, correct in ((1, 13, 0), (5, 16, 20), (1, 5000, 0)):
        options = {"top_k": top_k, "batch_size": batch_size}
        evaluate, _ = evaluator(8, "jit", recipe_of(Constant()), **options)
        assert evaluate({}, split).correct == correct
    # Of several seeds, every device sees the whole batch.
    seeds = Partitioner(make_mesh(8), num_seeds=8)
    evaluate = Evaluator(recipe_of(Constant()), seeds, batch_size=5000, clocks=Clocks())
    evaluate({"params": {"unused": np.zeros(8)}}, split)
    most = evaluation.MAX_IMAGES_PER_CPU
    assert sizes == [16, 16, 8 * most, most]


def test_evaluating_again_compiles_nothing_and_follows_the_weights() -> None:
    traced = []

    class Counted(Linear):
        @nn.compact
        def __call__(self, images, dropout_keys=None):
            traced.append(images.shape)
            return nn.Dense(5)(images.reshape(images.shape[0], -1))

    class Unhashable:
        __hash__ = None

        def __call__(self, logits, labels):
            return -logits[:, 0] * 0 + 7

    recipe, split = recipe_of(Counted()), noise(20, seed=1)
    state = init_state(recipe, (4, 4, 1), seed=0)
    first = evaluate(recipe, state, split)
    count = len(traced)
    assert evaluate(recipe, state, split) == first and len(traced) == count
    other = dataclasses.replace(state, params=jax.tree.map(lambda x: -x, state.params))
    assert evaluate(recipe, other, split)["loss"] != first["loss"]
    assert len(traced) == count
    own = dataclasses.replace(recipe, eval_loss_fn=Unhashable())
    assert [evaluate(own, state, split)["loss"] for _ in range(2)] == [7, 7]


@pytest.mark.parametrize("function", [evaluate, Evaluator, make_eval_step])
def test_by_default_it_is_one_view_and_one_guess(function) -> None:
    options = inspect.signature(function).parameters
    assert options["num_views"].default == options["top_k"].default == 1
    kinds = {options[name].kind for name in ("num_views", "top_k")}
    assert kinds == {inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize("mode", ["jit", "pmap"])
@pytest.mark.parametrize("num_views", [5, 10])
def test_several_views_are_averaged_as_probabilities(num_views: int, mode: str) -> None:
    """Against NumPy and Pillow's croppings, written out."""
    crop, n = 4, 3 * BATCH + 7
    variables = Linear().init(jax.random.key(1), np.zeros((1, 4, 4, 3), np.float32))
    kernel = np.asarray(variables["params"]["Dense_0"]["kernel"], np.float64)
    distortions = ("crop", "flip", "contrast")
    recipe = recipe_of(
        Linear(), crop=crop, distortions=distortions, normalise="per_image"
    )
    # A loss that is not of probabilities, such as LeNet-5's, does not take their mean.
    recipe = dataclasses.replace(
        recipe, eval_loss_fn=lambda logits, _: 7 + logits[:, 0]
    )
    evaluate, partitioner = evaluator(8, mode, recipe, top_k=2, num_views=num_views)
    split = noise(n, seed=1, shape=(11, 9, 3))
    sums = evaluate(partitioner.replicate(variables), split)
    found = summarise("test_multiview", sums)

    correct, loss = 0, 0.0
    for image, label in zip(split.images, split.labels, strict=True):
        softmaxes = []
        for mirror in (False, True)[: num_views // 5]:
            for left, top in ((0, 0), (5, 0), (0, 7), (5, 7), (2, 3)):
                box = (left, top, left + crop, top + crop)
                view = Image.fromarray(image).crop(box)
                view = ImageOps.mirror(view) if mirror else view
                pixels = np.asarray(view, np.float64)
                logits = ((pixels - pixels.mean()) / pixels.std()).ravel() @ kernel
                softmaxes.append(np.exp(logits) / np.exp(logits).sum())
        probabilities = np.mean(softmaxes, axis=0)
        correct += int(label in np.argsort(probabilities)[-2:])
        loss -= np.log(probabilities[label])
    assert found["test_multiview/count"] == n
    assert found["test_multiview/correct"] == correct
    np.testing.assert_allclose(found["test_multiview/loss"], loss / n, rtol=1e-5)


@pytest.mark.parametrize("num_devices", [1, 2])
def test_every_network_of_several_seeds_is_evaluated_as_alone(num_devices: int) -> None:
    """On the same pictures, of which each counts once for each network."""
    recipe, num_seeds, options = recipe_of(Linear()), 4, {"batch_size": BATCH}
    states = [init_state(recipe, (4, 4, 1), seed=seed) for seed in range(num_seeds)]
    together = Partitioner(make_mesh(num_devices), num_seeds=num_seeds)
    evaluate = Evaluator(recipe, together, clocks=Clocks(), **options)
    variables = together.put_each([state.variables for state in states])
    for n in (1, BATCH - 1, BATCH, 3 * BATCH + 7):
        split = noise(n, seed=n)
        found = summarise("test", evaluate(variables, split))
        losses = found["test/loss"]
        for k, state in enumerate(states):
            mine = of_seed(found, k)
            loss, correct = by_hand(state.variables, split)
            assert mine["test/correct"] == correct
            assert mine["test/accuracy"] == correct / n
            assert mine["test/count"] == n
            np.testing.assert_allclose(mine["test/loss"], loss, rtol=1e-5)
        assert found["test/loss/mean"] == pytest.approx(statistics.mean(losses))
        assert found["test/loss/std"] == pytest.approx(statistics.stdev(losses))
    assert len(set(losses)) == num_seeds


def test_the_average_of_the_weights_is_evaluated_beside_them() -> None:
    recipe, split = recipe_of(Linear(), ema_decay=0.9), noise(3 * BATCH + 7, seed=2)
    state = init_state(recipe, (4, 4, 1), seed=0)
    other = jax.tree.map(lambda leaf: -2 * leaf + 0.1, state.params)
    state = dataclasses.replace(state, ema_params=other)
    evaluate_both, partitioner = evaluator(2, "jit", recipe)
    found = evaluate_state(evaluate_both, partitioner.replicate(state), split, "eval")
    alone = evaluate(recipe, state, split, batch_size=BATCH)
    assert len(found) == len(alone) == 8
    for prefix, short, variables in (
        ("eval/", "", state.variables),
        ("eval_ema/", "ema/", state.ema_variables),
    ):
        loss, correct = by_hand(variables, split)
        for values, key in ((found, prefix), (alone, short)):
            assert values[f"{key}correct"] == correct
            assert values[f"{key}accuracy"] == correct / len(split.labels)
            assert values[f"{key}count"] == len(split.labels)
            np.testing.assert_allclose(values[f"{key}loss"], loss, rtol=1e-5)
    assert found["eval/loss"] != found["eval_ema/loss"]
    without = dataclasses.replace(state, ema_params=None)
    assert evaluate(recipe, without, split).keys() == {
        *("accuracy", "correct", "count", "loss")
    }


class Known(Linear):
    """A network that says how many classes it tells apart."""

    num_classes: int = 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda images, labels: (images / 255, labels), r"\[0, 1\], store \(255 \* im"),
        (lambda images, labels: (images, labels + 5), r"\[5, 9\], out of range for 5"),
        (lambda images, labels: (images, labels[:-1]), "20 images and 19 labels"),
        (lambda images, labels: (images[:0], labels[:0]), "at least one example is"),
    ],
)
def test_a_split_made_by_hand_is_checked(change, message) -> None:
    recipe, split = recipe_of(Known()), noise(20, seed=0)
    state = init_state(recipe, (4, 4, 1), seed=0)
    with pytest.raises(InputError, match=f"^evaluate: .*{message}"):
        evaluate(recipe, state, Split(*change(split.images, split.labels)))
    unsaid = make_recipe(Linear(), crop=recipe.preprocessing.crop)
    with pytest.raises(InputError, match=r"\[5, 9\], out of range for 5 classes"):
        evaluate(unsaid, state, Split(split.images, split.labels + 5))
    as_lists = Split(split.images.tolist(), split.labels.tolist())
    with pytest.raises(InputError, match=r"int64 .*store images\.astype\(np\.uint8\)"):
        evaluate(recipe, state, as_lists)
    as_list = Split(split.images, split.labels.tolist())
    assert evaluate(recipe, state, as_list) == evaluate(recipe, state, split)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"batch_size": 0}, "got batch_size=0, top_k=1 and num_views=1 of"),
        ({"top_k": 0}, "got batch_size=500, top_k=0 and num_views=1 of"),
        ({"top_k": 5}, r"top_k=5 and .*, need 1 or more, top_k below 5 \(the cl"),
        ({"num_views": 0}, "num_views=0 of crop=3 in 4 pixels, need 1 or more, top_k"),
        ({"num_views": 2}, "num_views=2 of crop=3"),
        ({"num_views": 5, "crop": 0}, "num_views=5 of crop=0 in"),
        ({"num_views": 10, "crop": 4}, "num_views=10 of crop=4 in 4 pixels, need"),
    ],
)
def test_numbers_out_of_range(numbers, message) -> None:
    numbers = {"crop": 3} | numbers
    recipe = make_recipe(Linear(), crop=numbers.pop("crop"))
    state = init_state(recipe, (4, 4, 1), seed=0)
    with pytest.raises(InputError, match=message):
        evaluate(recipe, state, noise(20, seed=0), **numbers)
