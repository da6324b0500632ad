"""Which foreign layouts each kind of module can be loaded from and saved to: one explicit table."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn

from backbones.cnn.efficientnet import EfficientNetLite
from backbones.cnn.resnet import ResNet
from backbones.pretrained.keymaps import efficientnet, resnet, vit, vit_big_vision, vit_transformers
from backbones.pretrained.keymaps.rules import Line
from backbones.vit.vit import VisionTransformer

# Kind of module → layout → its key map. Where two layouts are one, the first is the one that is reported.
TABLE: dict[type[nn.Module], dict[str, Callable[[Any], list[Line]]]] = {
    ResNet: {'torchvision': resnet.torchvision, 'timm': resnet.torchvision},
    EfficientNetLite: {'lukemelas': efficientnet.lukemelas},
    VisionTransformer: {
        'timm': vit.timm,
        'torchvision': vit.torchvision,
        'transformers': vit_transformers.transformers,
        'big_vision': vit_big_vision.big_vision,
        'dinov2': vit.dinov2,
        'clip': vit.clip,
        'clip_visual': vit.clip_visual,
    },
}


def layouts(module: nn.Module) -> dict[str, list[Line]]:
    """Layout → key map, for a backbone module; our own layout, ``'native'``, needs none and is not among them.

    A layout that a module's variant never had has an empty key map, and is not among them either.
    """
    found = {name: keymap(module) for name, keymap in TABLE.get(type(module), {}).items()}
    return {name: lines for name, lines in found.items() if lines}
