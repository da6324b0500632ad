"""The options under which the weights of a layout were trained, where no key of the file tells.

Weights of one layout may come from several writers. Where one of them trained with our defaults, a file without a
configuration is taken to be theirs; where none did, the user is asked (``compatibility``).

Every pair of a kind of module and a layout in ``keymaps.TABLE`` was checked. Those that are not listed have a writer
who trained with our defaults:

- torchvision's, timm's and the authors' own ResNet, VGG, GoogLeNet, CSPNet, MobileNetV4, ConvNeXt, Hiera and Swin
  agree on every epsilon and activation; a Swin with another window is resampled, which its report says;
- ultralytics sets its epsilon after building a model, to the same value for all;
- CLIP is OpenAI's own with quick GELU, also in timm's layout and in its authors'; open_clip's need
  ``activation='gelu'``, which their configuration says;
- DINOv3's S, S+, B and L were trained with biases of queries and values that timm leaves out of most of its files, as
  they are zero; it pools the mean of the patches by default, its authors and transformers the class token;
- DINOv2's authors and timm resample positions differently, but agree at the size of the weights;
- augreg's ViTs in big_vision's layout ran with the tanh form of GELU where they were trained; the published figures,
  and all that was derived from them, are timm's, with the exact one.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from backbones.cnn.convnext import ConvNeXt
from backbones.cnn.efficientnet import EfficientNet
from backbones.cnn.mobilenet import MobileNetV3
from backbones.vit.vit import VisionTransformer


@dataclasses.dataclass(frozen=True)
class Writer:
    """Who trained weights of a layout.

    Attributes:
        name: name of the writer, for messages.
        options: options of our module under which it is the function that was trained.
        kind: options that a module must have for this writer's weights to be for it at all.
    """

    name: str
    options: Mapping[str, Any]
    kind: Mapping[str, Any] = dataclasses.field(default_factory=dict)


_TORCH: dict[str, Any] = {'padding': None, 'epsilon': 1e-5}
_TENSORFLOW: dict[str, Any] = {'padding': 'same', 'epsilon': 1e-3}
_TIMM = (Writer("timm's own", _TORCH), Writer("timm's tf_ models", _TENSORFLOW))
_PLAIN_VIT = {'pre_norm': False, 'masked_pretraining': False}
# Timm and transformers compute DINOv3's periods anew, in float32.
_ROUNDED = {'rotary': 'dinov3_bfloat16'}

TRAINED_WITH: dict[type[nn.Module], dict[str, tuple[Writer, ...]]] = {
    EfficientNet: {
        'timm': _TIMM,
        'lukemelas': (Writer('its author', _TENSORFLOW),),
        'transformers': (Writer('transformers', _TENSORFLOW),),
    },
    MobileNetV3: {'timm': _TIMM},
    # Its configurations leave the last normalisation an epsilon that differs from the others'.
    ConvNeXt: {'transformers': (Writer('transformers', {'head_epsilon': 1e-12}),)},
    VisionTransformer: {
        # Timm runs SigLIP and SigLIP 2 with the exact GELU; its authors, and transformers, with the tanh form.
        'timm': (Writer('timm', {'activation': 'gelu'}, {'pooling': 'attention'}),),
        'transformers': tuple(
            Writer('transformers', {'epsilon': 1e-12}, {**_PLAIN_VIT, 'pooling': pooling})
            for pooling in ('token', 'distillation', 'average')
        ),
        'dinov3': (Writer('its authors', _ROUNDED),),
    },
}


def writers(module: nn.Module, layout: str) -> list[Writer]:
    """The writers whose weights in this layout can be for the module; none where there is nothing to ask."""
    return [
        writer
        for writer in TRAINED_WITH.get(type(module), {}).get(layout, ())
        if all(getattr(module, option) == value for option, value in writer.kind.items())
    ]
