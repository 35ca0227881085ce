"""Event files, read back with TensorFlow's own reader."""

import io
import sys
from functools import partial

import flax.linen as nn
import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose
from PIL import Image

from cnnjax.data import tf_pipeline
from cnnjax.data.augment import Preprocessing
from cnnjax.data.dataset import Split
from cnnjax.data.inspection import grid, stretch
from cnnjax.data.tensorflow_import import import_tensorflow
from cnnjax.models import MODELS
from cnnjax.models.forward import init_variables
from cnnjax.recipe import make_recipe
from cnnjax.reporting import tensorboard

CHAPTER = Preprocessing(24, ("crop", "flip", "brightness", "contrast"), "per_image")


def events(folder):
    """Returns the events that TensorBoard shows: of each file until the next hides it.

    Its rule: an event that says START hides all before it with its step or a later one.
    """
    tf = import_tensorflow()
    shown = []
    for file in sorted(folder.iterdir(), key=lambda p: p.stat().st_mtime):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            if event.HasField("session_log"):
                assert event.session_log.status == event.session_log.START
                shown = [e for e in shown if e.step < event.step]
            elif event.HasField("summary"):
                shown.append(event)
    return shown


def values(folder):
    return {(e.step, v.tag): v for e in events(folder) for v in e.summary.value}


@pytest.fixture
def pictures():
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (200, 32, 32, 3), np.uint8)
    return Split(images, np.arange(200, dtype=np.int32) % 10)


def test_pictures_histograms_and_sparsity(tmp_path, key, pictures):
    tf = import_tensorflow()
    model = MODELS["CifarCNN"](width=0.25)
    like = np.zeros((1, 24, 24, 3), np.float32)
    variables = jax.jit(model.init)(key, like)
    params = variables["params"]
    recipe = make_recipe(model, crop=24, distortions=CHAPTER.distortions)
    assert recipe.preprocessing == CHAPTER
    look = tensorboard.make_look(recipe, pictures, seed=3, batch_size=50)
    with tensorboard.open_board(tmp_path, 0, wanted=True, look=look) as board:
        board.look(7, variables)
    found = values(tmp_path / "tensorboard" / "eval")
    assert {step for step, _ in found} == {7}

    batches = tf_pipeline.batches(
        pictures,
        CHAPTER,
        seed=3,
        batch_size=50,
        steps=range(6, 7),
        workers=1,
    )
    fed = next(batches)["image"][: tensorboard.NUM_PICTURES]
    shown = Image.open(io.BytesIO(found[7, "input"].image.encoded_image_string))
    assert shown.size == (8 * 25 - 1, 4 * 25 - 1)
    assert_allclose(np.asarray(shown, int), grid(stretch(fed), 8), atol=1)
    filters = Image.open(io.BytesIO(found[7, "filters"].image.encoded_image_string))
    assert filters.size == (8 * 6 - 1, 2 * 6 - 1)
    first = np.asarray(params["conv1"]["kernel"])[..., 0]
    expected = (first - first.min()) / (first.max() - first.min()) * 255
    assert_allclose(np.asarray(filters, int)[:5, :5], expected, atol=0.51)

    kernel, bias = params["conv1"]["kernel"], params["conv1"]["bias"]
    conv1 = tf.nn.relu(tf.nn.conv2d(fed, np.asarray(kernel), 1, "SAME") + bias)
    # A value within rounding of 0 may fall on either side of it.
    sparsity = float(tf.math.zero_fraction(conv1))
    assert found[7, "conv1/sparsity"].simple_value == pytest.approx(sparsity, abs=1e-4)
    histogram = found[7, "conv1/activations"].histo
    assert histogram.num == conv1.shape.num_elements() == sum(histogram.bucket)
    assert histogram.sum == pytest.approx(float(tf.reduce_sum(conv1)), rel=1e-4)
    assert histogram.max == pytest.approx(float(tf.reduce_max(conv1)), rel=1e-4)
    layers = ("conv1", "conv2", "local3", "local4", "logits")
    assert {tag for _, tag in found} == {"input", "filters"} | {
        f"{layer}/{what}" for layer in layers for what in ("activations", "sparsity")
    }


def test_after_a_resumption_no_step_is_twice(tmp_path):
    def train(first, steps, far):
        with tensorboard.open_board(tmp_path, first, wanted=True, look=None) as board:
            for step in range(first, far):
                board.scalars(step, {"train/loss": first + step / 8})
            board.scalars(steps, {"eval/loss": 0.5, "eval/split": "test"})

    train(0, 2, far=4)  # stopped by a kill after a checkpoint at step 2
    train(2, 6, far=6)
    folder = tmp_path / "tensorboard"
    shown = {step: v.simple_value for (step, _), v in values(folder / "train").items()}
    assert shown == {0: 0, 1: 0.125, 2: 2.25, 3: 2.375, 4: 2.5, 5: 2.625}
    assert len(events(folder / "train")) == len(shown)
    assert values(folder / "eval").keys() == {(2, "eval/loss"), (6, "eval/loss")}


def test_without_the_extra_there_is_a_hint_and_no_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    for wanted, said in ((True, f"{tensorboard.HINT}\n"), (False, "")):
        with tensorboard.open_board(tmp_path, 0, wanted=wanted, look=None) as board:
            board.scalars(0, {"train/loss": 1.0})
            board.look(1, {})
        assert capsys.readouterr().out == said
    assert list(tmp_path.iterdir()) == []


def test_a_stock_network_with_statistics_has_its_pictures_too(tmp_path, key, pictures):
    class Stock(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, train: bool) -> jax.Array:
            x = nn.Conv(8, (3, 3))(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not train)(x)).mean((1, 2))
            return nn.Dense(10, name="logits")(x)

    recipe = make_recipe(Stock())
    variables = jax.jit(partial(init_variables, Stock(), image_shape=(32, 32, 3)))(key)
    look = tensorboard.make_look(recipe, pictures, seed=3, batch_size=50)
    with tensorboard.open_board(tmp_path, 0, wanted=True, look=look) as board:
        board.look(1, variables)
    found = values(tmp_path / "tensorboard" / "eval")
    assert {tag for _, tag in found} == {"input", "filters"} | {
        f"{layer}/{what}"
        for layer in ("Conv_0", "logits")
        for what in ("activations", "sparsity")
    }
    filters = Image.open(io.BytesIO(found[1, "filters"].image.encoded_image_string))
    assert filters.size == (8 * 4 - 1, 3)


def test_a_network_that_has_diverged_has_no_pictures(tmp_path, key, pictures):
    model = MODELS["CifarCNN"](width=0.25)
    variables = jax.jit(model.init)(key, np.zeros((1, 24, 24, 3), np.float32))
    variables = jax.tree.map(lambda leaf: leaf * np.inf, variables)
    recipe = make_recipe(model, crop=24)
    look = tensorboard.make_look(recipe, pictures, seed=3, batch_size=50)
    with tensorboard.open_board(tmp_path, 0, wanted=True, look=look) as board:
        board.look(1, variables)
    assert events(tmp_path / "tensorboard" / "eval") == []
