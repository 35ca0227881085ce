"""Trains the chapter's CIFAR-10 network and evaluates it on the full test set.

python experiments/cifar10.py --config=configs/base.py
"""

from ml_collections import ConfigDict

from cnnjax import cli
from cnnjax.runtime import backend

DEFAULT_CONFIG = "configs/base.py"


def run(config: ConfigDict, workdir: str) -> None:
    """Trains in `workdir`, by default a new folder under `runs`."""
    backend.start(
        compile_cache=config.compile_cache, deterministic=config.deterministic
    )
    # Imported here, so that --help does not wait for JAX.
    from cnnjax import launch

    where = workdir or launch.default_workdir(cli.name(DEFAULT_CONFIG))
    launch.train(config, where, default_name="cifar10", stand_in="shapes")


if __name__ == "__main__":
    cli.main(run, doc=__doc__, default_config=DEFAULT_CONFIG)
