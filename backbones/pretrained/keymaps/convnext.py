"""ConvNeXt as torchvision, timm, transformers and its authors store it: four namings of the same layers."""

import dataclasses
from collections.abc import Callable
from functools import partial

from backbones.cnn.convnext import ConvNeXt
from backbones.pretrained.keymaps.rules import (
    IDENTITY,
    Line,
    Rule,
    Transform,
    convolution_rules,
    dense_rules,
    layer_norm_rules,
)

_CHANNELS_FIRST = Transform(
    'C11 to C', lambda array: array.reshape(array.shape[:1]), lambda array: array[:, None, None]
)


@dataclasses.dataclass(frozen=True)
class _Names:
    """Their keys, and the functions that make a key from the number of one of our stages (1 to 4).

    Attributes:
        stem_conv, stem_norm, norm, head: keys of the layers outside the stages.
        downsample: prefix of a normalisation ``.0`` and a convolution ``.1`` before a stage.
        block: prefix of a block, its number left as the field ``{b}``.
        block_layers: keys of the depthwise convolution, the normalisation and the two dense layers of a block.
        layer_scale: key inside a block.
        layer_scale_transform: transform from their axes to ours.
    """

    stem_conv: str
    stem_norm: str
    downsample: Callable[[int], str]
    block: Callable[[int], str]
    block_layers: tuple[str, str, str, str]
    layer_scale: str
    norm: str
    head: str
    layer_scale_transform: Transform = IDENTITY


def _lines(names: _Names, module: ConvNeXt) -> list[Line]:
    lines = [
        *convolution_rules(names.stem_conv, 'backbone/stem_conv', bias=True),
        *layer_norm_rules(names.stem_norm, 'backbone/stem_norm'),
        *layer_norm_rules(names.norm, 'backbone/norm'),
        *dense_rules(names.head, 'head'),
    ]
    depthwise, norm, dense1, dense2 = names.block_layers
    for stage in range(1, len(module.depths) + 1):
        key, path = names.block(stage), f'backbone/stage{stage}/block{{b+1}}'
        lines += convolution_rules(f'{key}.{depthwise}', f'{path}/depthwise_conv', bias=True)
        lines += layer_norm_rules(f'{key}.{norm}', f'{path}/norm')
        lines += dense_rules(f'{key}.{dense1}', f'{path}/mlp/dense1')
        lines += dense_rules(f'{key}.{dense2}', f'{path}/mlp/dense2')
        scale_path = f'params/{path}/layer_scale/scale'
        lines.append(Rule(f'{key}.{names.layer_scale}', scale_path, names.layer_scale_transform))
        if stage > 1:
            key, path = names.downsample(stage), f'backbone/stage{stage}/downsample'
            lines += layer_norm_rules(f'{key}.0', f'{path}_norm')
            lines += convolution_rules(f'{key}.1', f'{path}_conv', bias=True)
    return lines


torchvision = partial(
    _lines,
    _Names(
        stem_conv='features.0.0',
        stem_norm='features.0.1',
        downsample=lambda stage: f'features.{2 * stage - 2}',
        block=lambda stage: f'features.{2 * stage - 1}.{{b}}',
        block_layers=('block.0', 'block.2', 'block.3', 'block.5'),
        layer_scale='layer_scale',
        norm='classifier.0',
        head='classifier.2',
        layer_scale_transform=_CHANNELS_FIRST,
    ),
)
timm = partial(
    _lines,
    _Names(
        stem_conv='stem.0',
        stem_norm='stem.1',
        downsample=lambda stage: f'stages.{stage - 1}.downsample',
        block=lambda stage: f'stages.{stage - 1}.blocks.{{b}}',
        block_layers=('conv_dw', 'norm', 'mlp.fc1', 'mlp.fc2'),
        layer_scale='gamma',
        norm='head.norm',
        head='head.fc',
    ),
)
transformers = partial(
    _lines,
    _Names(
        stem_conv='[convnext.]embeddings.patch_embeddings',
        stem_norm='[convnext.]embeddings.layernorm',
        downsample=lambda stage: f'[convnext.]encoder.stages.{stage - 1}.downsampling_layer',
        block=lambda stage: f'[convnext.]encoder.stages.{stage - 1}.layers.{{b}}',
        block_layers=('dwconv', 'layernorm', 'pwconv1', 'pwconv2'),
        layer_scale='layer_scale_parameter',
        norm='[convnext.]layernorm',
        head='classifier',
    ),
)
facebook = partial(
    _lines,
    _Names(
        stem_conv='downsample_layers.0.0',
        stem_norm='downsample_layers.0.1',
        downsample=lambda stage: f'downsample_layers.{stage - 1}',
        block=lambda stage: f'stages.{stage - 1}.{{b}}',
        block_layers=('dwconv', 'norm', 'pwconv1', 'pwconv2'),
        layer_scale='gamma',
        norm='norm',
        head='head',
    ),
)
