"""The networks in Keras on TensorFlow, which uses oneDNN's convolutions on CPU."""

from typing import Any

from cnnjax.data.tensorflow_import import import_tensorflow
from speed.peer import Job, Peer


def make(job: Job) -> list[Peer]:
    """Returns the peer: a Keras model whose step is a `tf.function`.

    Raises:
        InputError: TensorFlow is not installed.
    """
    tf = import_tensorflow()
    keras = tf.keras
    is_cifar = job.network == "CifarCNN"
    model = cifar(tf, 10) if is_cifar else _simple(keras, job.keep_prob)
    for name, weights in job.params.items():
        model.get_layer(name).set_weights([weights["kernel"], weights["bias"]])
    penalised = [model.get_layer(name).kernel for name in job.penalised]
    optimizer = keras.optimizers.Adam(job.learning_rate, epsilon=1e-8)
    optimizer.build(model.trainable_variables)
    images, labels = tf.constant(job.image), tf.constant(job.label)

    @tf.function
    def forward() -> Any:
        return model(images, training=False)

    @tf.function
    def step() -> Any:
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            loss = tf.reduce_mean(losses)
            loss += job.l2 * sum(tf.nn.l2_loss(kernel) for kernel in penalised)
        grads = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(grads, model.trainable_variables, strict=True))
        return loss

    def train(steps: int) -> None:
        for _ in range(steps):
            loss = step()
        loss.numpy()  # waits for it

    return [Peer("Keras on TensorFlow", lambda: forward().numpy(), train)]


def cifar(tf: Any, num_classes: int) -> Any:
    """Returns CifarCNN for 24x24x3 as a Keras model, with Keras' initial weights."""
    layers = tf.keras.layers

    def lrn(name: str) -> Any:
        return layers.Lambda(
            lambda x: tf.nn.local_response_normalization(x, 4, 1.0, 0.001 / 9, 0.75),
            name=name,
        )

    return tf.keras.Sequential(
        [
            layers.Input((24, 24, 3)),
            layers.Conv2D(64, 5, padding="same", activation="relu", name="conv1"),
            layers.MaxPooling2D(3, 2, "same"),
            lrn("norm1"),
            layers.Conv2D(64, 5, padding="same", activation="relu", name="conv2"),
            lrn("norm2"),
            layers.MaxPooling2D(3, 2, "same"),
            layers.Flatten(),
            layers.Dense(384, activation="relu", name="local3"),
            layers.Dense(192, activation="relu", name="local4"),
            layers.Dense(num_classes, name="logits"),
        ]
    )


def _simple(keras: Any, keep_prob: float) -> Any:
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input((28, 28, 1)),
            layers.Conv2D(32, 5, padding="same", activation="relu", name="conv1"),
            layers.MaxPooling2D(2, 2, "same"),
            layers.Conv2D(64, 5, padding="same", activation="relu", name="conv2"),
            layers.MaxPooling2D(2, 2, "same"),
            layers.Flatten(),
            layers.Dense(1024, activation="relu", name="fc1"),
            layers.Dropout(1 - keep_prob),
            layers.Dense(10, name="logits"),
        ]
    )
