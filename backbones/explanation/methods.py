"""Table of the ways to explain what a backbone looks at. Each family has its own, and pictures say which it is."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn

from backbones.errors import UserError, unknown
from backbones.explanation.grad_cam import grad_cam_stages
from backbones.explanation.labels import GRAD_CAM, LABELS, PCA, ROLLOUT
from backbones.explanation.observation import backbone_of, check_reads_images, stage_names
from backbones.explanation.rollout import has_rollout
from backbones.inputs import reads_texts
from backbones.model import Model


@dataclasses.dataclass(frozen=True)
class Method:
    """One way to explain.

    Attributes:
        label: what pictures call it.
        meaning: what it shows.
        has: whether it is defined for a network (a ``Model`` with a classification head, or a backbone alone).
        needs: what it is defined for.
        stages: the stages it can be of, from shallow to deep, given network and variables; none if it has no stage.
    """

    label: str
    meaning: str
    has: Callable[[nn.Module], bool]
    needs: str
    stages: Callable[[nn.Module, Any], tuple[str, ...]] = lambda network, variables: ()


# The first that a network has is its usual one.
METHODS = {
    ROLLOUT: Method(
        LABELS[ROLLOUT],
        'patches from which the pooled features come by attention',
        lambda network: has_rollout(backbone_of(network)),
        'backbones whose blocks attend to all tokens: ViT, DeiT, DINOv2, DINOv3, EVA-02, CLIP, SigLIP',
    ),
    GRAD_CAM: Method(
        LABELS[GRAD_CAM],
        'evidence for a class of the head',
        lambda network: isinstance(network, Model) and not reads_texts(network),
        'models of images with a classification head',
        grad_cam_stages,
    ),
    PCA: Method(
        LABELS[PCA],
        'similar colours for similar features, the same in all images of a column',
        lambda network: not reads_texts(network),
        'every backbone of images',
        lambda network, variables: stage_names(backbone_of(network)),
    ),
}


def usual(network: nn.Module) -> str:
    """The method that suits a network: rollout for transformers, Grad-CAM for others with a head, else PCA.

    Raises:
        UserError: it reads texts.
    """
    check_reads_images(network)
    return next(name for name, method in METHODS.items() if method.has(network))


def check(name: str, label: str, network: nn.Module) -> None:
    """Check that a method is defined for a network.

    Args:
        name: of the method.
        label: what the network is called, for the message.
        network: a ``Model`` with a classification head, or a backbone alone.

    Raises:
        UserError: there is no such method, or it is not defined for the network, or none is, as it reads texts.
    """
    if name not in METHODS:
        raise unknown('method', name, METHODS)
    check_reads_images(network)
    if not METHODS[name].has(network):
        possible = [each for each, method in METHODS.items() if method.has(network)]
        raise UserError(
            f'{METHODS[name].label} is not defined for {label}: it is for {METHODS[name].needs}; it takes '
            f'--method {" or ".join(possible)}'
        )


def chosen_stage(name: str, label: str, network: nn.Module, variables: Any, stage: str | None) -> str | None:
    """The stage that a method is of: the one asked for, or its deepest; ``None`` for a method without a stage.

    Raises:
        UserError: it cannot be of this stage; the possible ones are named.
    """
    possible = METHODS[name].stages(network, variables)
    if stage is None or not possible:
        return possible[-1] if possible else None
    if stage not in possible:
        error = unknown('stage', stage, possible)
        raise UserError(f'{error} ({METHODS[name].label} of {label} can be of {", ".join(possible)})')
    return stage
