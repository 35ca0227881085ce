"""The claims of section 5.3: the modified cuda-convnet on CIFAR-10."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from chapter import look
from chapter.checks import Check, contrast
from chapter.lab import Lab
from chapter.past import Run
from chapter.row import Also, Outcome, Row
from cnnjax.models.facts import facts_of

SHORT, LONG = 3000, 100_000
DISTORTIONS = ("crop", "flip", "brightness", "contrast")
# The long run's learning rate falls tenfold after this share of its steps.
DECAY_SHARE = 0.4
# A network whose accuracy is at most this many times that of chance has not learned.
LEARNED = 2
# With this weight the L1 penalty is 1.4 nats at the start; the L2 penalty is 2.4.
L1 = 5e-5
STAYED = (
    "With the sigmoid some seeds stay at chance, so that LRN cannot bring them anything"
)


def short(
    lab: Lab, changes: Mapping[str, Any] | None = None, *, weights: bool = False
) -> Run:
    """Returns the chapter's short run, with some configuration fields changed.

    With `weights` its last checkpoint is there too, not only its figures.
    """
    steps = lab.budget.cifar
    return lab.train("base", steps=steps, changes=changes, weights=weights)


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


def sparsity(weights: np.ndarray) -> float:
    """Returns (sqrt(n) - sum|w| / sqrt(sum w^2)) / (sqrt(n) - 1), in [0, 1].

    0 where all weights are equally large, 1 where all but one are zero.

    Source: Hoyer 2004, "Non-negative matrix factorization with sparseness constraints".
    """
    w = np.abs(np.asarray(weights, np.float64)).ravel()
    root = np.sqrt(len(w))
    return float((root - w.sum() / np.sqrt(np.sum(w * w))) / (root - 1))


def _l1_l2(lab: Lab) -> Outcome:
    def weights(l1: float, l2: float) -> tuple[np.ndarray, np.ndarray]:
        changes = {"optim.l1": l1, "optim.l2": l2}
        trained = look.network_of(short(lab, changes, weights=True))
        params = trained.variables["params"]
        layers = facts_of(trained.model).penalised or ()
        both = [
            np.concatenate([np.ravel(params[layer]["kernel"][k]) for layer in layers])
            for k in range(lab.budget.seeds)
        ]
        sizes = [float(np.sqrt(np.mean(np.square(w)))) for w in both]
        return np.array([sparsity(w) for w in both]), np.array(sizes)

    none, none_size = weights(0.0, 0.0)
    l1, l1_size = weights(L1, 0.0)
    l2, l2_size = weights(0.0, 0.004)
    kinds = ("neither", "L1", "L2")
    also = [
        Also(f"{what}, {kind}", values, "")
        for what, measured in (
            ("sparsity", (none, l1, l2)),
            ("root mean square", (none_size, l1_size, l2_size)),
        )
        for kind, values in zip(kinds, measured, strict=True)
    ]
    return Outcome(
        [l1 - none, none_size - l2_size, l1 - l2],
        lab.data_of("cifar").name,
        lab.budget.cifar,
        also,
        "Sparsity is Hoyer's: 0 for equal weights, 1 for one that is not zero.",
    )


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
    _row(
        "l1-l2",
        "5.3",
        "L1 makes weights sparse, L2 keeps them small and even",
        f"base.py with L1 ({L1:g}), L2 (0.004) and neither, on local3 and local4",
        (
            contrast("sparsity, L1 - neither", "", steps=SHORT),
            contrast("root mean square, neither - L2", "", steps=SHORT),
            contrast("sparsity, L1 - L2", "", steps=SHORT),
        ),
        _l1_l2,
    ),
)
