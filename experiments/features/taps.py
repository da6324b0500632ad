"""Table of the places where features are taken from a frozen backbone.

Each tap returns one array per image or text, in float32 whatever type the backbone computes in. All but ``unpooled``
and ``grid`` return vectors, which most heads of ``experiments.probes`` take.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from backbones import inputs
from backbones.errors import UserError, unknown
from backbones.features import Features

# The one that backbones are compared at, and whose pass is measured.
USUAL = 'pooled'
# Arrays that a backbone returns, each under its name: 'pooled', 'tokens', 'stage1', …; of texts always with 'mask'.
Leaves = dict[str, Array]


class Layout(NamedTuple):
    """What the positions of a backbone's arrays are.

    Attributes:
        prefix: number of tokens before those of the patches or of the text.
        mask: which tokens of texts are not padding; ``None`` for images.
    """

    prefix: int = 0
    mask: Bool[Array, 'batch tokens'] | None = None


@dataclasses.dataclass(frozen=True)
class Tap:
    """One way to take features.

    Attributes:
        meaning: a short description.
        leaves: names of the arrays of a backbone's output that the features are taken from.
        take: takes the features from these, given their layout.
        vector: whether an image's features are a vector; otherwise they are a map.
        has: whether a given backbone has the tap.
    """

    meaning: str
    leaves: Callable[[nn.Module], tuple[str, ...]]
    take: Callable[..., Float[Array, 'batch *rest']] = lambda layout, leaf: leaf
    vector: bool = True
    has: Callable[[nn.Module], bool] = lambda module: True


def _stage_count(module: nn.Module) -> int:
    return len(cast(Any, module).stage_channels())


def _stage_names(module: nn.Module) -> tuple[str, ...]:
    return tuple(f'stage{number}' for number in range(1, _stage_count(module) + 1))


def _means(layout: Layout, *maps: Float[Array, 'batch *positions _']) -> Float[Array, 'batch channels']:
    if layout.mask is not None:
        return jnp.concatenate([_mean_of_tokens(each, layout.mask) for each in maps], axis=-1)
    return jnp.concatenate([each.mean((1, 2), dtype=jnp.float32) for each in maps], axis=-1)


def _mean_of_tokens(
    tokens: Float[Array, 'batch tokens channels'], mask: Bool[Array, 'batch tokens'] | None
) -> Float[Array, 'batch channels']:
    if mask is None:
        return tokens.mean(1, dtype=jnp.float32)
    # They are zero at padding.
    return tokens.sum(1, dtype=jnp.float32) / jnp.maximum(mask.sum(1, keepdims=True), 1)


def _stage(number: int) -> 'Tap':
    return Tap(
        f'the mean over the map of stage {number}',
        lambda module: (f'stage{number}',),
        _means,
        has=lambda module: _stage_count(module) >= number,
    )


def _after_prefix(layout: Layout, tokens: Float[Array, 'batch tokens channels']) -> Float[Array, 'batch channels']:
    mask = None if layout.mask is None else layout.mask[:, layout.prefix :]
    return _mean_of_tokens(tokens[:, layout.prefix :], mask)


def _positions(layout: Layout, leaf: Float[Array, 'batch ...']) -> Float[Array, 'batch positions channels']:
    """Those of the patches or of the text among tokens, NaN at padding; or those of a map."""
    if leaf.ndim > 3:
        return leaf.reshape(leaf.shape[0], -1, leaf.shape[-1])
    if layout.mask is not None:
        # A text without any token has one position, of zeros: heads take an example that is NaN for a damaged one.
        there = layout.mask.at[:, layout.prefix].set(True)
        leaf = jnp.where(there[..., None], leaf, jnp.nan)
    return leaf[:, layout.prefix :]


def _last(module: nn.Module) -> tuple[str, ...]:
    """The tokens after the last normalisation, or the map of the last stage."""
    return ('tokens',) if _has_tokens(module) else _stage_names(module)[-1:]


def _has_tokens(module: nn.Module) -> bool:
    return hasattr(module, 'prefix_tokens')


def _has_class_token(module: nn.Module) -> bool:
    return _has_tokens(module) and getattr(module, 'prefix', ())[:1] == ('class_token',)


TAPS: dict[str, Tap] = {
    # With what it is pooled from: if this were an output for some taps alone, they would decide whether XLA fuses the
    # pooling with what precedes it, and so on its last bits.
    USUAL: Tap(
        'what the classifier of the reference sees',
        lambda module: ('pooled', *_last(module)),
        lambda layout, pooled, last: pooled,
    ),
    'stages': Tap('the mean over each stage, concatenated from the first to the last', _stage_names, _means),
    # As many as the deepest registered backbone has.
    **{f'stage{number}': _stage(number) for number in range(1, 7)},
    'class_token': Tap(
        'the class token after the last normalisation',
        lambda module: ('tokens',),
        lambda layout, tokens: tokens[:, 0],
        has=_has_class_token,
    ),
    'mean_tokens': Tap(
        'the mean of the tokens of patches after the last normalisation, or of those of a text after the class token',
        lambda module: ('tokens',),
        _after_prefix,
        has=_has_tokens,
    ),
    'unpooled': Tap(
        'the map of the last stage',
        lambda module: _stage_names(module)[-1:],
        vector=False,
        has=lambda module: not inputs.reads_texts(module),
    ),
    'grid': Tap(
        'the positions of the last map, row by row: tokens of patches (or of a text) after the last normalisation, or '
        'the last stage',
        _last,
        _positions,
        vector=False,
    ),
}


def offered(module: nn.Module) -> list[str]:
    """The taps that a backbone has."""
    return [name for name, row in TAPS.items() if row.has(module)]


def check(name: str, module: nn.Module, tap: str, vectors: bool = False) -> None:
    """Check that a backbone has a tap.

    Args:
        name: name of the backbone, for the message.
        module: the backbone.
        tap: name of the tap.
        vectors: whether the features must be vectors.

    Raises:
        UserError: there is no such tap, the backbone does not have it (those that it has are named), or its features
            are not vectors.
    """
    if tap not in TAPS:
        raise unknown('tap', tap, TAPS)
    possible = [each for each in offered(module) if TAPS[each].vector or not vectors]
    if tap not in possible:
        why = 'has no' if not TAPS[tap].has(module) else 'has no vectors for heads at the'
        raise UserError(f'{name} {why} tap {tap!r}; it has {", ".join(map(repr, possible))} (config key tap)')


def trunk(module: nn.Module, *names: str) -> Callable[[Any, Array], Leaves]:
    """``apply(variables, images)`` in inference mode → what some taps take their features from.

    A compiled trunk is a program apart from what is taken (``take``): compiled together, the mean over a map may be
    fused with what precedes it, and its last bits would depend on the other taps.
    """
    leaves = dict.fromkeys(leaf for name in names for leaf in TAPS[name].leaves(module))

    def apply(variables: Any, images: Array) -> Leaves:
        features = cast(Features, module.apply(variables, images, train=False))
        found: dict[str, Any] = {**features.stages, 'pooled': features.pooled, 'tokens': features.tokens}
        masked = {} if features.mask is None else {'mask': features.mask}
        return {leaf: found[leaf] for leaf in leaves} | masked

    return apply


def take(module: nn.Module, name: str) -> Callable[[Leaves], Float[Array, 'batch *rest']]:
    """Take the features of one tap, in float32, from what a trunk gives."""
    row, prefix = TAPS[name], cast(Any, module).prefix_tokens() if _has_tokens(module) else 0

    def taken(leaves: Leaves) -> Array:
        layout = Layout(prefix, leaves.get('mask'))
        return row.take(layout, *(leaves[leaf] for leaf in row.leaves(module))).astype(jnp.float32)

    return taken


def tapped(module: nn.Module, name: str) -> Callable[[Any, Array], Array]:
    """``apply(variables, images) → float32[batch, …]`` in inference mode."""
    compute, taken = trunk(module, name), take(module, name)
    return lambda variables, images: taken(compute(variables, images))


def channels(module: nn.Module, tap: str, size: tuple[int, ...]) -> int:
    """Number of channels of a tap's features; nothing is computed."""
    return shape(module, tap, size)[-1]


def shape(module: nn.Module, tap: str, size: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of a tap's features of one input; nothing is computed."""
    images = inputs.spec(size)
    variables = jax.eval_shape(module.init, jax.random.key(0), images)
    return jax.eval_shape(tapped(module, tap), variables, images).shape[1:]
