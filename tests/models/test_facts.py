"""What the networks say about themselves, and what holds where one says nothing."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import losses
from cnnjax.models import MLP, CifarCNN, LeNet5, SimpleCNN
from cnnjax.models.facts import Facts, facts_of
from cnnjax.models.lenet import REJECTION_J, rejection_cross_entropy, squash

DIGITS = Facts(normalise="unit", dataset="mnist", stand_in="digits")


class Stock(nn.Module):
    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        return nn.Dense(10)(images.reshape(len(images), -1))


def changed(facts: Facts, **fields) -> dict:
    return vars(facts) | fields


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (CifarCNN(), changed(Facts(), penalised=("local3", "local4"))),
        (
            CifarCNN(activation="tanh"),
            changed(Facts(), penalised=("local3", "local4"), activation=nn.tanh),
        ),
        (SimpleCNN(), changed(DIGITS, has_dropout=True)),
        (SimpleCNN(keep_prob=1.0), changed(DIGITS)),
        (MLP(), changed(DIGITS, has_dropout=True)),
        (MLP(keep_prob=1.0), changed(DIGITS)),
        (LeNet5(variant="modern"), changed(DIGITS, activation=squash)),
        (Stock(), changed(Facts())),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_network_says_what_its_training_needs(
    model: nn.Module, expected: dict
) -> None:
    assert vars(facts_of(model)) == expected


def test_lenet_of_1998_has_the_paper_s_loss() -> None:
    facts = facts_of(LeNet5())
    rest = changed(facts, loss=losses.cross_entropy)
    # Its outputs are distances to bitmaps, of no layer.
    assert rest == changed(DIGITS, activation=squash, output_layer="")
    distances = -jnp.array([[2.0, 9.0, 4.0], [7.0, 1.0, 3.0]])
    labels = jnp.array([0, 2])
    expected = rejection_cross_entropy(distances, labels, REJECTION_J)
    np.testing.assert_array_equal(facts.loss(distances, labels), expected)


def test_what_holds_where_nothing_is_said() -> None:
    facts = facts_of(Stock())
    assert facts.loss is losses.cross_entropy
    assert facts.penalised is None, "that is every kernel"
    assert (facts.normalise, facts.output_layer) == ("per_image", "logits")
    assert (facts.dataset, facts.stand_in) == ("cifar10", "shapes")
    assert not facts.has_dropout


def test_anybody_s_network_may_state_facts() -> None:
    loss = partial(losses.cross_entropy, label_smoothing=0.1)

    class Stated(Stock):
        facts = Facts(loss=loss, penalised=("Dense_0",), output_layer="Dense_0")

    assert facts_of(Stated()) is Stated.facts
    assert facts_of(Stated()).loss is loss
    Stated().init(jax.random.key(0), jnp.zeros((1, 2, 2, 1)))  # it is still a module
