"""LeNet-5 as published (LeCun et al. 1998), trained with Adam for 20 epochs.

python experiments/mnist.py --config=configs/lenet5.py

With --config.model.variant=modern, use --config.optim.learning_rate=1e-3. Both rates
are the best of 1e-3, 3e-3 and 6e-3 on 5,000 held-out training pictures after four
epochs (98.80% and 98.32%).
"""

from ml_collections import ConfigDict

from cnnjax.config import default_config


def get_config() -> ConfigDict:
    """Returns the configuration; cnnjax/config/schema.py has all other defaults."""
    config = default_config("LeNet5")
    config.seed = 0
    config.data.name = ""  # MNIST, or scikit-learn's digits
    config.data.workers = 2  # threads
    config.data.normalise = "unit"  # pixels in [0, 1]; the network rescales them

    config.model.variant = "1998"

    config.optim.name = "adam"
    config.optim.learning_rate = 3e-3
    config.optim.schedule = "cosine"
    config.optim.decay_steps = 24_000  # until the end of training
    config.optim.decay_rate = 0.0

    config.train.steps = 24_000  # 20 epochs of 60,000
    config.train.batch_size = 50
    config.train.log_every = 100  # steps
    config.train.checkpoint_every = 6000  # steps
    # There is too little work to share between devices.
    config.parallel.num_devices = 1
    return config
