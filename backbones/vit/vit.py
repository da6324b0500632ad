"""Vision Transformer with pre-normalisation and a class token, as timm's ``vision_transformer.py`` builds it.

Source: Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words"; Steiner et al. 2022, "How to train your ViT?".
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from backbones.errors import UserError
from backbones.features import Features
from backbones.layers.attention import FeedForward, SelfAttention, truncated_normal
from backbones.layers.convolution import patch_embedding
from backbones.layers.normalisation import LayerNorm
from backbones.layers.positions import resample_positions


class Block(nn.Module):
    """Attention and feed-forward, each normalised first and added to its input."""

    heads: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, 'batch tokens channels']) -> Float[Array, 'batch tokens channels']:
        y = LayerNorm(dtype=self.dtype, name='norm1')(x)
        x = x + SelfAttention(self.heads, self.dtype, name='attention')(y)
        y = LayerNorm(dtype=self.dtype, name='norm2')(x)
        return x + FeedForward(4 * x.shape[-1], self.dtype, name='mlp')(y)


class Stage(nn.Module):
    """A quarter of the depth."""

    depth: int
    heads: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, 'batch tokens channels']) -> Float[Array, 'batch tokens channels']:
        for index in range(self.depth):
            x = Block(self.heads, self.dtype, name=f'block{index + 1}')(x)
        return x


class PatchEmbedding(nn.Module):
    """Non-overlapping patches, each mapped linearly to the transformer's width."""

    patch: int
    channels: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images: Float[Array, 'b height width c']) -> Float[Array, 'b rows columns channels']:
        shape = (self.patch, self.patch, images.shape[-1], self.channels)
        kernel = self.param('kernel', nn.initializers.lecun_normal(), shape, jnp.float32)
        bias = self.param('bias', nn.initializers.zeros, (self.channels,), jnp.float32)
        return patch_embedding(images.astype(self.dtype), kernel.astype(self.dtype)) + bias.astype(self.dtype)


class VisionTransformer(nn.Module):
    """Patches, a class token, learned positions, blocks, and a final normalisation.

    Attributes:
        patch: side of a patch in pixels.
        channels: width of the transformer.
        depth: number of blocks; a multiple of four, so that every stage is a quarter.
        heads: attention heads.
        dtype: type of the computation.

    Raises:
        UserError: the image is no multiple of the patch, or the depth no multiple of four.
    """

    patch: int
    channels: int
    depth: int
    heads: int
    dtype: jnp.dtype = jnp.float32

    def stage_channels(self) -> tuple[int, ...]:
        """Channels of each stage's output."""
        return (self.channels,) * 4

    def stage_strides(self) -> tuple[int, ...]:
        """Input pixels per step of each stage's map."""
        return (self.patch,) * 4

    def pooled_channels(self) -> int:
        """Channels of ``Features.pooled``."""
        return self.channels

    def prefix_tokens(self) -> int:
        """How many of ``Features.tokens`` come before the patches."""
        return 1

    def resize_parameter(self, path: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
        """The position table of another image size, resampled; ``None`` for anything else."""
        if path != 'position_embedding' or array.shape[2] != shape[2]:
            return None
        side = round(max(shape[1] - 1, 0) ** 0.5)
        try:
            return np.asarray(resample_positions(array, (side, side), prefix=1))
        except ValueError:
            return None

    @nn.compact
    def __call__(self, images: Float[Array, 'batch height width channels'], train: bool = False) -> Features:
        batch, height, width, _ = images.shape
        if height % self.patch or width % self.patch:
            nearest = [max(round(side / self.patch), 1) * self.patch for side in (height, width)]
            raise UserError(
                f'images of {height}x{width} pixels do not divide into patches of {self.patch}; '
                f'the nearest size that does is {nearest[0]}x{nearest[1]}'
            )
        if self.depth % 4:
            raise UserError(f'the depth of a vision transformer must be a multiple of 4, not {self.depth}')
        x = PatchEmbedding(self.patch, self.channels, self.dtype, name='patch_embedding')(images)
        rows, columns = x.shape[1:3]
        x = x.reshape(batch, rows * columns, self.channels)
        class_token = self.param('class_token', nn.initializers.normal(1e-6), (1, 1, self.channels), jnp.float32)
        x = jnp.concatenate([jnp.broadcast_to(class_token.astype(self.dtype), (batch, 1, self.channels)), x], axis=1)
        position_shape = (1, 1 + rows * columns, self.channels)
        x = x + self.param('position_embedding', truncated_normal, position_shape, jnp.float32).astype(self.dtype)
        stages = {}
        for index in range(4):
            name = f'stage{index + 1}'
            x = Stage(self.depth // 4, self.heads, self.dtype, name=name)(x)
            stages[name] = x[:, 1:].reshape(batch, rows, columns, self.channels)
        tokens = LayerNorm(dtype=self.dtype, name='norm')(x)
        return Features(stages=stages, pooled=tokens[:, 0], tokens=tokens)
