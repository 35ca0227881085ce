"""The chapter's MNIST network and number of steps, with a modern recipe.

python experiments/mnist.py --config=configs/mnist_augmented.py

Adam's rate falls from 1e-3 to zero along half a cosine. The digits are shifted, rotated
and scaled a little, and the weights are averaged (`test_ema/...`).
"""

from ml_collections import ConfigDict

from cnnjax.config import default_config


def get_config() -> ConfigDict:
    """Returns the configuration; cnnjax/config/schema.py has all other defaults."""
    config = default_config("SimpleCNN")
    config.seed = 0
    config.data.name = ""  # MNIST, or scikit-learn's digits
    config.data.workers = 2  # threads
    # Up to 2 pixels, 10 degrees and 10% in each direction; see cnnjax/data/augment.py.
    config.data.distortions = ("shift", "rotate", "scale")
    config.data.normalise = "unit"  # pixels in [0, 1]

    config.model.keep_prob = 0.5

    config.optim.name = "adam"
    config.optim.learning_rate = 1e-3
    config.optim.schedule = "cosine"
    config.optim.decay_steps = 20_000  # until the end of training
    config.optim.decay_rate = 0.0
    config.optim.ema_decay = 0.999

    config.train.steps = 20_000
    config.train.batch_size = 50
    config.train.log_every = 100  # steps
    config.train.checkpoint_every = 5000  # steps
    # Updating a second copy of 3 million weights costs more than a second core gains.
    config.parallel.num_devices = 1
    return config
