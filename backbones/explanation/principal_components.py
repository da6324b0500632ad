"""Maps of features as pictures: their first three principal components as red, green and blue."""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

from backbones.errors import UserError

# Per cent of the positions at either end that may be clipped, so that a few of them do not take all the contrast.
_CLIPPED = 2.0
# A component with a smaller share of the variance is noise of the arithmetic, and shown as grey.
_LEAST = 1e-6


def components(
    positions: Float[Array, 'positions channels'], count: int
) -> tuple[Float[Array, 'count channels'], Float[Array, ' count']]:
    """The first principal components of some positions, as unit vectors, and the share of the variance of each.

    The element of a vector that is largest in magnitude is positive, as in scikit-learn's ``PCA``.

    Args:
        positions: feature vectors.
        count: number of components, at most that of the channels.
    """
    centred = positions - positions.mean(0)
    scatter = centred.T @ centred
    values, vectors = jnp.linalg.eigh(scatter)
    vectors, values = vectors[:, ::-1][:, :count].T, jnp.maximum(values[::-1][:count], 0)
    largest = jnp.take_along_axis(vectors, jnp.abs(vectors).argmax(1)[:, None], axis=1)
    return vectors * jnp.where(largest < 0, -1, 1), values / jnp.maximum(
        jnp.trace(scatter), jnp.finfo(jnp.float32).tiny
    )


def colours(maps: Sequence[Float[Array, '_ _ channels']]) -> list[Float[Array, '_ _ 3']]:
    """Red, green and blue of maps of features: one principal component each, the same for all maps.

    Each component is scaled so that 96 % of all positions lie between 0 and 1; the rest is clipped. The colours mean
    nothing but that positions of similar colour have similar features; they cannot be compared between backbones.

    Source: Oquab et al. 2024, "DINOv2", figure 1.

    Args:
        maps: of one stage of one backbone; their heights and widths may differ.

    Returns:
        Numbers from 0 to 1.

    Raises:
        UserError: there are fewer than three channels.
    """
    channels = maps[0].shape[-1]
    if channels < 3:
        raise UserError(f'three components need at least three channels, not {channels}')
    positions = jnp.concatenate([jnp.asarray(each, jnp.float32).reshape(-1, channels) for each in maps])
    directions, shares = components(positions, 3)
    scores = (positions - positions.mean(0)) @ directions.T
    low, high = jnp.percentile(scores, jnp.array([_CLIPPED, 100 - _CLIPPED]), axis=0)
    there = (shares > _LEAST) & (high > low)
    scaled = jnp.where(there, jnp.clip((scores - low) / jnp.where(there, high - low, 1), 0, 1), 0.5)
    result, start = [], 0
    for each in maps:
        rows, columns = each.shape[:2]
        result.append(scaled[start : start + rows * columns].reshape(rows, columns, 3))
        start += rows * columns
    return result
