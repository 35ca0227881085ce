"""The chapter's MNIST run (section 5.2): 20,000 steps of 50, Adam 1e-4, dropout.

python experiments/mnist.py --config=configs/mnist.py
"""

from ml_collections import ConfigDict

from cnnjax.config import default_config


def get_config() -> ConfigDict:
    """Returns the configuration; cnnjax/config/schema.py has all other defaults."""
    config = default_config("SimpleCNN")
    config.seed = 0

    # '' is MNIST, or scikit-learn's digits where it is not available.
    config.data.name = ""
    config.data.workers = 2  # threads; there is nothing to distort
    # 5000 trains on 55,000 pictures, as the chapter's loader does.
    config.data.val_examples = 0
    config.data.normalise = "unit"  # pixels in [0, 1]

    config.model.keep_prob = 0.5

    config.optim.name = "adam"
    config.optim.learning_rate = 1e-4
    config.optim.schedule = "constant"

    config.train.steps = 20_000
    config.train.batch_size = 50
    config.train.log_every = 100  # steps, as the chapter prints its accuracy
    config.train.checkpoint_every = 5000  # steps
    # Updating a second copy of 3 million weights costs more than a second core gains.
    config.parallel.num_devices = 1
    return config
