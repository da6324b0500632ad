"""Training of attention heads on stored features: every head of a sweep in one compiled program.

All learning rates × weight decays of a subset (seed, fraction) train together under ``vmap``, on the same batches, and
all subsets run through the same compiled program. Subsets are not vmapped as well: the program, and with it the last
bits, would then depend on how many there are, so that the shards of an ablation, or a seed that is added later, would
not give what one run gives. There are more programs only where the heads of a sweep would take more than ``HEAD_BYTES``
(1 GiB), which depends on the config and the shape of the features alone.

Features of up to ``RESIDENT_BYTES`` (1 GiB) go to the device whole. Larger ones stay on disk, memory-mapped, and the
examples of as many steps as fit into ``BLOCK_BYTES`` (256 MiB) are read and moved at a time, while the device works on
the block before.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from experiments.probes import attention_pooling
from experiments.probes.adamw import batch_orders
from experiments.probes.attention_pooling import DECAYED, AttentionHead
from experiments.probes.common import Subset, standardising_factor

RESIDENT_BYTES = 1 << 30
HEAD_BYTES = 1 << 30
BLOCK_BYTES = 1 << 28
# Of the examples that are scored, or read for their mean and variance, at a time.
PART_BYTES = 1 << 25

Scaling = tuple[Float[np.ndarray, ' channels'], Float[np.ndarray, ' channels']]


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Heads that train together.

    Attributes:
        start: the initial head of all.
        choices: learning rate and weight decay of each.
        steps, batch_size: how long, and on how many examples at a time.
        normalisation: one of ``NORMALISATIONS``.
        padded: whether the features are of texts (``attention_pooling``).
    """

    start: AttentionHead
    choices: Sequence[tuple[float, float]]
    steps: int
    batch_size: int
    normalisation: str = 'standardise'
    padded: bool = False


class Source:
    """Features by row: on the device as a whole where they are small, otherwise read when they are needed.

    Args:
        features: an array, or anything that has a shape and reads rows by index.

    Attributes:
        shape: examples, positions and channels.
        example_bytes: size of one example.
        whole: all features on the device, or ``None``.
    """

    def __init__(self, features: Float[np.ndarray, 'examples positions channels']):
        self._features = features
        self.shape = features.shape
        self.example_bytes = 4 * int(np.prod(features.shape[1:]))
        examples = features.shape[0]
        resident = examples * self.example_bytes <= RESIDENT_BYTES
        self.whole = jnp.asarray(features[np.arange(examples)]) if resident else None

    def rows(self, indices: Int[np.ndarray, ' count']) -> Float[Array, 'count positions channels']:
        """The features of some examples, on the device."""
        return jnp.asarray(self._features[indices]) if self.whole is None else self.whole[indices]


def standardisations(
    features: Float[np.ndarray, 'examples positions channels'],
    subsets: Sequence[Subset],
    how: str = 'standardise',
    padded: bool = False,
) -> list[Scaling]:
    """``common.standardisation`` of each subset, over its examples and all their positions.

    Of texts, every one counts alike, however many positions it has beside padding.

    The features are read once, in parts, whatever the number of subsets; what a subset gets does not depend on the
    others.
    """
    examples, positions, channels = features.shape
    zeros, ones = np.zeros(channels, np.float32), np.ones(channels, np.float32)
    if how not in ('standardise', 'centre'):
        return [(zeros, ones)] * len(subsets)
    size = max(1, PART_BYTES // (4 * positions * channels))
    sums = np.zeros((len(subsets), 2, channels))
    members = np.zeros((len(subsets), examples), bool)
    for own, subset in zip(members, subsets, strict=True):
        own[subset.rows] = True
    for start in range(0, examples, size):
        part = members[:, start : start + size]
        chosen = np.flatnonzero(part.any(0))
        values = features[start + chosen]
        # In float64, which holds the squares exactly, the square of the mean may be subtracted from their mean.
        there: Any = True
        if padded:
            there = ~attention_pooling.padding(values)[..., None]
        moments = np.stack([np.mean(each, 1, np.float64, where=there) for each in (values, _squares(values))])
        for total, own in zip(sums, part[:, chosen], strict=True):
            total += moments[:, own].sum(1)
    found = []
    for total, own in zip(sums, members, strict=True):
        mean, square = total / own.sum()
        variance = np.maximum(square - np.square(mean), 0)
        factor = ones if how == 'centre' else standardising_factor(variance).astype(np.float32)
        found.append((mean.astype(np.float32), factor))
    return found


def _squares(values: Float[np.ndarray, '*shape']) -> Float[np.ndarray, '*shape']:
    return np.square(values, dtype=np.float64)


def _normalised(
    features: Float[Array, 'examples positions channels'], scaling: Scaling, how: str
) -> Float[Array, 'examples positions channels']:
    """The features as the heads see them: ``ProbeData.normalised`` of each position, then scaled."""
    if how == 'layer_norm':
        features = features - features.mean(-1, keepdims=True)
    if how in ('l2', 'layer_norm'):
        length = np.sqrt(features.shape[-1]) if how == 'layer_norm' else 1.0
        features = features * (length / jnp.maximum(jnp.linalg.norm(features, axis=-1, keepdims=True), 1e-12))
    return (features - scaling[0]) * scaling[1]


def chunks(
    choices: Sequence[tuple[float, float]], start: AttentionHead, source: Source, batch_size: int
) -> Iterator[Sequence[tuple[float, float]]]:
    """The choices in parts of so many as ``HEAD_BYTES`` hold heads."""
    _, positions, channels = source.shape
    # Parameters, their gradients, updates and two moments; attention and pooled features, forwards and backwards.
    values = 5 * sum(leaf.size for leaf in start) + 3 * batch_size * len(start.queries) * (positions + channels)
    size = max(1, HEAD_BYTES // (4 * values))
    for first in range(0, len(choices), size):
        yield choices[first : first + size]


def _optimizer(rate: Float[Array, ''], decay: Float[Array, ''], steps: int) -> optax.GradientTransformation:
    schedule = optax.cosine_decay_schedule(1.0, steps)
    return optax.adamw(lambda step: rate * schedule(step), weight_decay=decay, mask=DECAYED)


class _State(NamedTuple):
    """Heads in training, and the state of their optimizers; every leaf has a leading axis of heads."""

    heads: AttentionHead
    optimizer: optax.OptState


@functools.partial(jax.jit, static_argnames='steps')
def _begin(start: AttentionHead, rates: Float[Array, ' heads'], decays: Float[Array, ' heads'], steps: int) -> _State:
    return jax.vmap(lambda rate, decay: _State(start, _optimizer(rate, decay, steps).init(start)))(rates, decays)


@functools.partial(jax.jit, static_argnames=('steps', 'normalisation', 'padded'))
def train_block(
    state: _State,
    features: Float[Array, 'rows positions channels'],
    labels: Int[Array, ' rows'],
    order: Int[Array, 'block batch_size'],
    scaling: Scaling,
    rates: Float[Array, ' heads'],
    decays: Float[Array, ' heads'],
    steps: int,
    normalisation: str,
    padded: bool = False,
) -> _State:
    """Take some steps with every head.

    Args:
        state: of all heads.
        features, labels: of the examples in reach.
        order: of every step, its examples among them.
        scaling: mean and factor of each channel.
        rates, decays: learning rate and weight decay of each head.
        steps: of the whole training, for the schedule.
        normalisation: one of ``NORMALISATIONS``.
        padded: whether the features are of texts.
    """

    def step(state: _State, rows: Array) -> tuple[_State, None]:
        # Outside vmap: all heads share their batch.
        x, y = _normalised(features[rows], scaling, normalisation), labels[rows]

        def update(state: _State, rate: Array, decay: Array) -> _State:
            gradients = jax.grad(attention_pooling.loss)(state.heads, x, y, padded)
            updates, optimizer = _optimizer(rate, decay, steps).update(gradients, state.optimizer, state.heads)
            # As ``optax.apply_updates``, which keeps no type.
            return _State(jax.tree.map(jnp.add, state.heads, updates), optimizer)

        return jax.vmap(update)(state, rates, decays), None

    return jax.lax.scan(step, state, order)[0]


def train(
    sweep: Sweep, source: Source, labels: Int[np.ndarray, ' examples'], subset: Subset, scaling: Scaling
) -> AttentionHead:
    """Train the heads of a sweep on a subset.

    The order of the batches is a pure function of the subset's seed. A head that diverges becomes non-finite, and
    leaves the others as they are.

    Returns:
        The heads; every leaf has a leading axis of choices.
    """
    rates, decays = (jnp.asarray(values, jnp.float32) for values in zip(*sweep.choices, strict=True))
    state = _begin(sweep.start, rates, decays, sweep.steps)
    order = batch_orders(subset, sweep.steps, sweep.batch_size)
    before = state
    for features, own_labels, rows in _blocks(source, labels, order):
        # No further ahead than one block, so that no more than two are in memory.
        jax.block_until_ready(before)
        before = state
        state = train_block(
            state, features, own_labels, rows, scaling, rates, decays, sweep.steps, sweep.normalisation, sweep.padded
        )
    return jax.device_get(state.heads)


def _blocks(
    source: Source, labels: Int[np.ndarray, ' examples'], order: Int[np.ndarray, 'steps batch_size']
) -> Iterator[tuple[Array, Array, Int[np.ndarray, 'block batch_size']]]:
    """``(features, labels, order)`` of some steps at a time: of all at once where the features are on the device."""
    steps, batch_size = order.shape
    if source.whole is not None:
        yield source.whole, jnp.asarray(labels), order
        return
    size = min(steps, max(1, BLOCK_BYTES // (batch_size * source.example_bytes)))
    for start in range(0, steps, size):
        block = order[start : start + size]
        # Examples that come again are read once; padded, so that every block has the shapes of one program.
        rows, places = np.unique(block, return_inverse=True)
        rows = np.pad(rows, (0, block.size - len(rows)), mode='edge')
        yield source.rows(rows), jnp.asarray(labels[rows]), places.reshape(block.shape)


@functools.partial(jax.jit, static_argnames=('normalisation', 'padded'))
def _logits(
    heads: AttentionHead,
    features: Float[Array, 'examples positions channels'],
    scaling: Scaling,
    normalisation: str,
    padded: bool,
) -> Float[Array, 'heads examples classes']:
    x = _normalised(features, scaling, normalisation)
    return jax.vmap(lambda head: attention_pooling.logits(head, x, padded))(heads)


def score(
    heads: AttentionHead,
    source: Source,
    rows: Int[np.ndarray, ' examples'],
    scaling: Scaling,
    normalisation: str = 'standardise',
    padded: bool = False,
) -> Float[np.ndarray, 'heads examples classes']:
    """The scores of some examples by every head."""
    size = min(len(rows), max(1, PART_BYTES // source.example_bytes))
    parts = []
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        whole = np.pad(part, (0, size - len(part)), mode='edge')
        parts.append(np.asarray(_logits(heads, source.rows(whole), scaling, normalisation, padded))[:, : len(part)])
    return np.concatenate(parts, axis=1)
