"""The chapter's MNIST network and number of steps, with a recipe of today.

python experiments/mnist.py --config=configs/mnist_augmented.py

Adam's rate falls from 1e-3 to zero along half a cosine, and the digits are shifted,
turned and scaled a little. The weights are averaged too (`test_ema/...`).
"""

from ml_collections import ConfigDict

from cnnjax.config import default_config


def get_config() -> ConfigDict:
    """Returns the configuration; what is not set here is as in cnnjax/config.py."""
    config = default_config("SimpleCNN")
    config.seed = 0
    config.data.name = ""  # MNIST, or scikit-learn's digits
    config.data.workers = 2  # threads
    # Up to 2 pixels, 10 degrees and 10% either way: cnnjax/data/augment.py.
    config.data.distortions = ("shift", "rotate", "scale")
    config.data.normalise = "unit"  # pixels in [0, 1]

    config.model.keep_prob = 0.5

    config.optim.name = "adam"
    config.optim.learning_rate = 1e-3
    config.optim.schedule = "cosine"
    config.optim.decay_steps = 20_000  # to the end
    config.optim.decay_rate = 0.0
    config.optim.ema_decay = 0.999

    config.train.steps = 20_000
    config.train.batch_size = 50
    config.train.log_every = 100  # steps
    config.train.checkpoint_every = 5000  # steps
    # Two copies of 3 million parameters to update cost more than a second core brings.
    config.parallel.num_devices = 1
    return config
