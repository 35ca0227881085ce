"""Measures what the chapter claims, row by row, with error bars over seeds.

python experiments/claims.py --budget=quick --only=size,arithmetic

--budget=NAME     quick (minutes), standard (a night to a day on two cores) or full (for
                  a GPU) [standard]
--only=ROWS       some rows, with commas [all]
--cifar=NAME      TFDS set in place of CIFAR-10 [cifar10]
--mnist=NAME      TFDS set in place of MNIST [mnist]
--dir=DIR         TFDS's data dir
--out=DIR         folder of claims.json and claims.png [runs/claims]
--update          in place of --out: goes on with the figures of experiments/results,
                  and rewrites them and the table of claims in its README.md
--workdir=DIR     folder of the runs [runs/claims]

A row is judged with 4 seeds; while it cannot be told, again with 8 and with 16 (quick:
once, with 2). The intervals are wide enough for looking several times. What is
undecided then says how many seeds would tell. Claims about 100,000 steps take the runs
that experiments/results/runs.json records of the data set, if it has them.

A row that is finished is not measured again, nor a run that several rows share; after a
stop or a kill the same command continues. Without --dir, and without CIFAR-10 or MNIST,
the embedded pictures stand in, and say nothing about them.
"""

from pathlib import Path

from cnnjax import cli
from cnnjax.errors import InputError
from cnnjax.runtime import backend

CONFIGS = ("base", "long", "mnist", "mlp")
RESULTS = Path(__file__).resolve().parent / "results"
OUT = "runs/claims"


def run(
    arguments: list[str],
    budget: str,
    only: str,
    cifar: str,
    mnist: str,
    dir: str,
    out: str,
    update: bool,
    workdir: str,
) -> None:
    """Measures, prints the table and writes it.

    Raises:
        InputError: `update` is given beside `out`; or see `measure`.
    """
    del arguments  # none are taken
    if update and out:
        raise InputError(
            f"got --update and --out={out}, need one of them: --update writes to"
            f" {RESULTS}; leave one out"
        )
    backend.start()
    # Here and not above, so that --help need not wait for JAX.
    from chapter import recorded
    from chapter.lab import Data
    from chapter.measure import measure

    measure(
        {name: cli.recipe(name) for name in CONFIGS},
        {"cifar": Data(cifar, dir), "mnist": Data(mnist, dir)},
        budget=budget,
        only=only.split(",") if only else (),
        out=RESULTS if update else Path(out or OUT),
        workdir=Path(workdir),
        records=RESULTS / recorded.FILE,
    )


if __name__ == "__main__":
    cli.main_with(
        run,
        doc=__doc__,
        options={
            "budget": "standard",
            "only": "",
            "cifar": "",
            "mnist": "",
            "dir": "",
            "out": "",
            "update": False,
            "workdir": OUT,
        },
    )
