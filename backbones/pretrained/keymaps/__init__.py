"""Which foreign layouts each kind of module can be loaded from: one explicit table."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn

from backbones.cnn.efficientnet import EfficientNetLite
from backbones.cnn.resnet import ResNet
from backbones.pretrained.keymaps import efficientnet, resnet, vit
from backbones.pretrained.keymaps.rules import Rule
from backbones.vit.vit import VisionTransformer

NATIVE = 'native'

TABLE: dict[type[nn.Module], dict[str, Callable[[Any], list[Rule]]]] = {
    ResNet: {'torchvision': resnet.torchvision},
    VisionTransformer: {'timm': vit.timm},
    EfficientNetLite: {'lukemelas': efficientnet.lukemelas},
}

_NATIVE_RULES = [
    Rule(r'(params|batch_stats)/(backbone|head)/(.*)', '{0}/{1}/{2}'),
    Rule(r'(params|batch_stats)/(.*)', '{0}/backbone/{1}'),
]


def layouts(module: nn.Module) -> dict[str, list[Rule]]:
    """Layout → rules, for a backbone module."""
    return {NATIVE: _NATIVE_RULES, **{name: rules(module) for name, rules in TABLE.get(type(module), {}).items()}}
