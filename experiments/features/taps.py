"""Table of the places where features are taken from a frozen backbone.

Each tap returns one array per image, in float32 whatever type the backbone computes in. All but ``unpooled`` and
``grid`` return vectors, which most heads of ``experiments.probes`` take.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from backbones.errors import UserError, unknown
from backbones.features import Features


@dataclasses.dataclass(frozen=True)
class Tap:
    """One way to take features.

    Attributes:
        meaning: a short description.
        take: takes the features from the backbone's output, given the number of tokens before those of the patches.
        vector: whether an image's features are a vector; otherwise they are a map.
        has: whether a given backbone has the tap.
    """

    meaning: str
    take: Callable[[Features, int], Float[Array, 'batch *rest']]
    vector: bool = True
    has: Callable[[nn.Module], bool] = lambda module: True


def _stages(features: Features, prefix: int) -> Float[Array, 'batch channels']:
    maps = [features.stages[name] for name in sorted(features.stages, key=lambda name: int(name.removeprefix('stage')))]
    return jnp.concatenate([each.mean((1, 2), dtype=jnp.float32) for each in maps], axis=-1)


def _stage(number: int) -> 'Tap':
    return Tap(
        f'the mean over the map of stage {number}',
        lambda features, prefix: features.stages[f'stage{number}'].mean((1, 2), dtype=jnp.float32),
        has=lambda module: len(cast(Any, module).stage_channels()) >= number,
    )


def _tokens(features: Features) -> Float[Array, 'batch tokens channels']:
    assert features.tokens is not None, 'a tap of tokens is only offered by backbones that have them'
    return features.tokens


def _grid(features: Features, prefix: int) -> Float[Array, 'batch positions channels']:
    if features.tokens is not None:
        return features.tokens[:, prefix:]
    last = features.stages[f'stage{len(features.stages)}']
    return last.reshape(last.shape[0], -1, last.shape[-1])


def _has_tokens(module: nn.Module) -> bool:
    return hasattr(module, 'prefix_tokens')


def _has_class_token(module: nn.Module) -> bool:
    return _has_tokens(module) and getattr(module, 'prefix', ())[:1] == ('class_token',)


TAPS: dict[str, Tap] = {
    'pooled': Tap('what the classifier of the reference sees', lambda features, prefix: features.pooled),
    'stages': Tap('the mean over each stage, concatenated from the first to the last', _stages),
    # As many as the deepest registered backbone has.
    **{f'stage{number}': _stage(number) for number in range(1, 7)},
    'class_token': Tap(
        'the class token after the last normalisation',
        lambda features, prefix: _tokens(features)[:, 0],
        has=_has_class_token,
    ),
    'mean_tokens': Tap(
        'the mean of the tokens of patches after the last normalisation',
        lambda features, prefix: _tokens(features)[:, prefix:].mean(1, dtype=jnp.float32),
        has=_has_tokens,
    ),
    'unpooled': Tap(
        'the map of the last stage',
        lambda features, prefix: features.stages[f'stage{len(features.stages)}'],
        vector=False,
    ),
    'grid': Tap(
        'the positions of the last map, row by row: tokens of patches after the last normalisation, or the last stage',
        _grid,
        vector=False,
    ),
}


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
    offered = [each for each, row in TAPS.items() if row.has(module) and (row.vector or not vectors)]
    if tap not in offered:
        why = 'has no' if not TAPS[tap].has(module) else 'has no vectors for heads at the'
        raise UserError(f'{name} {why} tap {tap!r}; it has {", ".join(map(repr, offered))} (config key tap)')


def tapped(module: nn.Module, tap: str) -> Callable[[Any, Array], Array]:
    """``apply(variables, images) → float32[batch, …]`` in inference mode."""
    row, prefix = TAPS[tap], module.prefix_tokens() if _has_tokens(module) else 0

    def apply(variables: Any, images: Array) -> Array:
        features = cast(Features, module.apply(variables, images, train=False))
        return row.take(features, prefix).astype(jnp.float32)

    return apply


def channels(module: nn.Module, tap: str, size: tuple[int, int]) -> int:
    """Number of channels of a tap's features; nothing is computed."""
    return shape(module, tap, size)[-1]


def shape(module: nn.Module, tap: str, size: tuple[int, int]) -> tuple[int, ...]:
    """Shape of a tap's features of one image; nothing is computed."""
    images = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), images)
    return jax.eval_shape(tapped(module, tap), variables, images).shape[1:]
