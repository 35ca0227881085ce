import flax.linen as nn
import jax
import numpy as np
import pytest
from PIL import Image, ImageOps

from cnnjax import losses, parallel
from cnnjax.data.augment import Preprocessing
from cnnjax.data.load import Split
from cnnjax.evaluation import Evaluator, summarise
from cnnjax.runtime.clocks import Clocks

BATCH = 16


class Linear(nn.Module):
    @nn.compact
    def __call__(self, images, dropout_keys=None):
        return nn.Dense(5)(images.reshape(images.shape[0], -1))


def evaluator(num_devices: int, mode: str, model: nn.Module, top_k: int = 1):
    return Evaluator(
        model,
        losses.cross_entropy,
        Preprocessing(0, (), "unit"),
        batch_size=BATCH,
        top_k=top_k,
        mesh=parallel.make_mesh(num_devices),
        mode=mode,
        clocks=Clocks(),
    )


@pytest.mark.parametrize("mode", parallel.MODES)
@pytest.mark.parametrize("num_devices", [1, 8])
def test_every_picture_counts_once(num_devices: int, mode: str) -> None:
    model = Linear()
    rng = np.random.default_rng(0)
    params = model.init(jax.random.key(0), np.zeros((1, 4, 4, 1), np.float32))["params"]
    evaluate = evaluator(num_devices, mode, model)
    params = parallel.replicate(params, parallel.make_mesh(num_devices))
    for n in (1, BATCH - 1, BATCH, BATCH + 1, 3 * BATCH + 7):
        images = rng.integers(0, 256, (n, 4, 4, 1), dtype=np.uint8)
        labels = rng.integers(0, 5, n).astype(np.int32)
        found = summarise("test", evaluate(params, Split(images, labels)))

        kernel, bias = np.asarray(params["Dense_0"]["kernel"]), 0.0
        logits = images.reshape(n, -1) / 255 @ kernel + bias
        log_sum = np.log(np.exp(logits).sum(-1))
        loss = (log_sum - logits[np.arange(n), labels]).mean()
        correct = int((logits.argmax(-1) == labels).sum())
        assert found["test/count"] == n
        assert found["test/correct"] == correct
        assert found["test/accuracy"] == correct / n
        np.testing.assert_allclose(found["test/loss"], loss, rtol=1e-5)


def test_a_constant_network_is_never_right() -> None:
    class Constant(nn.Module):
        @nn.compact
        def __call__(self, images, dropout_keys=None):
            return np.zeros((images.shape[0], 5), np.float32)

    split = Split(np.zeros((20, 4, 4, 1), np.uint8), np.zeros(20, np.int32))
    assert evaluator(8, "jit", Constant())({}, split).correct == 0
    assert evaluator(8, "jit", Constant(), top_k=5)({}, split).correct == 20


@pytest.mark.parametrize("mode", parallel.MODES)
@pytest.mark.parametrize("num_views", [5, 10])
def test_several_views_are_averaged_as_probabilities(num_views: int, mode: str) -> None:
    """Against NumPy and Pillow's croppings, written out."""
    model, crop, n = Linear(), 4, 3 * BATCH + 7
    rng = np.random.default_rng(1)
    params = model.init(jax.random.key(1), np.zeros((1, 4, 4, 3), np.float32))["params"]
    kernel = np.asarray(params["Dense_0"]["kernel"], np.float64)
    mesh = parallel.make_mesh(8)
    evaluate = Evaluator(
        model,
        losses.cross_entropy,
        Preprocessing(crop, ("crop", "flip", "contrast"), "per_image"),
        batch_size=BATCH,
        top_k=2,
        mesh=mesh,
        mode=mode,
        clocks=Clocks(),
        num_views=num_views,
    )
    images = rng.integers(0, 256, (n, 7, 9, 3), dtype=np.uint8)
    labels = rng.integers(0, 5, n).astype(np.int32)
    sums = evaluate(parallel.replicate(params, mesh), Split(images, labels))
    found = summarise("test_multiview", sums)

    correct, loss = 0, 0.0
    for image, label in zip(images, labels, strict=True):
        softmaxes = []
        for mirror in (False, True)[: num_views // 5]:
            for left, top in ((0, 0), (5, 0), (0, 3), (5, 3), (2, 1)):
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
