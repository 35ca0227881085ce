"""The chapter's CIFAR-10 run (section 5.3): 3,000 steps of 128, constant Adam.

python experiments/cifar10.py --config=configs/base.py
"""

from ml_collections import ConfigDict

from cnnjax.config import default_config


def get_config() -> ConfigDict:
    """Returns the configuration; cnnjax/config/schema.py has all other defaults."""
    config = default_config("CifarCNN")
    config.seed = 0

    # '' is CIFAR-10, or the embedded pictures where it is not available.
    config.data.name = ""
    config.data.workers = 16  # threads, as in the chapter's distorted_inputs
    config.data.crop = 24  # pixels
    config.data.distortions = ("crop", "flip", "brightness", "contrast")
    config.data.normalise = "per_image"

    config.model.lrn = True
    config.model.lrn_depth_radius = 4
    config.model.lrn_bias = 1.0
    config.model.lrn_alpha = 0.001 / 9
    config.model.lrn_beta = 0.75

    config.optim.name = "adam"
    config.optim.learning_rate = 1e-3
    # A decay by the factor 1 keeps the rate constant, as in the chapter.
    config.optim.schedule = "exponential"
    config.optim.decay_steps = 3000
    config.optim.decay_rate = 1.0
    config.optim.staircase = True
    config.optim.l2 = 0.004  # on local3 and local4; the chapter's text says 0.04

    config.train.steps = 3000
    config.train.batch_size = 128
    config.train.log_every = 10  # steps
    config.train.checkpoint_every = 1000  # steps
    config.eval.top_k = 1  # the chapter's in_top_k(logits, labels, 1)
    return config
