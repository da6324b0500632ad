"""Losses of segmentation, one value per image, with pixels that do not count.

The mean of the values over the images that count is the reference's loss of the batch. Where nothing counts, in an
image or in all of them, values are 0 and so are gradients.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from backbones.pixel_labels import IGNORE

Logits = Float[Array, 'batch height width classes']
Labels = Int[Array, 'batch height width']


def _counts(labels: Labels, ignore: int, valid: Float[Array, 'batch'] | None) -> Float[Array, 'batch height width']:
    """1 for every pixel that counts, 0 for the others."""
    counts = labels != ignore
    if valid is not None:
        counts &= valid[:, None, None] > 0
    return counts.astype(jnp.float32)


def pixel_cross_entropy(
    logits: Logits, labels: Labels, valid: Float[Array, 'batch'] | None = None, ignore: int = IGNORE
) -> Float[Array, 'batch']:
    """Cross-entropy of pixels, as torch's ``cross_entropy(…, ignore_index=ignore)`` averages it over a batch.

    That is the mean over all pixels of the batch that count, so an image with few of them weighs less. To that end the
    sum over the pixels of an image is multiplied by the number of images that count, and divided by the number of
    pixels that do, in all images.

    Args:
        logits: of each class.
        labels: the class of each pixel, or ``ignore``.
        valid: 0 for the rows that are no examples; ``None``: all are.
        ignore: the label of pixels that do not count.

    Returns:
        One value per image, 0 for rows that are no examples.
    """
    counts = _counts(labels, ignore, valid)
    log_probabilities = jax.nn.log_softmax(logits.astype(jnp.float32))
    chosen = jnp.where(counts > 0, labels, 0)[..., None]
    losses = -jnp.take_along_axis(log_probabilities, chosen, axis=-1)[..., 0]
    images = len(labels) if valid is None else (valid > 0).sum()
    return jnp.where(counts > 0, losses, 0).sum((1, 2)) * (images / jnp.maximum(counts.sum(), 1))


def soft_dice(
    logits: Logits,
    labels: Labels,
    valid: Float[Array, 'batch'] | None = None,
    ignore: int = IGNORE,
    smooth: float = 1e-5,
    squared: bool = False,
) -> Float[Array, 'batch']:
    """1 minus the soft Dice coefficient of each class, averaged over the classes, as monai's ``DiceLoss`` defines it.

    With p the softmax and g the one-hot labels, a class has ``1 - (2 Σ p g + smooth) / (Σ p + Σ g + smooth)``, where
    sums are over the pixels of one image that count (``MaskedDiceLoss``). A class that an image lacks counts, too.
    Milletari et al. 2016 ("V-Net"), who proposed the loss, square p and g in the denominator: ``squared``.

    Args:
        logits: of each class.
        labels: the class of each pixel, or ``ignore``.
        valid: 0 for the rows that are no examples; ``None``: all are.
        ignore: the label of pixels that do not count.
        smooth: added to numerator and denominator; an image in which nothing counts has loss 0 for it.
        squared: whether the denominator has squares.

    Returns:
        One value per image, 0 for rows that are no examples.
    """
    counts = _counts(labels, ignore, valid)[..., None]
    probabilities = jax.nn.softmax(logits.astype(jnp.float32)) * counts
    targets = jax.nn.one_hot(labels, logits.shape[-1], dtype=jnp.float32) * counts
    power = 2 if squared else 1
    total = (probabilities**power + targets**power).sum((1, 2))
    both = (probabilities * targets).sum((1, 2))
    return (1 - (2 * both + smooth) / (total + smooth)).mean(-1)
