import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from cnnjax import prng
from cnnjax.data import augment
from cnnjax.data.augment import Preprocessing
from cnnjax.data.dataset import Split
from cnnjax.models import MODELS
from cnnjax.recipe import Recipe, make_recipe
from cnnjax.reporting import diagnosis


def random_probabilities(n, classes=4):
    random = np.random.default_rng(0)
    return random.dirichlet(np.full(classes, 0.3), n), random.integers(0, classes, n)


def test_reliability_is_scikit_learns_of_being_right():
    probabilities, labels = random_probabilities(500)
    found = diagnosis.calibrate(probabilities, labels)
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    accuracy, mean = calibration_curve(right, confidence, n_bins=15)
    filled = found.count > 0
    np.testing.assert_allclose(found.accuracy[filled], accuracy)
    np.testing.assert_allclose(found.confidence[filled], mean)
    assert np.isnan(found.accuracy[~filled]).all() and not filled.all()
    gaps = np.abs(accuracy - mean) * found.count[filled]
    assert found.error == pytest.approx(gaps.sum() / 500)


def test_the_calibration_error_of_what_can_be_computed_by_hand():
    sure = np.array([[1.0, 0.0]] * 4, np.float32)
    assert diagnosis.calibrate(sure, np.array([0, 0, 0, 0])).error == 0
    assert diagnosis.calibrate(sure, np.array([0, 1, 1, 1])).error == 0.75
    # A softmax can come out a rounding above 1.
    above = np.nextafter(sure, 2, dtype=np.float32)
    assert diagnosis.calibrate(above, np.zeros(4, int)).count.tolist()[-1] == 4


def test_mistakes_are_wrong_and_the_most_confident_come_first():
    probabilities, labels = random_probabilities(60)
    found = diagnosis.confident_mistakes(probabilities, labels, 10)
    assert len(found) == 10
    assert (probabilities[found].argmax(axis=1) != labels[found]).all()
    confidence = probabilities[found].max(axis=1)
    assert (np.diff(confidence) <= 0).all()
    wrong = probabilities.argmax(axis=1) != labels
    others = np.setdiff1d(np.flatnonzero(wrong), found)
    assert probabilities[others].max() <= confidence.min()
    right = probabilities.argmax(axis=1)
    assert len(diagnosis.confident_mistakes(probabilities, right, 10)) == 0


def make(name, shape, **options) -> tuple[Recipe, dict]:
    recipe = make_recipe(MODELS[name](num_classes=10, **options), normalise="unit")
    images = jnp.zeros((1, *shape))
    # Not its own initialisers, which take longer to compile than all that is tested.
    variables = jax.eval_shape(recipe.model.init, jax.random.key(0), images)
    random = np.random.default_rng(0)

    def draw(leaf):
        return random.normal(scale=0.1, size=leaf.shape).astype(np.float32)

    return recipe, jax.tree.map(draw, {"params": variables["params"]})


def test_predictions_do_not_depend_on_the_batch():
    recipe, variables = make("MLP", (28, 28, 1))
    images = np.random.default_rng(0).integers(0, 256, (7, 28, 28, 1), np.uint8)
    split = Split(images, np.zeros(7, np.int32))
    found = diagnosis.predict(recipe, variables, split, batch_size=3)
    logits = recipe.model.apply(variables, jnp.asarray(images) / 255)
    np.testing.assert_allclose(found, jax.nn.softmax(logits), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "shape", "options", "layers"),
    [
        (
            "CifarCNN",
            (16, 16, 3),
            {"width": 0.1},
            {"conv1": 8, "norm1": 8, "conv2": 8, "norm2": 8},
        ),
        ("SimpleCNN", (28, 28, 1), {}, {"conv1": 14, "conv2": 7}),
        (
            "LeNet5",
            (28, 28, 1),
            {"variant": "1998"},
            {"C1": 28, "S2": 14, "C3": 10, "S4": 5},
        ),
        ("MLP", (28, 28, 1), {}, {}),
    ],
)
def test_feature_maps_come_in_the_order_of_the_network(name, shape, options, layers):
    recipe, variables = make(name, shape, **options)
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    maps = diagnosis.feature_maps(recipe, variables, image)
    assert {layer: values.shape[0] for layer, values in maps.items()} == layers
    assert list(maps) == list(layers)


def test_norm1_is_what_normalises_the_activation_of_conv1():
    options = {"lrn_beta": 0.5, "lrn_depth_radius": 0, "width": 0.1}
    recipe, variables = make("CifarCNN", (16, 16, 3), **options)
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    maps = diagnosis.feature_maps(recipe, variables, image)
    active = np.maximum(maps["conv1"], 0)
    by_hand = active / np.sqrt(1 + 0.001 / 9 * active**2)
    np.testing.assert_allclose(maps["norm1"], by_hand, atol=1e-5)


def test_a_picture_is_distorted_as_the_run_would():
    preprocessing = Preprocessing(6, ("crop", "flip", "brightness"), "per_image")
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    found = diagnosis.distorted(image, preprocessing, seed=3, count=5)
    key = prng.from_seed(3, prng.DATA)
    drawn = augment.draw(
        key, jnp.arange(5, dtype=jnp.uint32), preprocessing, image.shape
    )
    for i in range(5):
        top, left = int(drawn.top[i]), int(drawn.left[i])
        cut = image[top : top + 6, left : left + 6].astype(np.float32)
        cut = cut[:, ::-1] if drawn.flip[i] else cut
        by_hand = (cut + float(drawn.brightness[i])) / 255
        np.testing.assert_allclose(found[i], by_hand, atol=1e-5)
