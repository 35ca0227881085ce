"""Measures what the chapter claims, row by row, with error bars over seeds.

python experiments/claims.py --budget=quick

--budget=NAME     quick (minutes), standard (a night on two cores) or full [standard]
--only=ROWS       some rows, with commas [all]
--cifar=NAME      TFDS set in place of CIFAR-10 [cifar10]
--mnist=NAME      TFDS set in place of MNIST [mnist]
--dir=DIR         TFDS's data dir
--out=DIR         folder of claims.json and claims.png [experiments/results]
--workdir=DIR     folder of the runs [runs/claims]

A row that is finished is not measured again, nor a run that a row shares with others;
stopped or killed, the same command goes on. Without --dir, and without CIFAR-10 or
MNIST, the embedded pictures stand in, and say nothing about them.
"""

from pathlib import Path

from cnnjax import cli
from cnnjax.runtime import backend

CONFIGS = ("base", "long", "mnist", "mlp")
RESULTS = Path(__file__).resolve().parent / "results"
README = RESULTS.parents[1] / "README.md"


def run(
    arguments: list[str],
    budget: str,
    only: str,
    cifar: str,
    mnist: str,
    dir: str,
    out: str,
    workdir: str,
) -> None:
    """Measures, prints the table, and writes it; into the README where that is ours."""
    del arguments  # none are taken
    backend.start()
    # Here and not above, so that --help need not wait for JAX.
    from chapter.lab import Data
    from chapter.measure import measure

    where = Path(out) if out else RESULTS
    measure(
        {name: cli.recipe(name) for name in CONFIGS},
        {
            "cifar": Data(cifar, dir, "cifar10", "shapes"),
            "mnist": Data(mnist, dir, "mnist", "digits"),
        },
        budget=budget,
        only=only.split(",") if only else (),
        out=where,
        workdir=Path(workdir),
        readme=README if where.resolve() == RESULTS else where / README.name,
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
            "workdir": "runs/claims",
        },
    )
