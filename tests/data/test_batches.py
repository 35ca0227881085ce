"""Batches made on the device against those that tf.data makes."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.data import augment, batches, tf_pipeline
from cnnjax.data.augment import Preprocessing
from cnnjax.data.dataset import Split
from cnnjax.errors import InputError
from cnnjax.models import CifarCNN
from cnnjax.recipe import make_recipe

EXAMPLES, BATCH, SEED = 50, 12, 2**32 - 1
PREPROCESSINGS = {
    "chapter": Preprocessing(
        24, ("crop", "flip", "brightness", "contrast"), "per_image"
    ),
    "plain": Preprocessing(0, (), "unit"),
    "cutout": Preprocessing(28, ("crop", "flip", "cutout"), "per_image"),
    "all": Preprocessing(24, augment.DISTORTIONS, "per_image"),
}


@pytest.fixture(scope="module")
def split() -> Split:
    """Pictures whose labels are their numbers."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (EXAMPLES, 32, 32, 3), dtype=np.uint8)
    return Split(images, np.arange(EXAMPLES, dtype=np.int32))


def made(split: Split, steps: range, how: str = "chapter") -> list:
    recipe = SimpleNamespace(preprocessing=PREPROCESSINGS[how])
    found = batches.batches(split, recipe, seed=SEED, batch_size=BATCH, steps=steps)
    return list(found)


@pytest.mark.parametrize("how", PREPROCESSINGS)
def test_they_are_those_of_tf_data(split: Split, how: str) -> None:
    steps = range(3, 20)  # over the ends of four epochs
    expected = tf_pipeline.batches(
        split,
        PREPROCESSINGS[how],
        seed=SEED,
        batch_size=BATCH,
        steps=steps,
        workers=2,
    )
    for ours, theirs in zip(made(split, steps, how), expected, strict=True):
        assert ours.keys() == theirs.keys()
        for name, values in theirs.items():
            assert ours[name].dtype == values.dtype, name
            np.testing.assert_allclose(ours[name], values, atol=1e-4, err_msg=name)


def test_each_epoch_has_every_picture_once(split: Split) -> None:
    found = made(split, range(25))  # 300 pictures: six epochs
    order = np.concatenate([batch["label"] for batch in found]).reshape(6, EXAMPLES)
    for epoch in order:
        assert sorted(epoch) == list(range(EXAMPLES))
    assert len({tuple(epoch) for epoch in order}) == 6
    positions = np.concatenate([batch["position"] for batch in found])
    np.testing.assert_array_equal(positions, np.arange(300))


def test_they_start_at_any_step(split: Split) -> None:
    whole = made(split, range(20), "cutout")
    for first in (1, 4, 19, 20):
        rest = made(split, range(first, 20), "cutout")
        for ours, theirs in zip(rest, whole[first:], strict=True):
            for name, values in theirs.items():
                np.testing.assert_array_equal(ours[name], values, err_msg=name)


def test_a_recipe_says_what_is_done_to_them(split: Split) -> None:
    distortions = PREPROCESSINGS["chapter"].distortions
    recipe = make_recipe(CifarCNN(EXAMPLES), crop=24, distortions=distortions)
    found = batches.batches(split, recipe, seed=SEED, batch_size=BATCH, steps=range(2))
    for ours, theirs in zip(found, made(split, range(2)), strict=True):
        np.testing.assert_array_equal(ours["image"], theirs["image"])
        assert ours["image"].shape == (BATCH, 24, 24, 3)


IMAGES, LABELS = np.zeros((6, 32, 32, 3), np.uint8), np.arange(6)


@pytest.mark.parametrize(
    ("split", "numbers", "message"),
    [
        (Split(IMAGES / 255, LABELS), {}, "batches: images are float64 .*, store"),
        (Split(IMAGES[..., 0], LABELS), {}, r"\[6, 32, 32\]; .*; reshape them"),
        (Split(IMAGES, np.eye(6)), {}, "labels are float64 .*argmax"),
        (Split(IMAGES, LABELS * 1.0), {}, r"store labels\.astype\(int\)"),
        (Split(IMAGES, LABELS[:5]), {}, "6 images and 5 labels"),
        (Split(IMAGES, LABELS + 5), {}, "out of range for 10 classes"),
        (Split(IMAGES[:0], LABELS[:0]), {}, "at least one example"),
        ((IMAGES, LABELS), {}, r"got a tuple, need a Split, such as data\.train"),
        (Split(IMAGES, LABELS), {"batch_size": 0}, "got batch_size=0, "),
        (Split(IMAGES, LABELS), {"seed": -1}, "seed=-1 and steps"),
        (Split(IMAGES, LABELS), {"steps": range(-1, 2)}, r"range\(-1, 2\), need"),
        (Split(IMAGES, LABELS), {"steps": range(2**31 + 1)}, "at most 2.*32 examples"),
    ],
)
def test_a_split_made_by_hand_is_checked(split, numbers, message) -> None:
    """Silently, pictures of another scale and labels without a class would train."""
    given = {"seed": 0, "batch_size": 2, "steps": range(1)} | numbers
    with pytest.raises(InputError, match=message):
        next(batches.batches(split, make_recipe(CifarCNN()), **given))


def test_a_seed_of_numpy_is_that_seed(split: Split) -> None:
    recipe = make_recipe(CifarCNN(num_classes=50))
    steps = np.arange(30, 31)  # beyond the first epoch, and of NumPy too
    wanted, *others = (
        next(batches.batches(split, recipe, seed=seed, batch_size=50, steps=steps))
        for seed in (3, np.int64(3), np.uint32(3))
    )
    for other in others:
        np.testing.assert_array_equal(other["image"], wanted["image"])


def test_another_loop_over_them_compiles_nothing(split: Split, monkeypatch) -> None:
    traced = []
    apply = batches.augment.apply
    monkeypatch.setattr(
        batches.augment, "apply", lambda *given: traced.append(1) or apply(*given)
    )
    recipe = make_recipe(CifarCNN(num_classes=50))
    for start in (0, 7):  # of a size that no other test has
        for _ in batches.batches(
            split, recipe, seed=start, batch_size=13, steps=range(start, start + 2)
        ):
            pass
    assert len(traced) == 1


def test_any_arrays_of_the_right_form_make_a_split() -> None:
    recipe = make_recipe(CifarCNN())
    split = Split(IMAGES.tolist(), LABELS.tolist())
    with pytest.raises(InputError, match="images are int64"):
        next(batches.batches(split, recipe, seed=0, batch_size=2, steps=range(1)))
    split = Split(jnp.asarray(IMAGES), LABELS.tolist())
    batch = next(batches.batches(split, recipe, seed=0, batch_size=6, steps=range(1)))
    assert sorted(batch["label"].tolist()) == LABELS.tolist()
    assert batch["label"].dtype == np.int32
