"""Updates with the data on the device against updates fed by tf.data."""

import functools

import jax
import numpy as np
import pytest

from cnnjax import losses, optimizers, parallel, resident
from cnnjax.data import augment, batches, load, sampling, tf_pipeline
from cnnjax.data.augment import Preprocessing
from cnnjax.data.load import Split
from cnnjax.models import MODELS, cifar
from cnnjax.runtime.clocks import Clocks
from cnnjax.state import init_state
from cnnjax.training import Cadence, calls
from cnnjax.updates import Recipe, StreamedUpdate

BATCH = 16
CHAPTER = Preprocessing(24, ("crop", "flip", "brightness", "contrast"), "per_image")
EVERYTHING = Preprocessing(24, augment.DISTORTIONS, "per_image")
UNIT = Preprocessing(0, (), "unit")


@pytest.fixture(scope="module")
def shapes() -> Split:
    return load.load_embedded("shapes").train


@pytest.mark.parametrize("how", [CHAPTER, EVERYTHING], ids=["chapter", "everything"])
def test_batches_are_those_of_tf_data(shapes: Split, how: Preprocessing) -> None:
    streamed = tf_pipeline.batches(
        shapes, how, seed=5, batch_size=BATCH, first_step=620, num_steps=630, workers=2
    )
    # Step 625 begins the second epoch.
    chunk = batches.chunk(
        seed=5,
        num_examples=len(shapes.labels),
        batch_size=BATCH,
        first_step=620,
        num_steps=10,
        capacity=12,
    )
    assert chunk["index"].shape == chunk["position"].shape == (BATCH, 12)
    assert not chunk["position"][:, 10:].any()
    make_batch = jax.jit(functools.partial(batches.make_batch, preprocessing=how))
    for step, expected in enumerate(streamed):
        index, position = chunk["index"][:, step], chunk["position"][:, step]
        seed = np.uint32(5)
        found = make_batch(seed, batches.whole(shapes), index, position)
        assert found.keys() == expected.keys()
        for name, values in expected.items():
            assert found[name].dtype == values.dtype
            np.testing.assert_allclose(found[name], values, atol=1e-4, err_msg=name)


def recipe_of(name: str) -> Recipe:
    rate = optimizers.make_schedule(
        "constant", learning_rate=1e-4, decay_steps=1, decay_rate=1.0, staircase=False
    )
    small = {"width": 0.25} if name == "CifarCNN" else {}
    l2 = 0.004 if name == "CifarCNN" else 0.0
    return Recipe(
        model=MODELS[name](**small),
        tx=optimizers.make_optimizer("adam", rate, l2=l2, penalised=cifar.PENALISED),
        schedule=rate,
        loss_fn=losses.cross_entropy,
        eval_loss_fn=losses.cross_entropy,
        l2=l2,
        penalised=cifar.PENALISED,
        ema_decay=0.0,
        has_dropout=name == "MLP",
    )


def start(recipe: Recipe, split: Split, how: Preprocessing, num_devices: int):
    mesh = parallel.make_mesh(num_devices)
    shape = how.output_shape(split.images.shape[1:])
    state = init_state(recipe.model, recipe.tx, seed=3, image_shape=shape)
    return parallel.replicate(state, mesh), mesh


def trained(recipe, split, how, pieces, num_devices=1, mode="jit"):
    state, mesh = start(recipe, split, how, num_devices)
    clocks = Clocks()
    update = resident.make_update(
        recipe,
        split,
        how,
        seed=3,
        batch_size=BATCH,
        steps_per_call=4,
        mesh=mesh,
        mode=mode,
        clocks=clocks,
    )
    found = []
    for steps in pieces:
        state, metrics = update(state, steps, fetch=True)
        found.append(metrics)
    assert clocks.compile_seconds > 0 and clocks.train_seconds > 0
    joined = {k: np.concatenate([m[k] for m in found]) for k in found[0]}
    return jax.device_get(state), joined


@pytest.mark.parametrize(
    ("name", "num_devices", "mode"),
    [("CifarCNN", 1, "jit"), ("CifarCNN", 2, "pmap"), ("MLP", 2, "jit")],
)
def test_updates_are_those_of_streamed_batches(
    shapes: Split, name: str, num_devices: int, mode: str
) -> None:
    cifar_like = name == "CifarCNN"
    split = shapes if cifar_like else load.load_embedded("digits").train
    how, recipe = (CHAPTER if cifar_like else UNIT), recipe_of(name)
    pieces = [range(i, i + 1) for i in range(5)]
    _, found = trained(recipe, split, how, pieces, num_devices, mode)

    state, mesh = start(recipe, split, how, num_devices)
    batches = tf_pipeline.batches(
        split, how, seed=3, batch_size=BATCH, first_step=0, num_steps=5, workers=2
    )
    update = StreamedUpdate(recipe, batches, mesh, mode, Clocks())
    for steps in pieces:
        state, metrics = update(state, steps, fetch=True)
        for metric in ("loss", "cross_entropy", "accuracy"):
            np.testing.assert_allclose(
                found[metric][steps.start], np.ravel(metrics[metric])[0], rtol=1e-5
            )


def test_the_bytes_do_not_depend_on_how_steps_are_cut_into_calls(shapes: Split) -> None:
    recipe = recipe_of("CifarCNN")
    at_once = trained(recipe, shapes, CHAPTER, [range(0, 4), range(4, 6)])
    one_by_one = trained(recipe, shapes, CHAPTER, [range(i, i + 1) for i in range(6)])
    jax.tree.map(np.testing.assert_array_equal, at_once, one_by_one)


def test_every_picture_of_an_epoch_is_used_once() -> None:
    make = functools.partial(
        batches.chunk, seed=1, num_examples=40, batch_size=8, capacity=5
    )
    epochs = [make(first_step=step, num_steps=5)["index"] for step in (0, 5)]
    for index in epochs:
        assert sorted(index.ravel()) == list(range(40))
    order = sampling.permutation(1, 0, 40)
    np.testing.assert_array_equal(epochs[0].T.ravel(), order)


@pytest.mark.parametrize("split_at_logs", [False, True])
@pytest.mark.parametrize("first", [0, 3, 10, 29])
def test_calls_end_where_something_is_due(first: int, split_at_logs: bool) -> None:
    cadence = Cadence(steps=30, log_every=5, eval_every=12, checkpoint_every=7)
    made = list(calls(first, cadence, 10, split_at_logs=split_at_logs))
    assert [step for steps in made for step in steps] == list(range(first, 30))
    ends = {steps.stop for steps in made}
    due = {7, 14, 21, 28, 12, 24, 10, 20, 30}
    due |= {5, 15, 25} if split_at_logs else set()
    assert ends == {end for end in due if end > first}
