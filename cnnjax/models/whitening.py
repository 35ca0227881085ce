"""The first convolution's kernel from the pictures themselves."""

import numpy as np

# Of the variance of the patches: directions of less are not blown up further.
EPSILON = 1e-2


def whitening_kernel(images: np.ndarray, size: int, features: int) -> np.ndarray:
    """Returns a kernel whose outputs are uncorrelated and of deviation one.

    With C = sum_k lambda[k] e[k] e[k]^T the covariance of all patches, the largest
    lambda first, filter k is e[k] / sqrt(lambda[k] + EPSILON * mean(lambda)), and
    filter k + features / 2 is its negative, as ReLU passes one sign only.

    Args:
        images: float32 [n, height, width, channels], as the network is fed.
        size: side of the kernel, in pixels.
        features: of the kernel, even; at most twice its size * size * channels inputs.

    Returns:
        float32 [size, size, channels, features].

    Raises:
        ValueError: `features` is odd or too large.

    Source: Page 2019, "How to Train Your ResNet", part 8; Jordan 2024 (arXiv
    2404.00498), sec. 3.1, who keep it fixed; here it is a start, and trained.
    """
    channels = images.shape[-1]
    inputs = size * size * channels
    half = features // 2
    if features % 2 or half > inputs:
        raise ValueError(
            f"got {features} features, need an even number of at most {2 * inputs}:"
            f" there are {inputs} directions in {size}x{size}x{channels} patches"
        )
    windows = np.lib.stride_tricks.sliding_window_view(images, (size, size), (1, 2))
    # [n, rows, columns, channels, size, size] -> [patches, size * size * channels]
    patches = windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, inputs)
    values, vectors = np.linalg.eigh(np.cov(patches, rowvar=False))
    values, vectors = values[::-1][:half], vectors[:, ::-1][:, :half]
    filters = vectors / np.sqrt(values + EPSILON * values.mean())
    kernel = np.concatenate([filters, -filters], axis=1)
    return kernel.reshape(size, size, channels, features).astype(np.float32)
