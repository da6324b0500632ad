"""A head that pools positions by attention: multi-query cross-attention, then a linear classifier.

Efficient probing (Psomas et al., "Attention, Please! Revisiting Attentive Probing Through the Lens of Efficiency", ICLR
2026, arXiv 2506.10178; ``poolings/ep.py`` of billpsomas/efficient-probing). For positions ``x_p`` in R^C, query ``q_m``
gives each of them a weight, and its own columns ``V_m`` of one matrix of values project what it pools::

    a_m = softmax_p(x_p · q_m / √C)          y = [Σ_p a_mp x_p V_m  for all m]          logits = y W + b

Queries are learned, keys are the positions themselves, and nothing is projected after the values: of multi-head
cross-attention (as in CAE, CoCa, AIM and V-JEPA) this leaves out the projections of queries, keys and outputs, which
hold most of its parameters. A query is what a head is there. Since values are linear in the positions, positions are
pooled before they are projected, as above, which takes far fewer products than the other order and gives the same.

Of texts, last positions that are NaN are padding of those that are shorter than others (``padded``), and no query takes
anything of them. NaN elsewhere is what a damaged backbone gives: the head becomes NaN, too. For images, which have no
padding, the head is a program of its own: to leave nothing out would change its last bits.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

# Standard deviation of the initial queries, as in the reference: attention begins close to the mean.
_QUERY_DEVIATION = 0.02


class AttentionHead(NamedTuple):
    """The parameters of a head.

    Attributes:
        queries: learned vectors that are compared with the positions.
        values: of each query, the projection of what it pools; ``channels // queries`` columns, but at least one.
        kernel, bias: the linear classifier.
    """

    queries: Float[np.ndarray | Array, 'queries channels']
    values: Float[np.ndarray | Array, 'queries channels width']
    kernel: Float[np.ndarray | Array, 'queries*width classes']
    bias: Float[np.ndarray | Array, ' classes']


# Decay takes queries to the mean over all positions, and the rest to no preference among the classes.
DECAYED = AttentionHead(queries=True, values=True, kernel=True, bias=False)  # ty: ignore[invalid-argument-type]


def width(queries: int, channels: int) -> int:
    """Channels that each query contributes to the pooled features, so that all have about as many as a position."""
    return max(1, channels // queries)


def initial(seed: int, queries: int, channels: int, num_classes: int) -> AttentionHead:
    """A head that gives all classes equal scores: a pure function of the seed, the same on every platform."""
    generator = np.random.Generator(np.random.Philox(key=[seed, 2]))
    columns = width(queries, channels)

    def normal(*shape: int) -> Float[np.ndarray, '...']:
        return generator.standard_normal(shape, np.float32)

    return AttentionHead(
        queries=_QUERY_DEVIATION * normal(queries, channels),
        values=normal(queries, channels, columns) / np.float32(np.sqrt(channels)),
        kernel=np.zeros((queries * columns, num_classes), np.float32),
        bias=np.zeros(num_classes, np.float32),
    )


def padding(
    positions: Float[np.ndarray | Array, '... positions channels'],
) -> Bool[np.ndarray | Array, '... positions']:
    """Which positions are padding: those that are NaN up to the last one, if the first is not."""
    nan = (positions != positions).all(-1)
    return nan[..., ::-1].cumprod(-1)[..., ::-1].astype(bool) & ~nan[..., :1]


def attention(
    head: AttentionHead, positions: Float[Array, 'examples positions channels'], padded: bool = False
) -> Float[Array, 'examples queries positions']:
    """How much of each position every query takes; the sum over positions is one, and padding takes nothing."""
    there = _without_padding(positions) if padded else positions
    similarity = jnp.einsum('npc,qc->nqp', there, head.queries) / np.sqrt(positions.shape[-1])
    if padded:
        similarity = jnp.where(padding(positions)[:, None], jnp.finfo(similarity.dtype).min, similarity)
    return jax.nn.softmax(similarity)


def _without_padding(positions: Float[Array, '... channels']) -> Float[Array, '... channels']:
    # A head's gradient would be NaN where a weight of zero meets one.
    return jnp.where(padding(positions)[..., None], 0, positions)


def logits(
    head: AttentionHead, positions: Float[Array, 'examples positions channels'], padded: bool = False
) -> Float[Array, 'examples classes']:
    """The head's score of each class; the order of the positions does not matter, nor does padding."""
    there = _without_padding(positions) if padded else positions
    pooled = jnp.einsum('nqp,npc->nqc', attention(head, positions, padded), there)
    projected = jnp.einsum('nqc,qcw->nqw', pooled, head.values)
    return projected.reshape(len(positions), -1) @ head.kernel + head.bias


def loss(
    head: AttentionHead,
    positions: Float[Array, 'examples positions channels'],
    labels: Int[Array, ' examples'],
    padded: bool = False,
) -> Float[Array, '']:
    """The mean cross-entropy."""
    return optax.softmax_cross_entropy_with_integer_labels(logits(head, positions, padded), labels).mean()


def parameters(queries: int, channels: int, num_classes: int) -> int:
    """Number of trainable parameters: ``MC + MCw + (Mw + 1)K`` for M queries of width w and K classes."""
    columns = width(queries, channels)
    return queries * channels + queries * channels * columns + (queries * columns + 1) * num_classes
