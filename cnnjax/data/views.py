"""The views of multi-view evaluation: crops of the corners and of the middle."""

import jax
import jax.numpy as jnp

from cnnjax.data import augment


def take(
    images: jax.Array, preprocessing: augment.Preprocessing, *, mirrored: bool
) -> jax.Array:
    """Returns several standard views of each picture.

    The crops of the four corners and of the middle, and with `mirrored` then the
    mirror images of these five; each is normalised by itself.

    Args:
        images: uint8 [batch, height, width, channels].
        preprocessing: crop (more than 0) and normalisation; its distortions are not
            applied.
        mirrored: whether mirror images are views too; they make no sense for digits.

    Returns:
        float32 [views, batch, crop, crop, channels], 5 or 10 views.

    Source: cuda-convnet's multiview test, `CroppedCIFARDataProvider` of `convdata.py`.
    """
    height, width = images.shape[1:3]
    crop = preprocessing.crop
    below, right = height - crop, width - crop
    places = ((0, 0), (0, right), (below, 0), (below, right), (below // 2, right // 2))
    crops = [
        images[:, top : top + crop, left : left + crop].astype(jnp.float32)
        for top, left in places
    ]
    if mirrored:
        crops += [view[:, :, ::-1] for view in crops]
    how = preprocessing.normalise
    return jnp.stack([augment.normalise(view, how) for view in crops])
