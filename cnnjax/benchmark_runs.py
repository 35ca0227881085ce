"""Whole steps of a configuration, batches included, as a case to time."""

from ml_collections import ConfigDict

from cnnjax import assembly
from cnnjax.benchmarking import ours
from cnnjax.benchmarking.timing import Case
from cnnjax.clocks import Clocks
from cnnjax.data.arrays import Split
from cnnjax.replicas import start_state
from cnnjax.updates import Recipe

RUN_STEPS = 20


def run_case(name: str, config: ConfigDict, recipe: Recipe, split: Split) -> Case:
    """Returns `RUN_STEPS` steps of a configuration, batches included, of all its seeds.

    Args:
        name: of the case.
        config: of the run.
        recipe: its network, loss and optimiser.
        split: the training pictures.
    """
    mesh, how = assembly.choose_mesh(config), assembly.make_preprocessing(config)
    start = start_state(
        recipe,
        seed=0,
        num_seeds=config.num_seeds,
        image_shape=how.output_shape(split.images.shape[1:]),
        mesh=mesh,
    )
    return ours.update_case(
        name,
        assembly.make_update(config, recipe, split, how, mesh)(0, Clocks()),
        start,
        steps=RUN_STEPS,
        log_every=config.train.log_every,
        images=config.num_seeds * config.train.batch_size,
    )
