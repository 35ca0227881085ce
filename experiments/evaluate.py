"""Evaluates a run on the full test set of its own data, or of other data.

The run's folder is left as it is.

python experiments/evaluate.py --workdir=runs/base --config.data.name=cifar10

--checkpoint=best       the one with the highest accuracy on the validation split, in
                        place of the latest [latest]
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
    # Imported here, so that --help does not wait for JAX.
    from cnnjax.evaluation import evaluate_state
    from cnnjax.reporting import console
    from cnnjax.run import load_run, restore
    from cnnjax.runtime.clocks import Clocks

    trained = load_run(workdir, config)
    state = restore(workdir, trained.init_state(), checkpoint)
    test, clocks, views = trained.dataset.test, Clocks(), config.eval.views
    values = evaluate_state(trained.evaluator(clocks), state, test, "test")
    if views > 1:
        multiview = trained.evaluator(clocks, views)
        values |= evaluate_state(multiview, state, test, "test_multiview")
    seeds = trained.seeds if len(trained.seeds) > 1 else ()
    console.print_precisions(values, trained.dataset.name, config.eval.top_k, seeds)


if __name__ == "__main__":
    cli.main_on_run(run, doc=__doc__, checkpoint=("latest", "best"))
