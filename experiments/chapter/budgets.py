"""How many seeds and steps a table of claims may take."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Budget:
    """What is run for the rows; every row says what it was.

    Attributes:
        name: as on the command line.
        seeds: of every training, from 0 on.
        cifar: steps of the short CIFAR runs; the chapter's are 3,000 of 128.
        cifar_long: steps of the long ones; the chapter's are 100,000 of 128.
        cifar_small: steps of each run where there are many: by size and data.
        mnist: steps of the MNIST network; the chapter's are 20,000 of 50.
        mnist_short: steps where two variants of it are compared.
        mlp: steps of the perceptron; the chapter's are 3,000 of 100.
        pictures: training pictures at most, 0 for all, for the hand-made features.
        rounds: of every timing.
    """

    name: str
    seeds: int
    cifar: int
    cifar_long: int
    cifar_small: int
    mnist: int
    mnist_short: int
    mlp: int
    pictures: int
    rounds: int


# quick: minutes, to see that it all runs. standard: a night on two cores. full: what
# the chapter says, on a GPU.
BUDGETS = {
    budget.name: budget
    for budget in (
        Budget("quick", 2, 20, 40, 20, 40, 20, 100, 5000, 3),
        Budget("standard", 4, 3000, 9000, 1000, 20_000, 4000, 3000, 0, 10),
        Budget("full", 10, 3000, 100_000, 3000, 20_000, 20_000, 3000, 0, 20),
    )
}
