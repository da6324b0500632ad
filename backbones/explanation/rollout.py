"""Attention rollout: which patches a vision transformer's pooled features come from."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from backbones.errors import UserError, unknown
from backbones.explanation.observation import Observed, backbone_of, observe
from backbones.vit.vit import POOLINGS, VisionTransformer

# How the heads of a block become one matrix.
HEADS = {'mean': jnp.mean, 'min': jnp.min, 'max': jnp.max}


def has_rollout(backbone: nn.Module) -> bool:
    """Whether each block of a backbone attends to all tokens; inside windows, rollout is not defined."""
    return isinstance(backbone, VisionTransformer)


def rollout(
    attention: Sequence[Float[Array, 'batch heads tokens tokens']],
    reading: Float[Array, 'batch tokens'],
    heads: str = 'mean',
) -> Float[Array, 'batch tokens']:
    """How much of what is read after the last block comes from each token before the first.

    In each block half of a token is taken to come from itself, by the residual connection, and half from where it
    attends to; rows are normalised to sum to one.

    Source: Abnar and Zuidema 2020, "Quantifying Attention Flow in Transformers", equation 1 and section 3.

    Args:
        attention: probabilities of each block, from the first to the last.
        reading: share of each token in what is read after the last block; sums to one.
        heads: ``'mean'``, ``'min'`` or ``'max'`` of the heads.

    Returns:
        Shares that sum to one.

    Raises:
        UserError: there is no such way to merge heads.
    """
    share = reading
    for block in reversed(attention):
        share = (share + jnp.einsum('bq,bqk->bk', share, _merged(block, heads))) / 2
    return share


def _merged(attention: Float[Array, 'batch heads queries tokens'], heads: str) -> Float[Array, 'batch queries tokens']:
    if heads not in HEADS:
        raise unknown('way to merge heads', heads, HEADS)
    merged = HEADS[heads](attention, axis=1)
    return merged / merged.sum(-1, keepdims=True)


def attention_rollout(
    network: nn.Module, variables: Any, images: Float[Array, 'batch height width channels'], heads: str = 'mean'
) -> tuple[Float[Array, 'batch rows columns'], Observed]:
    """Attention rollout from what the backbone pools to the patches.

    It begins where the backbone's own pooling reads: at the class token, at the mean of class and distillation token
    (DeiT), at the mean of all patches (average pooling), or with the probabilities of the attention that pools
    (SigLIP). Tokens before the patches, registers among them, are left out of the map.

    Args:
        network: a ``Model`` or a backbone.
        variables: of the network.
        images: its input.
        heads: see ``rollout``.

    Returns:
        The share of each patch, and what else was seen. The shares of a map sum to one less that of the other tokens.

    Raises:
        UserError: the backbone does not attend to all tokens, or there is no such way to merge heads.
    """
    backbone = backbone_of(network)
    if not isinstance(backbone, VisionTransformer):
        raise UserError(
            f'attention rollout needs a backbone whose blocks attend to all tokens, and {type(backbone).__name__} is '
            'none; Grad-CAM takes any backbone with a head'
        )
    seen = observe(network, variables, images)
    share = rollout(seen.attention, _reading(backbone, seen, heads), heads)
    _, rows, columns, _ = seen.features.stages['stage1'].shape
    return share[:, backbone.prefix_tokens() :].reshape(-1, rows, columns), seen


def _reading(backbone: VisionTransformer, seen: Observed, heads: str) -> Float[Array, 'batch tokens']:
    """The share of each token, after the last block, in the pooled features."""
    prefix, (batch, _, tokens, _) = backbone.prefix_tokens(), seen.attention[-1].shape
    if seen.pooling is not None:
        return jnp.pad(_merged(seen.pooling, heads)[:, 0], ((0, 0), (prefix, 0)))
    pooled = len(POOLINGS[backbone.pooling])
    first, last = (0, pooled) if pooled else (prefix, tokens)
    inside = (jnp.arange(tokens) >= first) & (jnp.arange(tokens) < last)
    return jnp.broadcast_to(inside / (last - first), (batch, tokens)).astype(jnp.float32)
