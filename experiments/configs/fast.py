"""The chapter's network at its most accurate in 3,000 steps of 128.

python experiments/cifar10.py --config=configs/fast.py

Muon for all hidden layers, a learning rate that rises for 200 steps and then falls to
zero, only crop and flip as distortions, and a weak L2 penalty. This was chosen on 5,000
held-out training pictures (experiments/results/README.md).
"""

from ml_collections import ConfigDict

from cnnjax.config import default_config


def get_config() -> ConfigDict:
    """Returns the configuration; cnnjax/config/schema.py has all other defaults."""
    config = default_config("CifarCNN")
    config.seed = 0

    config.data.name = ""  # CIFAR-10, or the embedded pictures
    config.data.pipeline = "device"
    config.data.crop = 24  # pixels
    config.data.distortions = ("crop", "flip")
    config.data.normalise = "per_image"

    config.optim.name = "muon"
    config.optim.learning_rate = 2e-3
    config.optim.warmup_steps = 200
    config.optim.schedule = "linear"
    config.optim.decay_rate = 0.0
    # The chapter's 0.004 is too strong for so short a run.
    config.optim.l2 = 0.0005

    config.train.steps = 3000
    config.train.batch_size = 128
    config.train.steps_per_call = 100
    config.train.log_every = 100  # steps
    config.eval.views = 10
    return config
