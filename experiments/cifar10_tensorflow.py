"""Trains the chapter's CIFAR-10 network in TensorFlow, to compare `base.py` with.

python experiments/cifar10_tensorflow.py --dir=PATH/TO/tensorflow_datasets

--data=NAME       a data set of TFDS, or what else load_dataset() takes [cifar10]
--dir=DIR         TFDS's data folder
--seed=N          seed of the weights, the order and the distortions [0]
--steps=N         training steps of 128 pictures [3000]
--threads=N       threads of TensorFlow; 0 leaves the number to it [0]
--out=FILE        JSON file for the record that is printed; tables.py --add reads it

The recipe is that of configs/base.py. Only the pictures are read by this project: their
order, their distortions (tf.image), the network (tf.nn, Keras), the step and the test
are TensorFlow's.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cnnjax import cli
from cnnjax.data.dataset import Split
from cnnjax.errors import InputError
from cnnjax.runtime import backend

BATCH_SIZE = 128
CROP = 24
LOG_EVERY = 10  # steps, as base.py
L2 = 0.004
LEARNING_RATE, EPSILON = 1e-3, 1e-8
# Layer -> standard deviation of its kernel, initial value of its biases: the chapter,
# section 5.3, after `tensorflow/models` `tutorials/image/cifar10/cifar10.py`.
INITIAL = {
    "conv1": (5e-2, 0.0),
    "conv2": (5e-2, 0.1),
    "local3": (0.04, 0.1),
    "local4": (0.04, 0.1),
    "logits": (1 / 192, 0.0),
}


def run(
    arguments: list[str],
    *,
    data: str,
    dir: str,
    seed: int,
    steps: int,
    threads: int,
    out: str,
) -> None:
    """Trains and tests; prints the record of the run and writes it.

    Raises:
        InputError: the data set is missing or a number is out of range.
    """
    del arguments  # none are taken
    if steps < 1 or threads < 0:
        raise InputError(
            f"got --steps={steps} and --threads={threads}, need at least 1 step and at"
            " least 0 threads"
        )
    if out and Path(out).is_dir():
        raise InputError(f"got --out={out}, a folder, need a file; name one in it")
    backend.start()
    # Here and not above, so that --help need not wait for JAX.
    from chapter import past
    from cnnjax.data.load import load_dataset
    from cnnjax.data.tensorflow_import import import_tensorflow
    from cnnjax.parallel import make_partitioner
    from cnnjax.workdir import files, manifest

    folder = Path(out).parent
    with files.writing(folder, "out"):
        folder.mkdir(parents=True, exist_ok=True)
    tf = import_tensorflow()
    # This has to come before the first operation, which reading the data is.
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    dataset = load_dataset(data, dir=dir)
    tf.keras.utils.set_random_seed(seed)
    model = make_network(tf, dataset.num_classes)
    start = time.perf_counter()
    losses = train(tf, model, batches(tf, dataset.train, seed), steps)
    seconds = time.perf_counter() - start
    partitioner = make_partitioner(1, mode="jit", num_seeds=1, batch_size=BATCH_SIZE)
    about = past.about(manifest.describe_machine(partitioner))
    tail = losses[-max(1, round(past.LAST_SHARE * len(losses))) :]
    record = {
        **about,
        "versions": about["versions"] | {"keras": tf.keras.__version__},
        "devices": {"platform": "cpu", "threads": threads, "mode": "tf.function"},
        "seeds": [seed],
        "network": "CifarCNN",
        "batch_size": BATCH_SIZE,
        "data": {
            "name": dataset.name,
            "version": dataset.version,
            "fingerprint": dataset.fingerprint,
        },
        "final": {
            "dataset": dataset.name,
            "steps": steps,
            "num_params": model.count_params(),
            **test(tf, model, dataset.test),
            "train_seconds": seconds,
        },
        "first_loss": losses[0],
        "last_loss": sum(tail) / len(tail),
        "curve": {},
    }
    print(json.dumps(record, indent=1))
    if out:
        files.write_json(Path(out), record)


def make_network(tf: Any, num_classes: int) -> Any:
    """Returns the Keras model with the chapter's initial weights."""
    from speed import keras_peer

    model = keras_peer.cifar(tf, num_classes)
    for name, (deviation, bias) in INITIAL.items():
        layer = model.get_layer(name)
        weights = tf.random.truncated_normal(layer.kernel.shape, 0, deviation)
        layer.kernel.assign(weights)
        layer.bias.assign(tf.fill(layer.bias.shape, bias))
    return model


def batches(tf: Any, split: Split, seed: int) -> Iterator[tuple[Any, Any]]:
    """Yields distorted batches without end: images float32 [128, 24, 24, c], labels.

    Every epoch is all of the pictures, in a new order.
    """

    def distorted(image: Any, label: Any) -> tuple[Any, Any]:
        image = tf.cast(image, tf.float32)
        image = tf.image.random_crop(image, [CROP, CROP, image.shape[-1]])
        image = tf.image.random_flip_left_right(image)
        image = tf.image.random_brightness(image, max_delta=63)
        image = tf.image.random_contrast(image, lower=0.2, upper=1.8)
        return tf.image.per_image_standardization(image), label

    examples = tf.data.Dataset.from_tensor_slices((split.images, split.labels))
    examples = examples.shuffle(len(split.labels), seed).repeat()
    return iter(examples.map(distorted).batch(BATCH_SIZE).prefetch(2))


def train(
    tf: Any, model: Any, batched: Iterator[tuple[Any, Any]], steps: int
) -> list[float]:
    """Trains `model` and returns every tenth loss, that of the first batch first."""
    optimizer = tf.keras.optimizers.Adam(LEARNING_RATE, epsilon=EPSILON)
    optimizer.build(model.trainable_variables)
    penalised = [model.get_layer(name).kernel for name in ("local3", "local4")]

    @tf.function
    def step(images: Any, labels: Any) -> Any:
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            entropies = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            loss = tf.reduce_mean(entropies)
            loss += L2 * sum(tf.nn.l2_loss(kernel) for kernel in penalised)
        grads = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(grads, model.trainable_variables, strict=True))
        return loss

    losses = []
    for number in range(steps):
        loss = step(*next(batched))
        if number % LOG_EVERY == 0:
            losses.append(float(loss))
            print(f"step {number}, loss={losses[-1]:.2f}", flush=True)
    return losses


def test(tf: Any, model: Any, split: Split) -> dict[str, Any]:
    """Returns `test/...` of the central crops, with every picture counted once."""

    @tf.function
    def logits_of(image: Any) -> Any:
        image = tf.image.resize_with_crop_or_pad(image, CROP, CROP)
        image = tf.image.per_image_standardization(tf.cast(image, tf.float32))
        return model(image, training=False)

    count, correct, loss = len(split.labels), 0, 0.0
    for at in range(0, count, BATCH_SIZE):
        images, labels = (x[at : at + BATCH_SIZE] for x in (split.images, split.labels))
        logits = logits_of(tf.constant(images))
        right = tf.argmax(logits, axis=-1, output_type=tf.int32) == labels
        correct += int(tf.math.count_nonzero(right))
        entropies = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        loss += float(tf.reduce_sum(entropies))
    return {
        "test/accuracy": correct / count,
        "test/correct": correct,
        "test/count": count,
        "test/loss": loss / count,
    }


if __name__ == "__main__":
    cli.main_with(
        run,
        doc=__doc__,
        options={
            "data": "cifar10",
            "dir": "",
            "seed": 0,
            "steps": 3000,
            "threads": 0,
            "out": "",
        },
    )
