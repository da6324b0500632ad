"""One forward pass in which everything that explanations need is seen, without a change to any layer."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from backbones.errors import UserError
from backbones.features import Features
from backbones.inputs import reads_texts
from backbones.layers.attention import (
    AttentionPooling,
    QueryKeyValue,
    SelfAttention,
    dot_product_attention,
    split_heads,
)
from backbones.layers.rotary import Rotation, rotated
from backbones.model import Model


@flax.struct.dataclass
class Observed:
    """What was seen in a forward pass.

    Attributes:
        outputs: of the model; of a backbone alone, its features.
        features: of the backbone.
        attention: probabilities of each block, from the first to the last; empty for a backbone without attention
            among all its tokens.
        pooling: probabilities of the attention that pools the patches, if there is one.
        stage: what the stage's module returned that was asked for, as it went on to the next; tokens before the patches
            included.
    """

    outputs: Any
    features: Features
    attention: tuple[Float[Array, 'batch heads tokens tokens'], ...]
    pooling: Float[Array, 'batch heads 1 patches'] | None
    stage: Float[Array, 'batch *grid channels'] | None


def backbone_of(network: nn.Module) -> nn.Module:
    """The backbone of a model, or the backbone itself."""
    return network.backbone if isinstance(network, Model) else network


def backbone_variables(network: nn.Module, variables: Any) -> Any:
    """The variables of the backbone alone."""
    if not isinstance(network, Model):
        return variables
    return {name: each['backbone'] for name, each in variables.items() if 'backbone' in each}


def check_reads_images(network: nn.Module) -> None:
    """Check that a network reads images, of whose maps explanations are made.

    Raises:
        UserError: it reads texts.
    """
    if reads_texts(network):
        raise UserError(
            'this network reads texts, whose features are no maps; its tokens are explained by occlusion '
            '(explanation.occlusion.attributions, or experiments.explain with its --workdir)'
        )


def stage_names(backbone: nn.Module) -> tuple[str, ...]:
    """Names of a backbone's stages, from shallow to deep."""
    return tuple(f'stage{number}' for number in range(1, len(backbone.stage_channels()) + 1))


def observe(
    network: nn.Module,
    variables: Any,
    images: Float[Array, 'batch height width channels'],
    stage: str | None = None,
    change: Float[Array, 'batch *grid channels'] | float = 0.0,
) -> Observed:
    """Apply a network in inference mode, and see what happens inside.

    Args:
        network: a ``Model``, or a backbone alone.
        variables: of the network.
        images: its input.
        stage: name of a stage that is the output of a module of this name.
        change: is added to that output, so that gradients with respect to it can be taken.
    """
    root = ('backbone',) if isinstance(network, Model) else ()
    features: list[Features] = []
    attention: list[Array] = []
    pooling: list[Array] = []
    stages: list[Array] = []
    rotations: dict[tuple[str, ...], Rotation | None] = {}

    def interceptor(call: Callable, arguments: tuple, keywords: dict, context: nn.module.InterceptorContext) -> Any:
        module = context.module
        if isinstance(module, SelfAttention):
            rotations[module.path] = keywords.get('rotation')
        result = call(*arguments, **keywords)
        if context.method_name != '__call__':
            return result
        if module.path == root and isinstance(result, Features):
            features.append(result)
        elif module.name == 'qkv' and isinstance(module.parent, SelfAttention):
            query, key, _ = split_heads(result, module.parent.heads)
            rotation = rotations[module.parent.path]
            attention.append(_probabilities(rotated(query, rotation), rotated(key, rotation)))
        elif isinstance(module, QueryKeyValue) and isinstance(module.parent, AttentionPooling):
            pooling.append(_probabilities(*result[:2]))
        elif stage is not None and module.path == (*root, stage):
            # GoogLeNet's stages return the output of each of their blocks; the last one is the stage's.
            blocks = list(result) if isinstance(result, list | tuple) else [result]
            blocks[-1] = blocks[-1] + change
            stages.append(blocks[-1])
            return blocks if isinstance(result, list | tuple) else blocks[-1]
        return result

    with nn.intercept_methods(interceptor):
        outputs = network.apply(variables, images, train=False)
    return Observed(outputs, features[-1], tuple(attention), *(next(iter(each), None) for each in (pooling, stages)))


def _probabilities(query: Array, key: Array) -> Float[Array, 'batch heads queries tokens']:
    """The attention that the layers compute: what it does to the identity in place of the values."""
    return dot_product_attention(query, key, jnp.eye(key.shape[-2], dtype=jnp.float32))


def shape_of_stage(network: nn.Module, variables: Any, images: Array, stage: str) -> jax.ShapeDtypeStruct:
    """Shape and type of a stage's output; nothing is computed."""
    return jax.eval_shape(lambda *given: observe(network, *given, stage=stage).stage, variables, images)
