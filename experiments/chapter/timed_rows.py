"""Claims about speed, measured on the current machine."""

import numpy as np

from chapter.checks import Check, contrast
from chapter.lab import Lab
from chapter.row import Also, Outcome, Row
from cnnjax.ops import conv
from cnnjax.run import make_run
from speed import ours
from speed.operations import conv1, gradient_case
from speed.timing import alternate

GTX_1080 = 1800  # images per second, the chapter's figure
WORKERS = (1, 2, 4, 16)


def _speed(lab: Lab) -> Outcome:
    run = make_run(lab.config("base", steps=10**6), lab.data_of("cifar"))
    timed = alternate([ours.run_case("steps", run)], lab.budget.rounds)["steps"]
    seeds, devices = run.config.num_seeds, run.partitioner.num_devices
    return Outcome(
        [1 / timed.per_image],
        run.dataset.name,
        note=f"{seeds} seeds on {devices} devices, batches included.",
    )


def _threads(lab: Lab) -> Outcome:
    run = make_run(lab.config("base", steps=1), lab.data_of("cifar"))
    cases = [ours.tfdata_case(str(workers), run, workers) for workers in WORKERS]
    timed = alternate(cases, lab.budget.rounds)
    rates = [1 / timed[str(workers)].per_image for workers in WORKERS]
    return Outcome(
        [rates[-1] / rates[0] - 1],
        run.dataset.name,
        also=[
            Also(f"{workers} workers", rate, "images/s")
            for workers, rate in zip(WORKERS, rates, strict=True)
        ],
        note="tf.data is given no more threads than the machine has cores.",
    )


def _conv_share(lab: Lab) -> Outcome:
    config = lab.config(
        "base", steps=1, changes={"num_seeds": 1, "parallel.num_devices": 1}
    )
    run = ours.noise_run(config)
    batch_size, params = config.train.batch_size, run.abstract_state().params
    kernels = [params[layer]["kernel"].shape for layer in ("conv1", "conv2")]
    pictures, maps = (batch_size, *run.input_shape), (batch_size, 12, 12, 64)
    cases = [
        ours.train_case("step", run),
        gradient_case("conv1", conv1, [pictures, kernels[0]]),
        gradient_case("conv2", conv.conv, [maps, kernels[1]]),
    ]
    timed = alternate(cases, lab.budget.rounds)
    seconds = {name: times.seconds for name, times in timed.items()}
    both = seconds["conv1"] + seconds["conv2"]
    return Outcome(
        [both / seconds["step"]],
        also=[
            Also(f"{name}, ms", 1e3 * np.asarray(taken), "")
            for name, taken in seconds.items()
        ],
        note="Forward and backward, in alternation with the step, on one device.",
    )


ROWS = (
    Row(
        "conv-share",
        "5.3",
        "convolutions take most of the training time",
        "conv1 and conv2 forward and backward, against the whole step of base.py",
        (Check("share of the step", 0.5, unit="%"),),
        _conv_share,
    ),
    Row(
        "threads",
        "5.3",
        "distortion needs many threads",
        "tf.data's batches of base.py with 1, 2, 4 and 16 workers",
        (contrast("16 workers / 1 worker - 1", "%"),),
        _threads,
        data="cifar",
    ),
    Row(
        "speed",
        "5.3",
        "1,800 images a second on a GTX 1080",
        "steps of base.py, all seeds in one program, on the machine at hand",
        (Check("images a second", GTX_1080, unit="images/s"),),
        _speed,
        data="cifar",
    ),
)
