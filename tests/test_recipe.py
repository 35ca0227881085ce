"""What a recipe is made of, and what it is not made of."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnnjax import config, losses, models
from cnnjax.data.augment import Preprocessing
from cnnjax.errors import InputError
from cnnjax.losses import Penalty
from cnnjax.models import MODELS, CifarCNN, LeNet5, SimpleCNN
from cnnjax.recipe import make_recipe
from cnnjax.run import recipe_of
from cnnjax.state import init_state


class Stock(nn.Module):
    """Of anybody; it says nothing about itself."""

    num_classes: int = 10

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.num_classes)(x.reshape(len(x), -1))


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (
            CifarCNN(),
            {"distortions": ("crop", "blur")},
            "got distortions 'blur', need some of shift, rotate, scale, crop, flip",
        ),
        (Stock(), {"normalise": "zca"}, "got normalise 'zca', need some of per_image"),
        (Stock(), {"optimizer": "lion"}, "got optimizer 'lion', need one of adam"),
        (Stock(), {"schedule": "cyclic"}, "got schedule 'cyclic', need one of const"),
        (
            LeNet5(variant="1998"),
            {"label_smoothing": 0.1},
            "got label_smoothing=0.1 for LeNet5, whose loss smooths no labels; leave",
        ),
        (
            Stock(),
            {"label_smoothing": 1.0},
            r"got label_smoothing=1.0, .*\[0, 1\)",
        ),
        (
            Stock(),
            {"ema_decay": -0.1},
            r"got ema_decay=-0.1, need .*\[0, 1\)",
        ),
        (Stock(), {"l2": -1.0}, "got l2=-1.0, need a number of at least 0; correct it"),
        (Stock(), {"warmup_steps": -1}, "got warmup_steps=-1, need .* least 0"),
    ],
)
def test_what_it_cannot_be_made_of(model, options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_recipe(model, **options)
    make_recipe(LeNet5(variant="modern"), label_smoothing=0.1)


def test_the_learning_rate_may_be_known_later() -> None:
    """As in a program that is compiled once for several."""

    def first(rate: jax.Array) -> jax.Array:
        return jnp.asarray(make_recipe(Stock(), learning_rate=rate).schedule(0))

    np.testing.assert_allclose(jax.jit(jax.vmap(first))(jnp.array([1.0, 2.0])), [1, 2])


def test_what_the_class_says_holds_unless_told_otherwise() -> None:
    chapter = make_recipe(CifarCNN(), l2=0.004)
    assert chapter.penalty == Penalty(0.0, 0.004, ("local3", "local4"))
    assert chapter.preprocessing == Preprocessing(0, (), "per_image")
    assert make_recipe(CifarCNN(), penalised=()).penalty.layers == ()
    assert make_recipe(CifarCNN(), penalised=["conv1"]).penalty.layers == ("conv1",)
    assert make_recipe(SimpleCNN()).preprocessing.normalise == "unit"
    assert make_recipe(SimpleCNN(), normalise="per_image").preprocessing == (
        Preprocessing(0, (), "per_image")
    )
    stock = make_recipe(Stock(), l1=0.1, crop=24, distortions=["flip"])
    assert stock.penalty == Penalty(0.1, 0.0, None)
    assert stock.preprocessing == Preprocessing(24, ("flip",), "per_image")
    assert stock.loss_fn is stock.eval_loss_fn is losses.cross_entropy


def test_lenet_of_1998_has_a_loss_of_its_own() -> None:
    logits, labels = jnp.array([[-1.0, -4.0]]), jnp.array([0])
    by_hand = 1 + np.log(np.exp(-1) + np.exp(-1) + np.exp(-4))
    recipe = make_recipe(LeNet5(variant="1998"))
    for loss_fn in (recipe.loss_fn, recipe.eval_loss_fn):
        np.testing.assert_allclose(loss_fn(logits, labels), [by_hand], 1e-6)
    modern = make_recipe(LeNet5(variant="modern"))
    by_hand = 1 + np.log(np.exp(-1) + np.exp(-4))
    np.testing.assert_allclose(modern.loss_fn(logits, labels), [by_hand], 1e-6)


def test_evaluations_smooth_no_labels() -> None:
    chosen = config.default_config("CifarCNN")
    chosen.optim.label_smoothing = 0.1
    logits, labels = 30 * jnp.eye(10)[:1], jnp.array([0])
    for recipe in (
        recipe_of(chosen, num_classes=10),
        make_recipe(CifarCNN(), label_smoothing=0.1),
    ):
        # Nine other classes get a hundredth each, 30 nats away.
        np.testing.assert_allclose(recipe.loss_fn(logits, labels), [2.7], 1e-5)
        np.testing.assert_allclose(recipe.eval_loss_fn(logits, labels), [0], atol=1e-5)


@pytest.mark.parametrize("model", sorted(MODELS))
def test_the_penalty_is_in_the_chain_and_in_the_loss(model: str) -> None:
    """Once each: what the chain adds is the gradient of what is reported."""
    recipe = make_recipe(
        MODELS[model](), optimizer="sgd", learning_rate=1.0, l1=0.3, l2=0.2
    )
    kernel, bias = jnp.array([2.0, -1.0]), jnp.ones(2)
    layers = ("conv1", "local3", "fc1", "C5", "logits")
    params = {layer: {"kernel": kernel, "bias": bias} for layer in layers}
    zeros = jax.tree.map(jnp.zeros_like, params)
    added, _ = recipe.tx.update(zeros, recipe.tx.init(params), params)

    def reported(params) -> jax.Array:
        return recipe.penalty.l1_loss(params) + recipe.penalty.l2_loss(params)

    expected = jax.tree.map(jnp.negative, jax.grad(reported)(params))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), added, expected
    )
    of_logits = not np.any(added["logits"]["kernel"])
    assert of_logits == (model == "CifarCNN"), "which penalises two layers only"


def test_a_configuration_reaches_the_recipe() -> None:
    chosen = config.default_config("CifarCNN")
    chosen.data.update({"crop": 24, "distortions": ("flip", "cutout")})
    chosen.optim.update(
        {
            "name": "adamw",
            "learning_rate": 0.5,
            "weight_decay": 0.25,
            "schedule": "linear",
            "decay_rate": 0.0,
            "ema_decay": 0.99,
            "l1": 0.001,
        }
    )
    chosen.train.steps = 100
    config.validate(chosen)
    recipe = recipe_of(chosen, num_classes=7)
    assert (recipe.model.num_classes, recipe.model.lrn_depth_radius) == (7, 4)
    assert recipe.preprocessing == Preprocessing(24, ("flip", "cutout"), "per_image")
    assert recipe.penalty == Penalty(0.001, 0.004, ("local3", "local4"))
    assert recipe.ema_decay == 0.99
    # Where no decay_steps are given it is over the whole run.
    np.testing.assert_allclose(
        [recipe.schedule(i) for i in (0, 50, 100)], [0.5, 0.25, 0]
    )
    # Of a layer without penalties or a gradient only the weight decay is left.
    params = {"conv1": {"kernel": jnp.array([2.0]), "bias": jnp.array([2.0])}}
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = recipe.tx.update(zeros, recipe.tx.init(params), params)
    after = optax.apply_updates(params, updates)["conv1"]
    np.testing.assert_allclose(after["kernel"], [2.0 * (1 - 0.5 * 0.25)], 1e-6)
    np.testing.assert_array_equal(after["bias"], [2.0])


@pytest.mark.parametrize(
    ("model", "got"),
    [(Stock, "the class Stock"), (lambda x: x, "a function"), (None, "a NoneType")],
)
def test_what_is_no_network_is_refused(model, got: str) -> None:
    with pytest.raises(InputError, match=f"got {got} as the network, need an instance"):
        make_recipe(model)


def test_penalised_layers_are_layers_of_the_network() -> None:
    shape = (4, 4, 1)
    init_state(make_recipe(Stock(), l2=0.1, penalised=["Dense_0"]), shape, seed=0)
    init_state(make_recipe(Stock(), penalised=["local3"]), shape, seed=0)
    recipe = make_recipe(Stock(), l2=0.1, penalised=["Dense_0", "local3"])
    message = "got penalised='local3', need layers of Stock .* kernel: Dense_0; name"
    with pytest.raises(InputError, match=message):
        init_state(recipe, shape, seed=0)


class NoDefault(Stock):
    width: int = dataclasses.field(kw_only=True)


class Refuses(Stock):
    def __post_init__(self):
        super().__post_init__()
        raise KeyError("width")


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Stock(), r"got Stock\(.*as MODELS\['Own'\], need the class"),
        (
            lambda num_classes: Stock(),
            r"<function .*as MODELS\['Own'\], need the class",
        ),
        (NoDefault, "Own cannot be made: TypeError: .*'width'; need a class whose"),
        (Refuses, r"Own cannot be made: KeyError: 'width' \(.*test_recipe.py:\d+\)"),
    ],
)
def test_a_class_that_a_configuration_cannot_use(
    monkeypatch, network, message: str
) -> None:
    monkeypatch.setitem(models.MODELS, "Own", network)
    with pytest.raises(InputError, match=message):
        recipe_of(config.default_config("Own"), num_classes=10)
