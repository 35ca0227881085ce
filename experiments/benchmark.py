"""Times this project on the machine at hand, beside other libraries where installed.

python experiments/benchmark.py --out=runs/benchmark

--out=DIR         folder for benchmark.json and benchmark.png [runs/benchmark]
--only=GROUPS     some of networks,peers,operations,pipelines,runs,batches,shapes,
                  calls,seeds,kernels, with commas [all]
--rounds=N        times that each case is measured, in alternation [20]
--profile=DIR     keeps the traces of the group kernels, for `xprof` or Perfetto

Everything is measured in one process and in alternation; figures are medians over the
rounds, and ratios medians of the ratios of each round. PyTorch is no dependency of the
project: `pip install torch==2.13.0` (the CPU build will do) puts it beside.
"""

from pathlib import Path

from cnnjax import cli
from cnnjax.errors import InputError
from cnnjax.runtime import backend

CONFIGS = ("base", "mnist", "mnist_augmented", "lenet5", "mlp")
GROUPS = (
    *("networks", "peers", "operations", "pipelines", "runs"),
    *("batches", "shapes", "calls", "seeds", "kernels"),
)


def run(arguments: list[str], out: str, only: str, rounds: int, profile: str) -> None:
    """Measures, prints tables, and writes the JSON and the chart.

    Raises:
        InputError: there is no such group, there are no rounds, or traces are to be
            kept that are not made.
    """
    del arguments  # none are taken
    groups = only.split(",") if only else list(GROUPS)
    unknown = [group for group in groups if group not in GROUPS]
    if unknown or rounds < 1:
        raise InputError(
            f"got --only={only} and --rounds={rounds}, need some of"
            f" {','.join(GROUPS)} and at least 1"
        )
    if profile and "kernels" not in groups:
        raise InputError(
            f"got --profile={profile} and --only={only}, need the group kernels, which"
            " makes the traces; add it or leave --profile out"
        )
    backend.start()
    # Here and not above, so that --help need not wait for JAX.
    from speed import measure

    configs = {name: cli.recipe(name) for name in CONFIGS}
    where = Path(profile) if profile else None
    measure.measure(configs, groups, rounds, Path(out), where)


if __name__ == "__main__":
    cli.main_with(
        run,
        doc=__doc__,
        options={"out": "runs/benchmark", "only": "", "rounds": 20, "profile": ""},
    )
