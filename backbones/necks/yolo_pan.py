"""The neck of YOLO11 and YOLO26: from coarse to fine and back, by concatenation, with a C3k2 after each.

Source: layers 11 to 22 of ultralytics/cfg/models/{11/yolo11,26/yolo26}.yaml, ultralytics/nn/modules/block.py. The neck
of the paper that this one is named after, where maps are added, is ``pan.py``.
"""

import itertools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from backbones.cnn.yolo import C3k2, convolution
from backbones.errors import UserError
from backbones.features import Features
from backbones.layers.resizing import resize
from backbones.necks.levels import Level, gather

# Fewer would leave the innermost convolutions without any.
_FEWEST = 4


class YOLOPAN(nn.Module):
    """The coarsest map is doubled by nearest neighbour, joined with the next one and put through a C3k2, and so on.

    The way back halves by strided 3x3 convolutions. The finest level is the last map of the first way. The defaults are
    YOLO26n's; YOLO11n has ``nested=False, attention=False``.

    Attributes:
        levels: see ``necks.levels``.
        channels: channels of the finest level; every coarser one has twice as many, up to ``max_channels``.
        max_channels: channels of no level are more; ``None``: four times ``channels``.
        depth: blocks per C3k2.
        nested: whether all blocks are C3ks; otherwise only those of the coarsest level are.
        attention: whether the C3k2 of the coarsest level has one block, of a bottleneck and attention.
        head_channels: channels per attention head; more where the branch does not divide into such heads.
        activation: name of the activation after every convolution that is not linear.
        epsilon, momentum: those of every BatchNorm.
        dtype: type of the computation.

    Raises:
        UserError: fewer than four channels, or ``max_channels`` below ``channels``.
    """

    levels: tuple[Level, ...]
    channels: int = 64
    max_channels: int | None = None
    depth: int = 1
    nested: bool = True
    attention: bool = True
    head_channels: int = 64
    activation: str = 'silu'
    epsilon: float = 1e-3
    momentum: float = 0.97
    dtype: jnp.dtype = jnp.float32

    def level_channels(self) -> tuple[int, ...]:
        """Channels of each level, from fine to coarse."""
        most = 4 * self.channels if self.max_channels is None else self.max_channels
        if self.channels < _FEWEST or most < self.channels:
            raise UserError(
                f'the neck needs channels of at least {_FEWEST} and max_channels of at least channels, not '
                f'channels={self.channels} and max_channels={most}'
            )
        return tuple(min(self.channels * 2**index, most) for index in range(len(self.levels)))

    @nn.compact
    def __call__(self, features: Features, train: bool = False) -> dict[str, Float[Array, 'batch rows columns c']]:
        """The maps by the names of their levels, from fine to coarse."""
        conv = convolution(self.activation, self.epsilon, self.momentum, self.dtype)
        maps = gather(self.levels, features)
        names, channels = list(maps), dict(zip(maps, self.level_channels(), strict=True))
        inner = {names[-1]: maps[names[-1]].astype(self.dtype)}
        for coarser, name in itertools.pairwise(reversed(names)):
            x = maps[name].astype(self.dtype)
            joined = jnp.concatenate([resize(inner[coarser], x.shape[1:3], 'nearest'), x], axis=-1)
            width = channels[name]
            block = C3k2(width, width // 2, self.depth, self.nested, conv, name=f'inner{name[1:]}')
            inner[name] = block(joined, train=train)
        outputs = {names[0]: inner[names[0]]}
        for finer, name in itertools.pairwise(names):
            down = conv(channels[finer], 3, 2, name=f'down{name[1:]}')(outputs[finer], train=train)
            x = inner[name]
            # A backbone that rounds odd sizes down has a smaller map than the strided convolution.
            joined = jnp.concatenate([resize(down, x.shape[1:3], 'nearest'), x], axis=-1)
            outputs[name] = self._output(name, channels[name], conv)(joined, train=train)
        if len(names) == 1:
            # There is nothing to join, but the level has its channels all the same.
            outputs[names[0]] = self._output(names[0], channels[names[0]], conv)(inner[names[0]], train=train)
        return outputs

    def _output(self, name: str, channels: int, conv) -> C3k2:
        last, branch = name == self.levels[-1].name, channels // 2
        heads = None
        if last and self.attention:
            count = next(count for count in range(max(branch // self.head_channels, 1), 0, -1) if branch % count == 0)
            heads = branch // count
        depth = 1 if heads else self.depth
        return C3k2(channels, branch, depth, self.nested or last, conv, heads, name=f'output{name[1:]}')
