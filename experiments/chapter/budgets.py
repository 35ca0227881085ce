"""Budgets: how many seeds and steps the measurement of the claims may use."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Budget:
    """Sizes of the experiments; every row of the table names the budget it used.

    Attributes:
        name: value of the command line's `--budget`.
        seeds: the plan of looks: the number of seeds (0, 1, 2, ...) of every training
            when a row is first judged, and at each later look that it may need.
        cifar: steps of a short CIFAR run; the chapter trains 3,000 steps of 128.
        cifar_long: steps of a long CIFAR run; the chapter trains 100,000 of 128.
        cifar_small: steps of each of the many runs over network and data set sizes.
        mnist: steps of the MNIST network; the chapter trains 20,000 of 50.
        mnist_short: steps of each run that compares variants of the MNIST network.
        mlp: steps of the multilayer perceptron; the chapter trains 3,000 of 100.
        pictures: at most this many training pictures for HoG features; 0 means all.
        rounds: number of measurements of every timing.
    """

    name: str
    seeds: tuple[int, ...]
    cifar: int
    cifar_long: int
    cifar_small: int
    mnist: int
    mnist_short: int
    mlp: int
    pictures: int
    rounds: int


# quick takes minutes and only shows that everything runs; standard takes a night on two
# cores, and a day where many rows need all their seeds; full trains as long as the
# chapter does and needs a GPU.
BUDGETS = {
    budget.name: budget
    for budget in (
        Budget("quick", (2,), 20, 40, 20, 40, 20, 100, 5000, 3),
        Budget("standard", (4, 8, 16), 3000, 12_000, 1000, 20_000, 4000, 3000, 0, 10),
        Budget("full", (4, 8, 16), 3000, 100_000, 3000, 20_000, 20_000, 3000, 0, 20),
    )
}
