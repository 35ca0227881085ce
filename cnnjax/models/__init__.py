"""The networks, by name."""

from cnnjax.models.cifar import CifarCNN
from cnnjax.models.lenet import LeNet5
from cnnjax.models.mnist import MLP, SimpleCNN

MODELS = {"CifarCNN": CifarCNN, "SimpleCNN": SimpleCNN, "MLP": MLP, "LeNet5": LeNet5}
