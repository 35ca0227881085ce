import itertools
import subprocess
import sys

import jax
import numpy as np
import pytest

from cnnjax import prng
from cnnjax.data import augment, sampling, tf_pipeline
from cnnjax.data.augment import Preprocessing
from cnnjax.data.load import Split

CHAPTER = Preprocessing(24, ("crop", "flip", "brightness", "contrast"), "per_image")
MNIST = Preprocessing(0, (), "unit")
AFFINE = Preprocessing(0, ("shift", "rotate", "scale"), "unit")
CUTOUT = Preprocessing(28, ("flip", "cutout"), "per_image")
ALL = Preprocessing(24, augment.DISTORTIONS, "unit")  # where brightness shows
STEPS, BATCH = 70, 12  # more steps than a chunk holds, and across epochs


@pytest.fixture(scope="module")
def split() -> Split:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (50, 32, 32, 3), dtype=np.uint8)
    return Split(images, np.arange(50, dtype=np.int32) % 10)


def run(split: Split, *, first: int = 0, workers: int = 2, how=CHAPTER) -> list:
    batches = tf_pipeline.batches(
        split,
        how,
        seed=4,
        batch_size=BATCH,
        steps=range(first, STEPS),
        workers=workers,
    )
    return list(batches)


@pytest.mark.parametrize(
    "how",
    [CHAPTER, MNIST, AFFINE, CUTOUT, ALL],
    ids=["chapter", "mnist", "affine", "cutout", "all"],
)
def test_batches_are_those_that_jax_makes(split: Split, how: Preprocessing) -> None:
    batches = run(split, how=how)
    assert len(batches) == STEPS
    key = prng.from_seed(4, prng.DATA)
    for step in (0, 4, 63, 64, 69):
        positions = range(step * BATCH, (step + 1) * BATCH)
        index = sampling.example_indices(4, 50, positions)
        position = np.array(positions, np.uint32)
        params = augment.draw(key, position, how, (32, 32, 3))
        expected = augment.apply(split.images[index], params, how)
        np.testing.assert_allclose(batches[step]["image"], expected, atol=1e-4)
        np.testing.assert_array_equal(batches[step]["label"], split.labels[index])
        np.testing.assert_array_equal(batches[step]["position"], position)
        np.testing.assert_array_equal(batches[step]["mask"], np.ones(BATCH))


def test_any_number_of_workers_makes_the_same_bytes(split: Split) -> None:
    for one, many in zip(run(split, workers=1), run(split, workers=16), strict=True):
        jax.tree.map(np.testing.assert_array_equal, one, many)


@pytest.mark.parametrize("first", [1, 64, 69, STEPS])
def test_a_run_continues_from_any_step(split: Split, first: int) -> None:
    rest = itertools.islice(run(split), first, None)
    for whole, resumed in zip(rest, run(split, first=first), strict=True):
        jax.tree.map(np.testing.assert_array_equal, whole, resumed)


def test_types(split: Split) -> None:
    batch = run(split)[0]
    assert {k: (str(v.dtype), v.shape) for k, v in batch.items()} == {
        "image": ("float32", (BATCH, 24, 24, 3)),
        "label": ("int32", (BATCH,)),
        "mask": ("float32", (BATCH,)),
        "position": ("uint32", (BATCH,)),
    }


KERAS = """
import os, sys
from cnnjax.data.tensorflow_import import import_tensorflow
tf = import_tensorflow()
assert "keras" not in sys.modules and "TF_USE_LEGACY_KERAS" not in os.environ
from tensorflow.keras.layers import Dense
assert Dense is tf.keras.layers.Dense and tf.keras.__version__[0] == "3"
"""


def test_keras_is_imported_only_where_it_is_used() -> None:
    done = subprocess.run([sys.executable, "-c", KERAS], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
