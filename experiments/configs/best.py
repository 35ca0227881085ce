"""The chapter's network at its most accurate in at most 20,000 steps.

python experiments/cifar10.py --config=configs/best.py

It differs from fast.py in taking 12,000 steps of 512 pictures, which allow twice the
learning rate, and in a moving average of the weights (`test_ema/...`).
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
    config.optim.learning_rate = 4e-3
    config.optim.warmup_steps = 200
    config.optim.schedule = "linear"
    config.optim.decay_rate = 0.0
    config.optim.ema_decay = 0.999
    config.optim.l2 = 0.0005

    config.train.steps = 12_000
    config.train.batch_size = 512
    config.train.steps_per_call = 20
    config.train.log_every = 100  # steps
    config.train.eval_every = 1000  # steps: the curve of accuracy
    config.train.checkpoint_every = 1000  # steps
    config.eval.views = 10
    return config
