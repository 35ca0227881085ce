"""The classic convolutional networks, in JAX, Flax Linen, optax and Orbax."""
