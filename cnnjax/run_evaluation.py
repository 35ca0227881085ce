"""A run that was trained before, on a whole test set."""

from functools import partial
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from cnnjax import assembly, loading, network, training
from cnnjax.evaluation import Evaluator
from cnnjax.replicas import start_state
from cnnjax.reporting import console
from cnnjax.runtime.clocks import Clocks
from cnnjax.workdir import files


def evaluate(
    config: ConfigDict, workdir: Path, checkpoint: str = "latest"
) -> dict[str, Any]:
    """Evaluates a run on the whole test set of the data that `config` names; prints.

    Args:
        config: the run's, perhaps with other data.
        workdir: of the run; it is left as it is.
        checkpoint: "latest" or "best", see `inference.restore`.

    Returns:
        `test/accuracy`, `test/correct`, `test/count`, `test/loss`, and the same of
        `test_ema` where the run keeps an average; with `eval.views` also of
        `test_multiview` and `test_multiview_ema`. Of a run of many seeds all but the
        counts are lists, with `.../mean` and `.../std` beside them.

    Raises:
        InputError: the data have other classes or do not fit; or no checkpoint.
    """
    dataset = loading.load_data_of_run(config, files.trained_on(workdir)["name"])
    network.check_same_classes(workdir, dataset.class_names, dataset.name)
    mesh = assembly.choose_mesh(config)
    recipe = assembly.make_recipe(config, dataset.num_classes)
    preprocessing = assembly.make_preprocessing(config)
    with loading.fitting(config, dataset):
        like = start_state(
            recipe,
            seed=config.seed,
            num_seeds=config.num_seeds,
            image_shape=preprocessing.output_shape(dataset.image_shape),
            mesh=mesh,
        )
    state = network.restore(workdir, like, checkpoint)
    evaluator_of = partial(
        Evaluator,
        recipe.model,
        recipe.eval_loss_fn,
        preprocessing,
        num_seeds=config.num_seeds,
        batch_size=config.eval.batch_size,
        top_k=config.eval.top_k,
        mesh=mesh,
        mode=config.parallel.mode,
        clocks=Clocks(),
    )
    values = training.evaluate_all(evaluator_of(), state, dataset.test, "test")
    if config.eval.views > 1:
        multiview = evaluator_of(num_views=config.eval.views)
        values |= training.evaluate_all(
            multiview, state, dataset.test, "test_multiview"
        )
    seeds = state.seed.tolist() if config.num_seeds > 1 else ()
    console.print_precisions(values, dataset.name, config.eval.top_k, seeds)
    return values
