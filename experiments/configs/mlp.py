"""The perceptron that the chapter's CNN replaces: 784-300-10, 3,000 steps of 100.

python experiments/mnist.py --config=configs/mlp.py
"""

from ml_collections import ConfigDict

from cnnjax.config import default_config


def get_config() -> ConfigDict:
    """Returns the configuration; cnnjax/config/schema.py has all other defaults."""
    config = default_config("MLP")
    config.seed = 0
    config.data.name = ""  # MNIST, or scikit-learn's digits
    config.data.workers = 2  # threads
    config.data.normalise = "unit"  # pixels in [0, 1]

    config.model.keep_prob = 0.75  # of the hidden layer

    config.optim.name = "adagrad"  # its accumulator starts at 0.1, as in TF 1
    config.optim.learning_rate = 0.3
    config.optim.schedule = "constant"
    # Not the chapter's. Most of the energy of scikit-learn's digits is in their mean,
    # so Adagrad's first full steps move all hidden units alike: after 40 of them 89%
    # are zero for every picture. On MNIST, with or without a warm-up, none are.
    config.optim.warmup_steps = 100  # steps

    config.train.steps = 3000
    config.train.batch_size = 100
    config.train.log_every = 100  # steps
    config.train.checkpoint_every = 1000  # steps
    # There is too little work to share between devices.
    config.parallel.num_devices = 1
    return config
