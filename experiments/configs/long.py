"""The chapter's other CIFAR-10 recipe (section 5.3): 100,000 steps of 128, SGD.

python experiments/cifar10.py --config=configs/long.py

SGD with a rate of 0.1 that falls tenfold every 350 epochs, and a moving average of the
weights. 350 epochs of 50,000 pictures are 136,718 steps, that is after the end: the
original's rate never fell. That is --config.optim.decay_steps=136718; here it falls
once, at step 80,000, as held-out pictures have it (README).
"""

from ml_collections import ConfigDict

from cnnjax.config import default_config


def get_config() -> ConfigDict:
    """Returns the configuration; what is not set here is as in cnnjax/config.py."""
    config = default_config("CifarCNN")
    config.seed = 0

    # '' is CIFAR-10, or the embedded pictures where it is not to be had.
    config.data.name = ""
    config.data.pipeline = "device"
    config.data.crop = 24  # pixels
    config.data.distortions = ("crop", "flip", "brightness", "contrast")
    config.data.normalise = "per_image"

    # INITIAL_LEARNING_RATE, LEARNING_RATE_DECAY_FACTOR and MOVING_AVERAGE_DECAY of
    # tensorflow/models' tutorials/image/cifar10/cifar10.py.
    config.optim.name = "sgd"
    config.optim.learning_rate = 0.1
    config.optim.schedule = "exponential"
    config.optim.decay_steps = 80_000
    config.optim.decay_rate = 0.1
    config.optim.staircase = True
    config.optim.ema_decay = 0.9999
    config.optim.l2 = 0.004

    config.train.steps = 100_000
    config.train.batch_size = 128
    config.train.steps_per_call = 100
    config.train.log_every = 100  # steps
    config.train.eval_every = 10_000  # steps
    config.train.checkpoint_every = 5000  # steps
    return config
