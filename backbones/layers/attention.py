"""Multi-head attention, over all tokens or inside windows, attention pooling, and the feed-forward block."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from backbones.errors import UserError, unknown
from backbones.layers.activations import activation
from backbones.layers.fused_attention import fused
from backbones.layers.normalisation import GlobalResponseNorm, LayerNorm
from backbones.layers.rotary import Rotation, rotated

truncated_normal = nn.initializers.truncated_normal(0.02)

# Up to so many queries XLA's CPU compiler takes attention head by head, with the scores in the cache; of more it writes
# all scores to memory, which takes up to twice the time of two parts. From 400 on, two parts are no faster.
_IN_CACHE, _WORTH_SPLITTING = 256, 384

# Which parts of a packed projection have a bias.
BIASES = ('all', 'queries_and_values', 'none')


class Dense(nn.Module):
    """Affine map of the last axis, with float32 parameters."""

    features: int
    kernel_init: nn.initializers.Initializer = truncated_normal
    dtype: jnp.dtype = jnp.float32
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, '*batch channels']) -> Float[Array, '*batch features']:
        kernel = self.param('kernel', self.kernel_init, (x.shape[-1], self.features), jnp.float32)
        y = jnp.dot(x.astype(self.dtype), kernel.astype(self.dtype))
        return y + self._bias().astype(self.dtype) if self.use_bias else y

    def _bias(self) -> Float[Array, ' features']:
        return self.param('bias', nn.initializers.zeros, (self.features,), jnp.float32)


class DenseWithoutKeyBias(Dense):
    """Queries, keys and values side by side, of which the keys have no bias: ``bias`` is that of queries, then values.

    A bias of the keys would add the same to all scores of a query, which the softmax does not see.
    """

    def _bias(self) -> Float[Array, ' features']:
        packed = self.param('bias', nn.initializers.zeros, (2 * self.features // 3,), jnp.float32)
        queries, values = jnp.split(packed, 2)
        return jnp.concatenate([queries, jnp.zeros_like(queries), values])


# Compiled as a function of its own name, by which an exporter knows it.
@jax.jit
def softmax(scores: Float[Array, '*batch tokens']) -> Float[Array, '*batch tokens']:
    """Softmax over the last axis."""
    return jax.nn.softmax(scores)


def dot_product_attention(
    query: Float[Array, '*batch heads queries width'],
    key: Float[Array, '*batch heads tokens width'],
    value: Float[Array, '*batch heads tokens value_width'],
    bias: Float[Array, '... heads queries tokens'] | float = 0.0,
) -> Float[Array, '*batch heads queries value_width']:
    """Scaled dot-product attention; the softmax is computed in float32.

    Heads come before tokens: both products are then plain batched matrix products, the fastest layout on the CPU.
    ``bias`` is added to the scores before the softmax. Without one, a GPU computes it in cuDNN's kernel if it can.
    """
    if isinstance(bias, float) and (mixed := fused(query, key, value, _by_products)) is not None:
        return mixed
    return _by_products(query, key, value, bias)


def _by_products(query: Array, key: Array, value: Array, bias: Array | float = 0.0) -> Array:
    if isinstance(bias, float) and _IN_CACHE < query.shape[-2] <= _WORTH_SPLITTING:
        return jax.lax.platform_dependent(query, key, value, cpu=_in_two_parts, default=_whole)
    return _whole(query, key, value, bias)


def _whole(query: Array, key: Array, value: Array, bias: Array | float = 0.0) -> Array:
    scores = _scores(query, key) + bias
    return jax.lax.platform_dependent(scores, value, cpu=_divided_last, default=_divided_first)


def _in_two_parts(query: Array, key: Array, value: Array) -> Array:
    parts = jnp.array_split(query, 2, axis=-2)
    return jnp.concatenate([_divided_last(_scores(part, key), value) for part in parts], axis=-2)


def _scores(query: Array, key: Array) -> Array:
    return jnp.einsum('...qd,...kd->...qk', query * query.shape[-1] ** -0.5, key).astype(jnp.float32)


def _divided_first(scores: Array, value: Array) -> Array:
    return jnp.einsum('...qk,...kd->...qd', softmax(scores).astype(value.dtype), value)


def _divided_last(scores: Array, value: Array) -> Array:
    """Fewer divisions, and only one array as large as the scores for the gradient."""
    weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(-1, keepdims=True)))
    total = weights.sum(-1, keepdims=True)
    return (jnp.einsum('...qk,...kd->...qd', weights.astype(value.dtype), value) / total).astype(value.dtype)


def merge_heads(x: Float[Array, '*batch heads tokens width']) -> Float[Array, '*batch tokens channels']:
    """The heads of each token side by side."""
    x = jnp.moveaxis(x, -3, -2)
    return x.reshape(*x.shape[:-2], -1)


def check_heads(heads: int, channels: int) -> None:
    """Refuse a number of heads that does not divide the channels.

    Raises:
        UserError: it does not; the nearest numbers that do are named.
    """
    if heads > 0 and channels % heads == 0:
        return
    divisors = [number for number in range(1, channels + 1) if channels % number == 0]
    nearest = [*[each for each in divisors if each < heads][-1:], *[each for each in divisors if each > heads][:1]]
    raise UserError(
        f'{channels} channels do not divide into heads={heads}; the nearest '
        f'{"numbers of heads that do are" if len(nearest) > 1 else "number of heads that does is"} '
        f'{" and ".join(map(str, nearest))}'
    )


def split_heads(
    packed: Float[Array, '*batch tokens packed_channels'], heads: int
) -> Float[Array, '3 *batch heads tokens width']:
    """Queries, keys and values of what a packed projection returns.

    Raises:
        UserError: see ``check_heads``.
    """
    *batch, tokens, width = packed.shape
    check_heads(heads, width // 3)
    split = packed.reshape(*batch, tokens, 3, heads, width // 3 // heads)
    return jnp.moveaxis(split, (-3, -2), (0, -3))


def attend(
    packed: Float[Array, '*batch tokens packed_channels'],
    heads: int,
    bias: Float[Array, '... heads tokens tokens'] | float = 0.0,
    rotation: Rotation | None = None,
) -> Float[Array, '*batch tokens channels']:
    """Scaled dot-product attention among the tokens of each batch entry.

    Args:
        packed: queries, keys and values side by side, each with its heads side by side.
        heads: number of heads.
        bias: added to the scores before the softmax.
        rotation: rotary positions of queries and keys, if there are any.
    """
    query, key, value = split_heads(packed, heads)
    return merge_heads(dot_product_attention(rotated(query, rotation), rotated(key, rotation), value, bias))


class SelfAttention(nn.Module):
    """Scaled dot-product attention; one packed projection for queries, keys and values, as in timm.

    Attributes:
        heads: number of heads.
        dtype: type of the computation; scores are float32.
        biases: which parts of the packed projection have a bias: ``'all'``, ``'queries_and_values'`` or ``'none'``.

    Raises:
        UserError: there is no such choice of biases, or the channels do not divide into so many heads.
    """

    heads: int
    dtype: jnp.dtype = jnp.float32
    biases: str = 'all'

    @nn.compact
    def __call__(
        self,
        x: Float[Array, 'batch tokens channels'],
        bias: Float[Array, '... heads tokens tokens'] | float = 0.0,
        rotation: Rotation | None = None,
    ) -> Float[Array, 'batch tokens channels']:
        channels = x.shape[-1]
        if self.biases not in BIASES:
            raise unknown('choice of biases in attention', self.biases, BIASES)
        dense = DenseWithoutKeyBias if self.biases == 'queries_and_values' else Dense
        packed = dense(3 * channels, dtype=self.dtype, use_bias=self.biases != 'none', name='qkv')(x)
        return Dense(channels, dtype=self.dtype, name='projection')(attend(packed, self.heads, bias, rotation))


def relative_position_index(window: int) -> np.ndarray:
    """For each pair of positions in a square window, the row of the bias table: ``int64[window**2, window**2]``."""
    rows, columns = np.divmod(np.arange(window**2), window)
    down, right = (axis[:, None] - axis[None] + window - 1 for axis in (rows, columns))
    return down * (2 * window - 1) + right


def shift_mask(windows: tuple[int, int], window: int, shift: tuple[int, int]) -> np.ndarray:
    """A mask that keeps apart what a cyclic shift brings into one window from opposite borders of a map.

    Args:
        windows: number of windows along each side.
        window: side of a window.
        shift: number of positions that each side was rolled towards the first row or column.

    Returns:
        ``float32[windows, window**2, window**2]``: -100 between positions of different origin, 0 elsewhere.
    """
    origins = []
    for count, rolled in zip(windows, shift, strict=True):
        position = np.arange(count * window)
        origins.append((position >= count * window - rolled).reshape(count, window))
    down, right = origins
    origin = (2 * down[:, None, :, None] + right[None, :, None, :]).reshape(-1, window**2)
    return np.where(origin[:, :, None] != origin[:, None, :], np.float32(-100), np.float32(0))


class WindowAttention(nn.Module):
    """Self-attention inside the square windows of a map, with a learned bias for each offset between two positions.

    The map is padded to whole windows with zeros on the right and at the bottom. To shift the windows it is rolled, so
    that they span the borders between unshifted ones; a side that a single window covers is not shifted.

    Source: Liu et al. 2021, "Swin Transformer"; torchvision/models/swin_transformer.py, shifted_window_attention.

    Attributes:
        heads: number of heads.
        window: side of a window.
        shift: positions by which the windows are shifted.
        dtype: type of the computation; scores and biases are float32.
    """

    heads: int
    window: int
    shift: int = 0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, 'batch height width channels']) -> Float[Array, 'batch height width channels']:
        batch, height, width, channels = x.shape
        window = self.window
        rows, columns = -(-height // window), -(-width // window)
        down, right = (self.shift if count > 1 else 0 for count in (rows, columns))

        table_shape = ((2 * window - 1) ** 2, self.heads)
        table = self.param('relative_position_bias_table', truncated_normal, table_shape, jnp.float32)
        bias = table[relative_position_index(window)].transpose(2, 0, 1)
        if down or right:
            bias = bias + shift_mask((rows, columns), window, (down, right))[:, None]

        x = jnp.pad(x, ((0, 0), (0, rows * window - height), (0, columns * window - width), (0, 0)))
        x = jnp.roll(x, (-down, -right), (1, 2))
        x = x.reshape(batch, rows, window, columns, window, channels).transpose(0, 1, 3, 2, 4, 5)
        packed = Dense(3 * channels, dtype=self.dtype, name='qkv')(x.reshape(batch, -1, window**2, channels))
        x = Dense(channels, dtype=self.dtype, name='projection')(attend(packed, self.heads, bias))
        x = x.reshape(batch, rows, columns, window, window, channels).transpose(0, 1, 3, 2, 4, 5)
        x = x.reshape(batch, rows * window, columns * window, channels)
        return jnp.roll(x, (down, right), (1, 2))[:, :height, :width]


class FeedForward(nn.Module):
    """Two dense layers with an activation between them, by default the exact (erf) GELU.

    Attributes:
        hidden: channels between the layers.
        dtype: type of the computation.
        activation: a name of ``layers.activations``.
        gated: whether the first layer makes as many gates too, which come first and to which the activation is applied
            (Shazeer 2020, "GLU Variants Improve Transformer"; with ``'silu'`` it is SwiGLU).
        norm_epsilon: constant that a normalisation before the second layer adds to the variance; ``None`` for no
            normalisation there (Shleifer et al. 2021, "NormFormer").
        response_norm: whether a global response normalisation follows the activation, for maps.
    """

    hidden: int
    dtype: jnp.dtype = jnp.float32
    activation: str = 'gelu'
    gated: bool = False
    norm_epsilon: float | None = None
    response_norm: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, '*batch channels']) -> Float[Array, '*batch channels']:
        function = activation(self.activation)
        y = Dense((1 + self.gated) * self.hidden, dtype=self.dtype, name='dense1')(x)
        if self.gated:
            gate, y = jnp.split(y, 2, axis=-1)
            y = function(gate) * y
        else:
            y = function(y)
        if self.norm_epsilon is not None:
            y = LayerNorm(self.norm_epsilon, self.dtype, name='norm')(y)
        if self.response_norm:
            y = GlobalResponseNorm(dtype=self.dtype, name='response_norm')(y)
        return Dense(x.shape[-1], dtype=self.dtype, name='dense2')(y)


class QueryKeyValue(nn.Module):
    """Packed, biased projection of two sequences: the queries of one, the keys and values of the other."""

    heads: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, queries: Float[Array, 'batch queries channels'], tokens: Float[Array, 'batch tokens channels']
    ) -> list[Float[Array, 'batch heads length width']]:
        batch, _, channels = tokens.shape
        check_heads(self.heads, channels)
        kernel = self.param('kernel', truncated_normal, (channels, 3 * channels), jnp.float32)
        bias = self.param('bias', nn.initializers.zeros, (3 * channels,), jnp.float32)
        parts = zip(jnp.split(kernel, 3, axis=1), jnp.split(bias, 3), strict=True)
        projected = []
        for sequence, (weight, offset) in zip((queries, tokens, tokens), parts, strict=True):
            y = jnp.dot(sequence.astype(self.dtype), weight.astype(self.dtype)) + offset.astype(self.dtype)
            projected.append(y.reshape(batch, -1, self.heads, channels // self.heads).transpose(0, 2, 1, 3))
        return projected


class AttentionPooling(nn.Module):
    """All tokens pooled into one: a learned query attends to them, and a residual feed-forward block follows.

    Source: ``MAPHead`` of google-research/big_vision ``models/vit.py``, after Lee et al. 2019, "Set Transformer".
    """

    heads: int
    epsilon: float = 1e-6
    activation: str = 'gelu'
    dtype: jnp.dtype = jnp.float32
    mlp_ratio: float = 4.0

    @nn.compact
    def __call__(self, tokens: Float[Array, 'batch tokens channels']) -> Float[Array, 'batch channels']:
        batch, _, channels = tokens.shape
        initialiser = nn.initializers.truncated_normal(channels**-0.5)
        probe = self.param('probe', initialiser, (1, 1, channels), jnp.float32)
        probe = jnp.broadcast_to(probe, (batch, 1, channels))
        mixed = dot_product_attention(*QueryKeyValue(self.heads, self.dtype, name='qkv')(probe, tokens))
        x = Dense(channels, dtype=self.dtype, name='projection')(merge_heads(mixed))
        y = LayerNorm(self.epsilon, self.dtype, name='norm')(x)
        return (x + FeedForward(int(self.mlp_ratio * channels), self.dtype, self.activation, name='mlp')(y))[:, 0]
