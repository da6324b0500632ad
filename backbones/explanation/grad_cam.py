"""Grad-CAM: where in a map of features a class of a head has its evidence."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from backbones.errors import UserError, unknown
from backbones.explanation.observation import (
    Observed,
    backbone_of,
    backbone_variables,
    check_reads_images,
    observe,
    shape_of_stage,
)
from backbones.explanation.observation import stage_names as all_stages
from backbones.model import Model
from backbones.vit.vit import POOLINGS


def grad_cam_stages(network: nn.Module, variables: Any) -> tuple[str, ...]:
    """The stages that Grad-CAM can be of, from shallow to deep: modules through which a class depends on positions.

    VGG's last stage is a mere max-pool of the one before. After the last block of a vision transformer that pools its
    class token, no class depends on any patch.
    """
    backbone = backbone_of(network)
    names = [name for name in all_stages(backbone) if name in backbone_variables(network, variables)['params']]
    reads_tokens_alone = bool(POOLINGS.get(getattr(backbone, 'pooling', ''), ()))
    return tuple(names[:-1] if reads_tokens_alone else names)


def grad_cam(
    model: Model,
    variables: Any,
    images: Float[Array, 'batch height width channels'],
    stage: str,
    classes: Int[Array, ' batch'] | None = None,
) -> tuple[Float[Array, 'batch rows columns'], Observed]:
    """Gradient-weighted class activation map.

    The channels of a stage's map are added up, each weighted by the mean over all positions of the gradient of the
    class's logit, and what is negative is set to zero.

    Source: Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization",
    equations 1 and 2. On vision transformers it is known to highlight little of the object (Chen et al. 2022,
    "gScoreCAM").

    Args:
        model: backbone and classification head.
        variables: of the model.
        images: its input.
        stage: one of ``grad_cam_stages``.
        classes: index of a class for each image; ``None``: the one with the largest logit.

    Returns:
        The map of each image, in units of the logit, and what else was seen.

    Raises:
        UserError: Grad-CAM cannot be of this stage, or the model reads texts.
    """
    check_reads_images(model)
    possible = grad_cam_stages(model, variables)
    if stage not in possible:
        if stage in all_stages(backbone_of(model)):
            raise UserError(
                f'Grad-CAM of {stage} is not defined: no class depends on the positions of its map in a way that can '
                f'be followed; possible stages: {", ".join(possible)}'
            )
        raise unknown('stage', stage, possible)

    def score(change: Array) -> tuple[Array, Observed]:
        seen = observe(model, variables, images, stage, change)
        chosen = seen.outputs.argmax(-1) if classes is None else classes
        return jnp.take_along_axis(seen.outputs, chosen[:, None], axis=1).sum(), seen

    shape = shape_of_stage(model, variables, images, stage)
    gradient, seen = jax.grad(score, has_aux=True)(jnp.zeros(shape.shape, shape.dtype))
    activation = seen.features.stages[stage].astype(jnp.float32)
    batch, rows, columns, channels = activation.shape
    # Of a transformer's tokens, those of the patches come last.
    gradient = gradient.reshape(batch, -1, channels)[:, -rows * columns :].astype(jnp.float32)
    return jax.nn.relu(jnp.einsum('bijc,bc->bij', activation, gradient.mean(1))), seen
