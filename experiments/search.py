"""Trains a grid of configurations and ranks them on the validation split.

python experiments/search.py --config=configs/fast.py --workdir=runs/search
    --config.data.val_examples=5000 --vary='optim.learning_rate=[1e-3, 2e-3]'

--vary=FIELD=[...]      values of a field, as a JSON list; given several times, all
                        combinations are run. The test set is not opened. What is
                        finished is not run again, and more runs can be added later:
                        search.json of the workdir lists them all, the best first
"""

from pathlib import Path

from ml_collections import ConfigDict

from cnnjax import cli
from cnnjax.runtime import backend

DEFAULT_CONFIG = "configs/base.py"
DIGITS = ("SimpleCNN", "MLP", "LeNet5")  # the networks that take nothing else


def run(config: ConfigDict, workdir: str, vary: list[str]) -> None:
    """Searches in `workdir`, or in a folder of its own under `runs`."""
    backend.start(
        compile_cache=config.compile_cache, deterministic=config.deterministic
    )
    # Here and not above, so that --help need not wait for JAX.
    import grid_search
    from cnnjax import launch

    where = workdir or launch.default_workdir(f"search-{cli.name(DEFAULT_CONFIG)}")
    digits = config.model.name in DIGITS
    grid_search.run(
        config,
        vary,
        Path(where),
        default_name="mnist" if digits else "cifar10",
        fallback="digits" if digits else "shapes",
    )


if __name__ == "__main__":
    cli.main(run, doc=__doc__, default_config=DEFAULT_CONFIG, many=("vary",))
