"""The claims of section 5.3: the modified cuda-convnet on CIFAR-10."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from chapter.checks import Check, contrast
from chapter.lab import Lab
from chapter.past import Run
from chapter.row import Also, Outcome, Row

SHORT, LONG = 3000, 100_000
DISTORTIONS = ("crop", "flip", "brightness", "contrast")
# The long run's learning rate falls tenfold after this share of its steps.
DECAY_SHARE = 0.4
# A network whose accuracy is at most this many times that of chance has not learned.
LEARNED = 2
STAYED = (
    "With the sigmoid some seeds stay at chance, so that LRN cannot bring them anything"
)


def short(lab: Lab, changes: Mapping[str, Any] | None = None) -> Run:
    """Returns the chapter's short run, with some configuration fields changed."""
    return lab.train("base", steps=lab.budget.cifar, changes=changes)


def _short(lab: Lab) -> Outcome:
    run = short(lab)
    return Outcome(
        [
            run.values(),
            run.values("train/loss/first"),
            run.values("train/loss/last"),
        ],
        run.dataset,
        lab.budget.cifar,
    )


def _differs(changes: Mapping[str, Any], with_: str, without: str) -> Any:
    """Returns a measurement: base.py's accuracy minus that with `changes` made."""

    def measure(lab: Lab) -> Outcome:
        run, other = short(lab), short(lab, changes)
        return Outcome(
            [run.values() - other.values()],
            run.dataset,
            lab.budget.cifar,
            [Also(with_, run.values()), Also(without, other.values())],
        )

    return measure


def long(lab: Lab, recipe: str, changes: Mapping[str, Any]) -> Run:
    """Returns a long run that is evaluated ten times during training."""
    steps = lab.budget.cifar_long
    return lab.train(
        recipe, steps=steps, changes={"train.eval_every": steps // 10, **changes}
    )


def _decaying(lab: Lab) -> Run:
    decay = {"optim.decay_steps": round(DECAY_SHARE * lab.budget.cifar_long)}
    return long(lab, "long", decay)


def _long(lab: Lab) -> Outcome:
    run = _decaying(lab)
    return Outcome(
        [run.values("test_ema/accuracy")],
        run.dataset,
        lab.budget.cifar_long,
        [Also("last weights, not their average", run.values())],
    )


def _peak(run: Run) -> np.ndarray:
    return np.max(list(run.figures["eval/accuracy/curve"].values()), axis=0)


def _sgd_decay(lab: Lab) -> Outcome:
    # The moving average of the weights is left out: the claim compares optimisers.
    sgd, adam = _decaying(lab), long(lab, "base", {})
    return Outcome(
        [_peak(sgd) - _peak(adam)],
        sgd.dataset,
        lab.budget.cifar_long,
        [
            Also("SGD with decay, highest of ten evaluations", _peak(sgd)),
            Also("constant Adam, highest of ten evaluations", _peak(adam)),
        ],
    )


def _lrn_sigmoid(lab: Lab) -> Outcome:
    def accuracy(activation: str, lrn: bool) -> np.ndarray:
        changes = {"model.activation": activation, "model.lrn": lrn}
        return short(lab, changes).values()

    relu = accuracy("relu", True) - accuracy("relu", False)
    with_, without = accuracy("sigmoid", True), accuracy("sigmoid", False)
    chance = 1 / len(lab.data_of("cifar").class_names)
    learned = bool(np.all(np.minimum(with_, without) > LEARNED * chance))
    return Outcome(
        [relu - (with_ - without)],
        short(lab).dataset,
        lab.budget.cifar,
        [
            Also("what LRN brings with ReLU", relu, "points"),
            Also("what LRN brings with the sigmoid", with_ - without, "points"),
            Also("with the sigmoid and LRN", with_),
            Also("with the sigmoid alone", without),
        ],
        "" if learned else STAYED,
        learned,
    )


def _augmentation(lab: Lab) -> Outcome:
    run = short(lab)
    none = short(lab, {"data.distortions": ()})
    also = [Also("all four", run.values()), Also("none", none.values())]
    for left_out in DISTORTIONS:
        kept = tuple(name for name in DISTORTIONS if name != left_out)
        other = short(lab, {"data.distortions": kept})
        gain = run.values() - other.values()
        also.append(Also(f"what {left_out} adds to the others", gain, "points"))
    return Outcome([run.values() - none.values()], run.dataset, lab.budget.cifar, also)


_row = partial(Row, data="cifar")
ROWS = (
    _row(
        "cifar-short",
        "5.3",
        "about 73% after 3,000 steps of 128; loss from about 4.6 to about 1.0",
        "base.py",
        (
            Check("test accuracy", 0.72, 0.74, "%", SHORT, "cifar10"),
            Check("first loss", 4.5, 4.7, "", SHORT, "cifar10"),
            Check("loss of the last 5% of the steps", 0.9, 1.1, "", SHORT, "cifar10"),
        ),
        _short,
    ),
    _row(
        "cifar-long",
        "5.3",
        "about 86% in 100,000 steps with decay",
        "long.py, the rate falling tenfold after 40% and 80% of the steps",
        (Check("test accuracy, average", 0.85, 0.87, "%", LONG, "cifar10"),),
        _long,
    ),
    _row(
        "sgd-decay",
        "5.3",
        "in long runs SGD with decay peaks higher than constant Adam",
        "long.py against base.py",
        (contrast("SGD with decay - constant Adam", steps=LONG),),
        _sgd_decay,
    ),
    _row(
        "l2",
        "5.3",
        "L2 on local3 and local4 raises test accuracy",
        "base.py with optim.l2=0.004 and 0",
        (contrast("with - without", steps=SHORT),),
        _differs({"optim.l2": 0.0}, "with L2", "without"),
    ),
    _row(
        "lrn",
        "5.3",
        "LRN raises test accuracy (1.4 points of top-1 on ImageNet)",
        "base.py with and without norm1 and norm2",
        (contrast("with - without", steps=SHORT),),
        _differs({"model.lrn": False}, "with LRN", "without"),
    ),
    _row(
        "lrn-sigmoid",
        "5.3",
        "LRN suits ReLU, not a saturating activation",
        "base.py with and without LRN, with ReLU and with the sigmoid",
        (contrast("LRN's gain with ReLU - with the sigmoid", steps=SHORT),),
        _lrn_sigmoid,
    ),
    _row(
        "augmentation",
        "5.3",
        "distortions raise test accuracy a lot",
        "base.py with all four distortions, without any, and without each",
        (contrast("all four - none", steps=SHORT),),
        _augmentation,
    ),
    _row(
        "overlap",
        "5.3",
        "3x3 pooling with stride 2 is better than 2x2",
        "base.py with windows of 3 and of 2",
        (contrast("3x3 - 2x2", steps=SHORT),),
        _differs({"model.pool": 2}, "3x3", "2x2"),
    ),
)
