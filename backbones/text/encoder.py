"""Transformer encoders for language: BERT, RoBERTa, DistilBERT and MiniLM.

Sources: Devlin et al. 2019, "BERT"; Liu et al. 2019, "RoBERTa"; Sanh et al. 2019, "DistilBERT"; Wang et al. 2020,
"MiniLM"; Reimers and Gurevych 2019, "Sentence-BERT". Built as transformers' ``modeling_bert.py``,
``modeling_roberta.py`` and ``modeling_distilbert.py`` build them, but for dropout on attention weights.
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from backbones.errors import UserError, unknown
from backbones.features import Features, quarters
from backbones.layers.attention import Dense, FeedForward, SelfAttention, truncated_normal
from backbones.layers.normalisation import LayerNorm
from backbones.text.tokenising import PADDING

POOLINGS = ('pooler', 'token', 'mean')
# sentence_transformers/models/Pooling.py and torch.nn.functional.normalize.
_LEAST_COUNT, _LEAST_LENGTH = 1e-9, 1e-12


class Embedding(nn.Module):
    """The sum of a vector for each token, its position and its type, normalised.

    Attributes:
        channels: width of the transformer.
        vocabulary: number of tokens.
        positions: rows of the table of positions.
        types: number of types; 0: there is no table of them.
        padding_token: the token that stands for padding in the weights' vocabulary.
        counted_positions: whether positions are counted over tokens alone, from ``padding_token + 1`` on (RoBERTa),
            or over the whole row from 0 on.
        epsilon: constant that the normalisation adds to the variance.
        dtype: type of the computation.
    """

    channels: int
    vocabulary: int
    positions: int
    types: int
    padding_token: int
    counted_positions: bool
    epsilon: float
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, tokens: Int[Array, 'batch length'], types: Int[Array, 'batch length'] | None = None
    ) -> Float[Array, 'batch length channels']:
        tokens = jnp.where(tokens == PADDING, self.padding_token, tokens)
        x = self._table('word', self.vocabulary)[tokens]
        if self.types:
            table = self._table('token_type', self.types)
            x += table[0] if types is None else table[types]
        elif types is not None:
            raise UserError(
                'types of tokens were given, and this encoder has no table of them (types=0): leave them out'
            )
        x += self._table('position', self.positions)[self._position(tokens)]
        return LayerNorm(self.epsilon, self.dtype, name='norm')(x)

    def _table(self, name: str, rows: int) -> Float[Array, 'rows channels']:
        return self.param(name, truncated_normal, (rows, self.channels), jnp.float32).astype(self.dtype)

    def _position(self, tokens: Int[Array, 'batch length']) -> Int[Array, '... length']:
        if not self.counted_positions:
            return jnp.arange(tokens.shape[1])
        counted = (tokens != self.padding_token).astype(jnp.int32)
        return jnp.cumsum(counted, axis=1) * counted + self.padding_token


class Block(nn.Module):
    """Attention and feed-forward, each added to its input and then normalised.

    Attributes:
        heads: attention heads.
        hidden: channels between the two dense layers.
        epsilon: constant that the normalisations add to the variance.
        activation: between the two dense layers, as ``layers.activations`` names it.
        dropout: rate at which values of either branch are dropped while training.
        dtype: type of the computation.
    """

    heads: int
    hidden: int
    epsilon: float
    activation: str = 'gelu'
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, 'batch length channels'], mask: Bool[Array, 'batch length'], train: bool = False
    ) -> Float[Array, 'batch length channels']:
        # A row without any token attends to all alike, which keeps its values finite.
        bias = jnp.where(mask, 0.0, jnp.finfo(jnp.float32).min)[:, None, None]
        y = SelfAttention(self.heads, self.dtype, name='attention')(x, bias)
        x = self._joined(x, y, 'norm1', train)
        y = FeedForward(self.hidden, self.dtype, self.activation, name='mlp')(x)
        return self._joined(x, y, 'norm2', train)

    def _joined(self, x: Array, y: Array, norm: str, train: bool) -> Array:
        y = nn.Dropout(self.dropout, deterministic=not train)(y)
        return LayerNorm(self.epsilon, self.dtype, name=norm)(x + y)


class Stage(nn.Module):
    """About a quarter of the depth: some blocks, all alike."""

    block: Callable[..., Block]
    blocks: int

    @nn.compact
    def __call__(
        self, x: Float[Array, 'batch length channels'], mask: Bool[Array, 'batch length'], train: bool = False
    ) -> Float[Array, 'batch length channels']:
        for number in range(1, self.blocks + 1):
            x = self.block(name=f'block{number}')(x, mask, train=train)
        return x


class TextEncoder(nn.Module):
    """Tokens to features: an embedding, blocks with the normalisation after each branch, and pooling.

    A stage ends after the block at each quarter of the depth, rounded up: after blocks 2, 3, 5 and 6 of six. At the
    places of padding, stages and tokens are zero.

    Attributes:
        channels: width of the transformer.
        depth: number of blocks; at least four, so that every stage has one.
        heads: attention heads.
        vocabulary: number of tokens.
        positions: rows of the table of positions.
        types: number of types of token; 0: no types.
        padding_token: see ``Embedding``.
        counted_positions: see ``Embedding``.
        hidden: channels inside the feed-forward layers; 0: four times ``channels``.
        pooling: ``'pooler'`` (the first token through a dense layer and a hyperbolic tangent, as BERT's classifier
            sees it), ``'token'`` (the first token) or ``'mean'`` (over the tokens that are not padding).
        normalised: whether pooled features are scaled to length 1.
        epsilon: constant that every normalisation adds to the variance.
        activation: of the feed-forward layers, as ``layers.activations`` names it.
        hidden_dropout: rate at which values of the embedding and of each branch are dropped while training.
        dtype: type of the computation.

    Raises:
        UserError: texts longer than the table of positions, a depth of less than four, a way to pool that does not
            exist, channels that do not divide into the heads, or types of tokens where there is no table of them.
    """

    channels: int
    depth: int
    heads: int
    vocabulary: int
    positions: int
    types: int = 0
    padding_token: int = 0
    counted_positions: bool = False
    hidden: int = 0
    pooling: str = 'token'
    normalised: bool = False
    epsilon: float = 1e-12
    activation: str = 'gelu'
    hidden_dropout: float = 0.1
    dtype: jnp.dtype = jnp.float32

    # Of ``Features.tokens``, as those of a vision transformer; no option, as a tokenizer makes it.
    prefix = ('class_token',)

    def stage_depths(self) -> tuple[int, ...]:
        """Blocks of each stage."""
        return quarters(self.depth)

    def stage_channels(self) -> tuple[int, ...]:
        """Channels of each stage's output."""
        return (self.channels,) * 4

    def stage_strides(self) -> tuple[int, ...]:
        """Tokens per step of each stage's output: it has one for every token."""
        return (1,) * 4

    def pooled_channels(self) -> int:
        """Channels of ``Features.pooled``."""
        return self.channels

    def prefix_tokens(self) -> int:
        """How many of ``Features.tokens`` come before those of the text: the one that classifiers see."""
        return 1

    def longest(self) -> int:
        """The most tokens that a text can have."""
        return self.positions - (self.padding_token + 1 if self.counted_positions else 0)

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, 'batch length'],
        train: bool = False,
        mask: Bool[Array, 'batch length'] | None = None,
        types: Int[Array, 'batch length'] | None = None,
    ) -> Features:
        """Features of texts.

        Args:
            tokens: numbers of tokens in the vocabulary; ``PADDING`` where a text is shorter than the batch.
            train: whether dropout works as in training.
            mask: false at padding; ``None``: at ``PADDING``.
            types: of each token, the number of its type; ``None``: all of the first.
        """
        self._check(tokens)
        mask = tokens != PADDING if mask is None else mask
        embedding = Embedding(
            self.channels,
            self.vocabulary,
            self.positions,
            self.types,
            self.padding_token,
            self.counted_positions,
            self.epsilon,
            self.dtype,
            name='embedding',
        )
        x = nn.Dropout(self.hidden_dropout, deterministic=not train)(embedding(tokens, types))
        stages = {}
        hidden = self.hidden or 4 * self.channels
        block = partial(Block, self.heads, hidden, self.epsilon, self.activation, self.hidden_dropout, dtype=self.dtype)
        for number, depth in enumerate(self.stage_depths(), start=1):
            x = Stage(block, depth, name=f'stage{number}')(x, mask, train=train)
            stages[f'stage{number}'] = jnp.where(mask[..., None], x, 0)
        tokens_after = stages['stage4']
        return Features(stages=stages, pooled=self._pooled(tokens_after, mask), tokens=tokens_after, mask=mask)

    def _check(self, tokens: Array) -> None:
        if self.depth < 4:
            raise UserError(f'the depth of a text encoder must be at least 4, not {self.depth}')
        if self.pooling not in POOLINGS:
            raise unknown('way to pool', self.pooling, POOLINGS)
        if not jnp.issubdtype(tokens.dtype, jnp.integer) or tokens.ndim != 2:
            raise UserError(
                f'texts must be numbers of tokens of the shape [batch, length], not {tokens.dtype}{list(tokens.shape)}'
            )
        if tokens.shape[1] > self.longest():
            raise UserError(f'a text has {tokens.shape[1]} tokens, and this encoder takes {self.longest()} at most')

    def _pooled(
        self, x: Float[Array, 'batch length channels'], mask: Bool[Array, 'batch length']
    ) -> Float[Array, 'batch channels']:
        if self.pooling == 'mean':
            count = jnp.maximum(mask.sum(1, keepdims=True), _LEAST_COUNT)
            pooled = (x.sum(1, dtype=jnp.float32) / count).astype(self.dtype)
        else:
            # With padding on the left, the first is not at place 0.
            pooled = x[jnp.arange(len(x)), mask.argmax(1)]
        if self.pooling == 'pooler':
            pooled = jnp.tanh(Dense(self.channels, dtype=self.dtype, name='pooler')(pooled))
        if self.normalised:
            length = jnp.linalg.norm(pooled.astype(jnp.float32), axis=-1, keepdims=True)
            pooled = (pooled / jnp.maximum(length, _LEAST_LENGTH)).astype(self.dtype)
        return pooled
