"""The claim of section 5.3 about the effect of L1 and L2 penalties on weights."""

import numpy as np

from chapter import look
from chapter.checks import contrast
from chapter.cifar_rows import SHORT
from chapter.lab import Lab
from chapter.row import Also, Outcome, Row
from cnnjax.models.cifar import PENALISED

# With this weight the L1 penalty is 1.4 nats at the start; the L2 penalty is 2.4.
L1 = 5e-5


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
        run = lab.train(
            "base",
            steps=lab.budget.cifar,
            changes={"optim.l1": l1, "optim.l2": l2},
            weights=True,
        )
        params = look.network_of(run).params
        both = [
            np.concatenate(
                [np.ravel(params[layer]["kernel"][k]) for layer in PENALISED]
            )
            for k in range(lab.budget.seeds)
        ]
        sizes = [float(np.sqrt(np.mean(np.square(w)))) for w in both]
        return np.array([sparsity(w) for w in both]), np.array(sizes)

    none, none_size = weights(0.0, 0.0)
    l1, l1_size = weights(L1, 0.0)
    l2, l2_size = weights(0.0, 0.004)
    return Outcome(
        [l1 - none, none_size - l2_size, l1 - l2],
        lab.data_of("cifar").name,
        lab.budget.cifar,
        [
            Also(f"sparsity, {what}", values, "")
            for what, values in (("neither", none), ("L1", l1), ("L2", l2))
        ]
        + [
            Also(f"root mean square, {what}", values, "")
            for what, values in (
                ("neither", none_size),
                ("L1", l1_size),
                ("L2", l2_size),
            )
        ],
        "Sparsity is Hoyer's: 0 for equal weights, 1 for one that is not zero.",
    )


ROWS = (
    Row(
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
        data="cifar",
    ),
)
