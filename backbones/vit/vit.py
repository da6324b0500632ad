"""Vision transformers: ViT, DeiT, DINOv2, DINOv3, EVA-02, and the image towers of CLIP, SigLIP and SigLIP 2.

Sources: Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words"; Steiner et al. 2022, "How to train your ViT?";
Touvron et al. 2021, "Training data-efficient image transformers & distillation through attention"; Oquab et al. 2024,
"DINOv2"; Darcet et al. 2024, "Vision Transformers Need Registers"; Siméoni et al. 2025, "DINOv3"; Fang et al. 2023,
"EVA-02: A Visual Representation for Neon Genesis"; Radford et al. 2021, "Learning Transferable Visual Models From
Natural Language Supervision"; Zhai et al. 2023, "Sigmoid Loss for Language Image Pre-Training"; Tschannen et al. 2025,
"SigLIP 2", whose image towers for one size of images are those of SigLIP. Built as timm's ``vision_transformer.py``
builds them, whose own ViTs with registers and without a class token are among them, and DINOv3 and EVA-02 as its
``eva.py`` does.
"""

import itertools
from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from backbones.errors import UserError, unknown
from backbones.features import Features, quarters
from backbones.layers.attention import (
    AttentionPooling,
    Dense,
    FeedForward,
    SelfAttention,
    check_heads,
    truncated_normal,
)
from backbones.layers.normalisation import LayerNorm
from backbones.layers.positions import resample_positions, table_for
from backbones.layers.regularisation import LayerScale, StochasticDepth
from backbones.layers.rotary import Rotation, rotation_for
from backbones.vit.embedding import PatchEmbedding

# Way to pool → the tokens that must come first.
POOLINGS = {
    'token': ('class_token',),
    'distillation': ('class_token', 'distillation_token'),
    'average': (),
    'attention': (),
}


class Block(nn.Module):
    """Pre-norm attention and feed-forward, each added to its input.

    Attributes:
        heads: attention heads.
        epsilon: constant that the normalisations add to the variance.
        activation: name of the activation in the feed-forward layers.
        layer_scale: initial value of a factor per channel on both branches; ``None`` for no factors.
        mlp_ratio: channels inside the feed-forward layers as a multiple of those outside, rounded down.
        stochastic_depth: rate at which either branch is dropped while training.
        dtype: type of the computation.
        attention_biases, gated, hidden_norm: as for the whole network.
    """

    heads: int
    epsilon: float = 1e-6
    activation: str = 'gelu'
    layer_scale: float | None = None
    mlp_ratio: float = 4.0
    stochastic_depth: float = 0.0
    dtype: jnp.dtype = jnp.float32
    attention_biases: str = 'all'
    gated: bool = False
    hidden_norm: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, 'batch tokens channels'], train: bool = False, rotation: Rotation | None = None
    ) -> Float[Array, 'batch tokens channels']:
        attention = partial(
            SelfAttention(self.heads, self.dtype, self.attention_biases, name='attention'), rotation=rotation
        )
        hidden, norm = int(self.mlp_ratio * x.shape[-1]), self.epsilon if self.hidden_norm else None
        feed_forward = FeedForward(hidden, self.dtype, self.activation, self.gated, norm, name='mlp')
        for number, layer in enumerate((attention, feed_forward), start=1):
            y = layer(LayerNorm(self.epsilon, self.dtype, name=f'norm{number}')(x))
            if self.layer_scale is not None:
                y = LayerScale(self.layer_scale, self.dtype, name=f'layer_scale{number}')(y)
            x = x + StochasticDepth(self.stochastic_depth)(y, train=train)
        return x


class Stage(nn.Module):
    """About a quarter of the depth: one block per rate of stochastic depth."""

    block: Callable[..., Block]
    rates: tuple[float, ...]

    @nn.compact
    def __call__(
        self, x: Float[Array, 'batch tokens channels'], train: bool = False, rotation: Rotation | None = None
    ) -> Float[Array, 'batch tokens channels']:
        for number, rate in enumerate(self.rates, start=1):
            x = self.block(stochastic_depth=rate, name=f'block{number}')(x, train=train, rotation=rotation)
        return x


class VisionTransformer(nn.Module):
    """Patches with tokens in front of them, positions, blocks, a final normalisation, and pooling.

    The table of positions is resampled in the forward pass where images have another size than it was made for; rotary
    positions take any size.

    Attributes:
        patch: side of a patch in pixels.
        channels: width of the transformer.
        depth: number of blocks; at least four. A stage ends after the block at each quarter of it, rounded up.
        heads: attention heads.
        prefix: names of the learned tokens in front of the patches; each has a position of its own in the table.
        registers: number of further tokens, without positions, between those and the patches.
        masked_pretraining: whether to keep the mask token of DINOv2's pretraining, which nothing else uses.
        patch_bias: whether the patch embedding has a bias.
        pad: whether images are padded to whole patches with zeros on the right and at the bottom.
        pre_norm: whether there is a normalisation before the first block too (CLIP).
        layer_scale: initial value of the factors on the residual branches; ``None`` for no factors.
        mlp_ratio: channels inside the feed-forward layers as a multiple of ``channels``, rounded down.
        activation: that of the feed-forward layers, a name of ``layers.activations``.
        epsilon: constant that every normalisation adds to the variance.
        pooling: ``'token'`` (the class token), ``'distillation'`` (the mean of the class and the distillation token),
            ``'average'`` (the mean of the patches) or ``'attention'`` (a learned query over the patches).
        norm_after_pooling: whether the final normalisation sees the mean of the patches, and not each token; tokens
            are then those of the last block. Only with ``'average'``.
        projected_channels: channels that pooled features are projected to, without a bias; ``None`` for no projection.
        position_method: how positions are resampled, a name of ``layers.positions.METHODS``.
        position_grid: side of the table of positions, in patches; ``None`` takes the grid of the images that the
            parameters are made or loaded for.
        position_table: whether there is a table of learned positions, which is added to the tokens.
        rotary: whose rotary positions turn queries and keys of the patches, a name of ``layers.rotary.METHODS``;
            ``None`` for none.
        attention_biases: which of queries, keys and values have a bias, a name of ``layers.attention.BIASES``.
        gated: whether the feed-forward layers are gated (SwiGLU with ``activation='silu'``).
        hidden_norm: whether there is a normalisation between the feed-forward layers (EVA-02 from the base size on).
        stochastic_depth: rate of the last block while training; it rises linearly from zero at the first.
        dtype: type of the computation.

    Raises:
        UserError: an image that is not a multiple of the patch (without ``pad``) or to which positions cannot be
            resampled, a depth of less than four, a way to pool that does not exist, lacks its tokens or is not followed
            by a normalisation, an unknown activation, way to resample, kind of rotary positions or choice of biases,
            channels that do not divide into the heads, or heads whose channels rotary positions cannot turn.
    """

    patch: int
    channels: int
    depth: int
    heads: int
    prefix: tuple[str, ...] = ('class_token',)
    registers: int = 0
    masked_pretraining: bool = False
    patch_bias: bool = True
    pad: bool = False
    pre_norm: bool = False
    layer_scale: float | None = None
    mlp_ratio: float = 4.0
    activation: str = 'gelu'
    epsilon: float = 1e-6
    pooling: str = 'token'
    norm_after_pooling: bool = False
    projected_channels: int | None = None
    position_method: str = 'timm'
    position_grid: int | None = None
    stochastic_depth: float = 0.0
    dtype: jnp.dtype = jnp.float32
    position_table: bool = True
    rotary: str | None = None
    attention_biases: str = 'all'
    gated: bool = False
    hidden_norm: bool = False

    def stage_channels(self) -> tuple[int, ...]:
        """Channels of each stage's output."""
        return (self.channels,) * 4

    def stage_strides(self) -> tuple[int, ...]:
        """Input pixels per step of each stage's map."""
        return (self.patch,) * 4

    def pooled_channels(self) -> int:
        """Channels of ``Features.pooled``."""
        return self.projected_channels or self.channels

    def stage_depths(self) -> tuple[int, ...]:
        """Blocks of each stage."""
        return quarters(self.depth)

    def prefix_tokens(self) -> int:
        """How many of ``Features.tokens`` come before the patches."""
        return len(self.prefix) + self.registers

    def resize_parameter(
        self, path: str, array: np.ndarray, shape: tuple[int, ...], image_size: tuple[int, int]
    ) -> np.ndarray | None:
        """The position table for images of another height and width, resampled; ``None`` for anything else."""
        if path != 'position_embedding' or array.shape[2] != shape[2] or self.position_grid is not None:
            return None
        rows, columns = ((-(-side // self.patch) if self.pad else side // self.patch) for side in image_size)
        return table_for(array, (rows, columns), len(self.prefix), self.position_method)

    @nn.compact
    def __call__(self, images: Float[Array, 'batch height width channels'], train: bool = False) -> Features:
        self._check_options()
        embed = PatchEmbedding(self.patch, self.channels, self.patch_bias, self.pad, self.dtype, name='patch_embedding')
        x = embed(images)
        batch, rows, columns, channels = x.shape
        x = self._with_tokens_and_positions(x.reshape(batch, rows * columns, channels), (rows, columns))
        if self.pre_norm:
            x = LayerNorm(self.epsilon, self.dtype, name='norm_pre')(x)
        width = self.channels // self.heads
        rotation = None if self.rotary is None else rotation_for(self.rotary, (rows, columns), width)
        block = partial(
            Block,
            self.heads,
            self.epsilon,
            self.activation,
            self.layer_scale,
            self.mlp_ratio,
            dtype=self.dtype,
            attention_biases=self.attention_biases,
            gated=self.gated,
            hidden_norm=self.hidden_norm,
        )
        rates = iter(np.linspace(0, self.stochastic_depth, self.depth).tolist())
        stages = {}
        for number, depth in enumerate(self.stage_depths(), start=1):
            name = f'stage{number}'
            x = Stage(block, tuple(itertools.islice(rates, depth)), name=name)(x, train=train, rotation=rotation)
            stages[name] = x[:, self.prefix_tokens() :].reshape(batch, rows, columns, channels)
        norm = LayerNorm(self.epsilon, self.dtype, name='norm')
        if self.norm_after_pooling:
            return Features(stages=stages, pooled=norm(self._pooled(x)), tokens=x)
        tokens = norm(x)
        return Features(stages=stages, pooled=self._pooled(tokens), tokens=tokens)

    def _check_options(self) -> None:
        if self.depth < 4:
            raise UserError(f'the depth of a vision transformer must be at least 4, not {self.depth}')
        check_heads(self.heads, self.channels)
        if self.pooling not in POOLINGS:
            raise unknown('way to pool', self.pooling, POOLINGS)
        needed = POOLINGS[self.pooling]
        if self.prefix[: len(needed)] != needed:
            raise UserError(
                f"pooling={self.pooling!r} needs prefix={needed}, not {self.prefix}; pooling='average' needs no token"
            )
        if self.norm_after_pooling and self.pooling != 'average':
            raise UserError(
                f"norm_after_pooling needs pooling='average', not {self.pooling!r}; norm_after_pooling=False "
                'normalises each token'
            )

    def _with_tokens_and_positions(self, x: Array, grid: tuple[int, int]) -> Array:
        def repeated(name: str, count: int = 1) -> Array:
            initialiser = truncated_normal if name == 'distillation_token' else nn.initializers.normal(1e-6)
            token = self.param(name, initialiser, (1, count, self.channels), jnp.float32)
            return jnp.broadcast_to(token.astype(self.dtype), (x.shape[0], count, self.channels))

        if self.masked_pretraining:
            self.param('mask_token', nn.initializers.zeros, (1, self.channels), jnp.float32)
        x = jnp.concatenate([*map(repeated, self.prefix), x], axis=1)
        if self.position_table:
            x = x + self._positions(grid)
        if self.registers:
            before, after = jnp.split(x, [len(self.prefix)], axis=1)
            x = jnp.concatenate([before, repeated('register_tokens', self.registers), after], axis=1)
        return x

    def _positions(self, grid: tuple[int, int]) -> Array:
        """The table of positions for a grid, whatever grid the stored one was made for."""
        prefix = len(self.prefix)
        if self.has_variable('params', 'position_embedding'):
            # Read as it is stored: ``param`` would insist on the shape that these images imply.
            table = self.get_variable('params', 'position_embedding')
        else:
            rows, columns = (self.position_grid,) * 2 if self.position_grid else grid
            shape = (1, prefix + rows * columns, self.channels)
            table = self.param('position_embedding', truncated_normal, shape, jnp.float32)
        return resample_positions(table, grid, prefix, self.position_method).astype(self.dtype)

    def _pooled(self, tokens: Array) -> Array:
        patches = tokens[:, self.prefix_tokens() :]
        if self.pooling == 'attention':
            pooling = AttentionPooling(
                self.heads, self.epsilon, self.activation, self.dtype, self.mlp_ratio, name='attention_pooling'
            )
            pooled = pooling(patches)
        elif self.pooling == 'average':
            pooled = patches.mean(1, dtype=jnp.float32).astype(self.dtype)
        else:
            pooled = tokens[:, : len(POOLINGS[self.pooling])].mean(1, dtype=jnp.float32).astype(self.dtype)
        if self.projected_channels is None:
            return pooled
        initialiser = nn.initializers.normal(self.channels**-0.5)
        project = Dense(self.projected_channels, initialiser, self.dtype, use_bias=False, name='projection')
        return project(pooled)
