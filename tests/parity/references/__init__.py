"""How each reference implementation is built and asked for its stages: one file per family, one row each below."""

from collections.abc import Callable

from references.common import Reference
from references.convnext import facebook_convnext, timm_convnext, torchvision_convnext, transformers_convnext
from references.efficientnet import efficientnet_lite
from references.resnet import resnet
from references.swin import microsoft_swin, timm_swin, torchvision_swin, transformers_swin
from references.vit import timm_vit
from weights import Case

# Prefix of the backbone's name, layout → builder. The first row that fits is taken.
BUILDERS: list[tuple[str, str, Callable[[Case], Reference]]] = [
    ('resnet', 'torchvision', resnet),
    ('efficientnet_lite', 'lukemelas', efficientnet_lite),
    ('convnext', 'torchvision', torchvision_convnext),
    ('convnext', 'timm', timm_convnext),
    ('convnext', 'transformers', transformers_convnext),
    ('convnext', 'facebook', facebook_convnext),
    ('vit', 'timm', timm_vit),
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
