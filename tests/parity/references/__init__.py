"""How each reference implementation is built and asked for its stages: one file per family, one row each below."""

from collections.abc import Callable

from references.common import Reference
from references.convnext import (
    authors_convnextv2,
    authors_dinov3_convnext,
    facebook_convnext,
    timm_convnext,
    torchvision_convnext,
    transformers_convnext,
    transformers_dinov3_convnext,
)
from references.cspnet import cspnet
from references.dinov3 import authors_dinov3, timm_dinov3, transformers_dinov3
from references.efficientnet import (
    lukemelas_efficientnet,
    timm_efficientnet,
    torchvision_efficientnet,
    transformers_efficientnet,
)
from references.eva import authors_eva, timm_eva
from references.googlenet import googlenet
from references.hiera import facebook_hiera, timm_hiera, transformers_hiera
from references.mobilenet import timm_mobilenet, torchvision_mobilenet
from references.mobilenet_v4 import timm_mobilenet_v4
from references.resnet import resnet, transformers_resnet
from references.swin import microsoft_swin, timm_swin, torchvision_swin, transformers_swin
from references.vgg import timm_vgg, torchvision_vgg
from references.vit import timm_tower, timm_vit, torchvision_vit
from references.vit_authors import clip, dinov2
from references.vit_big_vision import big_vision_vit
from references.vit_transformers import (
    transformers_clip,
    transformers_dinov2,
    transformers_siglip,
    transformers_vit,
)
from references.yolo import TASKS, whole_yolo, yolo
from weights import Case

# Prefix of the backbone's name, layout → builder. The first row that fits is taken.
BUILDERS: list[tuple[str, str, Callable[[Case], Reference]]] = [
    ('vgg', 'torchvision', torchvision_vgg),
    ('vgg', 'timm', timm_vgg),
    ('googlenet', 'torchvision', googlenet),
    ('resnet', 'torchvision', resnet),
    ('resnet', 'transformers', transformers_resnet),
    ('resnext', 'torchvision', resnet),
    ('wide_resnet', 'torchvision', resnet),
    ('csp', 'timm', cspnet),
    ('yolo', 'ultralytics', yolo),
    *(('yolo', task, whole_yolo) for task in TASKS),
    ('efficientnet_b', 'torchvision', torchvision_efficientnet),
    ('efficientnet', 'lukemelas', lukemelas_efficientnet),
    ('efficientnet', 'timm', timm_efficientnet),
    ('efficientnet_b', 'transformers', transformers_efficientnet),
    ('mobilenet_v4', 'timm', timm_mobilenet_v4),
    ('mobilenet', 'torchvision', torchvision_mobilenet),
    ('mobilenet', 'timm', timm_mobilenet),
    ('convnextv2', 'facebook', authors_convnextv2),
    ('convnextv2', 'timm', timm_convnext),
    ('convnextv2', 'transformers', transformers_convnext),
    ('dinov3_convnext', 'facebook', authors_dinov3_convnext),
    ('dinov3_convnext', 'timm', timm_convnext),
    ('dinov3_convnext', 'transformers', transformers_dinov3_convnext),
    ('convnext', 'torchvision', torchvision_convnext),
    ('convnext', 'timm', timm_convnext),
    ('convnext', 'transformers', transformers_convnext),
    ('convnext', 'facebook', facebook_convnext),
    ('vit', 'timm', timm_vit),
    ('vit', 'torchvision', torchvision_vit),
    ('vit', 'transformers', transformers_vit),
    ('vit', 'big_vision', big_vision_vit),
    ('deit', 'timm', timm_vit),
    ('deit', 'transformers', transformers_vit),
    ('dinov2', 'dinov2', dinov2),
    ('dinov2', 'timm', timm_tower),
    ('dinov2', 'transformers', transformers_dinov2),
    ('dinov3_vit', 'dinov3', authors_dinov3),
    ('dinov3_vit', 'timm', timm_dinov3),
    ('dinov3_vit', 'timm_qkvb', timm_dinov3),
    ('dinov3_vit', 'transformers', transformers_dinov3),
    ('eva02', 'timm', timm_eva),
    ('eva02', 'eva02', authors_eva),
    ('clip', 'clip', clip),
    ('clip', 'clip_visual', clip),
    ('clip', 'transformers', transformers_clip),
    ('clip', 'timm', timm_tower),
    ('siglip', 'timm', timm_tower),
    ('siglip', 'transformers', transformers_siglip),
    ('siglip', 'big_vision', big_vision_vit),
    ('hiera', 'timm', timm_hiera),
    ('hiera', 'facebook', facebook_hiera),
    ('hiera', 'transformers', transformers_hiera),
    ('swin', 'torchvision', torchvision_swin),
    ('swin', 'timm', timm_swin),
    ('swin', 'transformers', transformers_swin),
    ('swin', 'microsoft', microsoft_swin),
]


def build(case: Case) -> Reference:
    """The reference of a case: that of its layout, or the first of its family where the case names none."""
    for prefix, layout, builder in BUILDERS:
        if case.backbone.startswith(prefix) and case.layout in ('', layout):
            return builder(case)
    raise SystemExit(f'no reference for {case}; add a row to BUILDERS')
