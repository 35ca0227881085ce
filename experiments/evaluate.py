"""Evaluates a run on the whole test set, of its own data or of other data.

python experiments/evaluate.py --workdir=runs/base --config.data.name=cifar10

--checkpoint=best       that of the highest accuracy on the validation split [latest]
"""

from pathlib import Path

from ml_collections import ConfigDict

from cnnjax import cli
from cnnjax.runtime import backend


def run(config: ConfigDict, workdir: Path, checkpoint: str) -> None:
    """Prints the precision, with exact counts and the data set's name."""
    backend.start(
        compile_cache=config.compile_cache, deterministic=config.deterministic
    )
    # Here and not above, so that --help need not wait for JAX.
    from cnnjax import run_evaluation

    run_evaluation.evaluate(config, workdir, checkpoint)


if __name__ == "__main__":
    cli.main_on_run(run, doc=__doc__, checkpoint=("latest", "best"))
