"""A recipe: the network, loss, optimiser and preprocessing of a training step."""

import dataclasses
import inspect
from collections.abc import Sequence
from functools import partial

import flax.linen as nn
import optax

from cnnjax.data.augment import DISTORTIONS, NORMALISATIONS, Preprocessing
from cnnjax.errors import InputError
from cnnjax.losses import Penalty
from cnnjax.models.facts import LossFn, facts_of
from cnnjax.optimizers import make_optimizer, make_schedule


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that a training step needs to know; see `make_recipe`.

    Attributes:
        model: a Linen module that maps images to logits.
        tx: the optax chain, which includes `schedule` and the gradients of `penalty`.
        schedule: step -> learning rate, for the log.
        loss_fn: (logits, labels) -> loss of each example, for training.
        eval_loss_fn: the same for evaluation, without label smoothing.
        penalty: L1 and L2, for the reported loss.
        ema_decay: of the moving average of the weights; 0 keeps no average.
        preprocessing: crop, distortions and normalisation of the images.

    Example:
        >>> recipe = cj.make_recipe(cj.MLP(), learning_rate=0.1)
        >>> type(recipe.model).__name__, float(recipe.schedule(0))
        ('MLP', 0.1)
    """

    model: nn.Module
    tx: optax.GradientTransformation
    schedule: optax.Schedule
    loss_fn: LossFn
    eval_loss_fn: LossFn
    penalty: Penalty
    ema_decay: float
    preprocessing: Preprocessing


def make_recipe(
    model: nn.Module,
    *,
    optimizer: str = "adam",
    learning_rate: float = 1e-3,
    momentum: float = 0.9,
    weight_decay: float = 0.01,
    schedule: str = "constant",
    decay_steps: int = 1,
    decay_rate: float = 1.0,
    staircase: bool = False,
    warmup_steps: int = 0,
    l1: float = 0.0,
    l2: float = 0.0,
    penalised: Sequence[str] | None = None,
    label_smoothing: float = 0.0,
    ema_decay: float = 0.0,
    crop: int = 0,
    distortions: Sequence[str] = (),
    normalise: str = "",
) -> Recipe:
    """Returns a recipe.

    - `model`: a network of `cnnjax.models`, or any Linen module that is called with
      images, or with images and `train`, a bool, as Flax's examples are.
    - `optimizer`, `momentum`, `weight_decay`: see `optimizers.make_optimizer`.
    - `schedule`, `learning_rate` (at step 0), `decay_steps`, `decay_rate`, `staircase`,
      `warmup_steps`: see `optimizers.make_schedule`.
    - `l1`, `l2`: weights of sum(abs(w)) and of sum(w**2) / 2, over the kernels of the
      layers `penalised`; None means the layers that the network's class names, or every
      kernel if it names none.
    - `label_smoothing`, `ema_decay` (0 keeps no moving average): in [0, 1).
    - `crop`: side of the square that the network sees, in pixels; 0 for no crop.
    - `distortions`: of training images, from `augment.DISTORTIONS`.
    - `normalise`: one of `augment.NORMALISATIONS`; "" takes the one that the network's
      class names, by default "per_image".

    Raises:
        ValueError: a name or number is out of range, or the loss cannot smooth labels.
        InputError: `model` is no Linen module.

    Example:
        >>> recipe = cj.make_recipe(
        ...     cj.CifarCNN(num_classes=10),
        ...     learning_rate=1e-3,
        ...     l2=0.004,
        ...     crop=24,
        ...     distortions=("crop", "flip", "brightness", "contrast"),
        ... )
        >>> recipe.penalty.layers
        ('local3', 'local4')
    """
    if not isinstance(model, nn.Module):
        what = f"a {type(model).__name__}"
        if isinstance(model, type):
            what = f"the class {model.__name__}"
        raise InputError(
            f"got {what} as the network, need an instance of a flax.linen.Module, such"
            " as CifarCNN(num_classes=10)"
        )
    facts = facts_of(model)
    normalise = normalise or facts.normalise
    _check_known("normalise", [normalise], NORMALISATIONS)
    _check_known("distortions", distortions, DISTORTIONS)
    loss_fn = facts.loss
    if label_smoothing:
        if "label_smoothing" not in inspect.signature(facts.loss).parameters:
            raise ValueError(
                f"got label_smoothing={label_smoothing} for {type(model).__name__},"
                " whose loss smooths no labels; leave it out"
            )
        loss_fn = partial(facts.loss, label_smoothing=label_smoothing)
    fractions = {"label_smoothing": label_smoothing, "ema_decay": ema_decay}
    amounts = {"warmup_steps": warmup_steps, "l1": l1, "l2": l2}
    for name, value in (fractions | amounts).items():
        if value < 0 or (value >= 1 and name in fractions):
            need = "in [0, 1)" if name in fractions else "of at least 0"
            raise ValueError(f"got {name}={value}, need a number {need}; correct it")
    layers = facts.penalised if penalised is None else tuple(penalised)
    penalty = Penalty(l1, l2, layers)
    rate = make_schedule(
        schedule,
        learning_rate=learning_rate,
        decay_steps=decay_steps,
        decay_rate=decay_rate,
        staircase=staircase,
        warmup_steps=warmup_steps,
    )
    tx = make_optimizer(
        optimizer,
        rate,
        penalty=penalty,
        momentum=momentum,
        weight_decay=weight_decay,
        output_layer=facts.output_layer,
    )
    return Recipe(
        model=model,
        tx=tx,
        schedule=rate,
        loss_fn=loss_fn,
        eval_loss_fn=facts.loss,
        penalty=penalty,
        ema_decay=ema_decay,
        preprocessing=Preprocessing(crop, tuple(distortions), normalise),
    )


def _check_known(what: str, got: Sequence[str], known: Sequence[str]) -> None:
    unknown = [name for name in got if name not in known]
    if unknown:
        needed = ", ".join(known)
        raise ValueError(f"got {what} {unknown[0]!r}, need some of {needed}")
