"""The classic convolutional networks of a TensorFlow 1 chapter, in JAX and Flax.

The names below are the public API. Each is imported when it is first used, so that
`import cnnjax` brings neither JAX nor TensorFlow. Their examples begin with

    import jax
    import jax.numpy as jnp
    import numpy as np
    import cnnjax as cj

and `MODELS` has the networks by name: `cj.MODELS["LeNet5"](variant="modern")`.
"""

import importlib
from typing import Any

__version__ = "0.2.0"

_HOME = {
    "CifarCNN": "models",
    "LeNet5": "models",
    "MLP": "models",
    "MODELS": "models",
    "SimpleCNN": "models",
    "Dataset": "data.dataset",
    "Split": "data.dataset",
    "Preprocessing": "data.augment",
    "batches": "data.batches",
    "load_dataset": "data.load",
    "Recipe": "recipe",
    "make_recipe": "recipe",
    "make_optimizer": "optimizers",
    "make_schedule": "optimizers",
    "TrainState": "state",
    "init_state": "state",
    "make_eval_step": "step",
    "make_train_step": "step",
    "Partitioner": "parallel",
    "evaluate": "evaluation",
    "default_config": "config",
    "train": "launch",
    "load_network": "network",
    "Checkpoints": "workdir.checkpoints",
    "InputError": "errors",
    "RunError": "errors",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'cnnjax' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"cnnjax.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
