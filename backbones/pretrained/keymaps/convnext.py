"""ConvNeXt as torchvision, timm, transformers and its authors store it: four namings of the same layers.

The V2 and DINOv3's have the same names in three of them, except DINOv3's in transformers.
"""

import dataclasses
from collections.abc import Callable
from functools import partial

from backbones.cnn.convnext import ConvNeXt, ConvNeXtWithTokens
from backbones.pretrained.keymaps.rules import (
    IDENTITY,
    POINTWISE,
    TRANSPOSE,
    Line,
    Rule,
    Transform,
    aliases,
    convolution_rules,
    dense_rules,
    layer_norm_rules,
)

_CHANNELS_FIRST = Transform(
    'C11 to C', lambda array: array.reshape(array.shape[:1]), lambda array: array[:, None, None]
)
_CHANNELS_LAST = Transform(
    '111C to C', lambda array: array.reshape(array.shape[-1:]), lambda array: array[None, None, None]
)
# Timm builds the smaller sizes of the V2 with 1x1 convolutions; these are the channels of the first larger one.
_TIMM_DENSE_FROM = 96


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
        response_norm: keys of the scale and the bias of a V2's normalisation; empty where the layout has no V2.
        response_norm_transform: transform from their axes to ours.
        dense_transform: transform of the kernels of a block's dense layers for a module.
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
    response_norm: tuple[str, ...] = ()
    response_norm_transform: Transform = IDENTITY
    dense_transform: Callable[[ConvNeXt], Transform] = lambda module: TRANSPOSE


def _lines(names: _Names, module: ConvNeXt) -> list[Line]:
    if module.response_norm and not names.response_norm:
        return []
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
        for number, dense in enumerate((dense1, dense2), start=1):
            dense_path = f'params/{path}/mlp/dense{number}'
            lines.append(Rule(f'{key}.{dense}.weight', f'{dense_path}/kernel', names.dense_transform(module)))
            lines.append(Rule(f'{key}.{dense}.bias', f'{dense_path}/bias'))
        if module.response_norm:
            for response, leaf in zip(names.response_norm, ('scale', 'bias'), strict=True):
                response_path = f'params/{path}/mlp/response_norm/{leaf}'
                lines.append(Rule(f'{key}.{response}', response_path, names.response_norm_transform))
        if module.layer_scale is not None:
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


def _timm_dense(module: ConvNeXt) -> Transform:
    return POINTWISE if module.response_norm and module.channels[0] < _TIMM_DENSE_FROM else TRANSPOSE


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
        response_norm=('mlp.grn.weight', 'mlp.grn.bias'),
        dense_transform=_timm_dense,
    ),
)


def transformers(module: ConvNeXt) -> list[Line]:
    """``convnext.encoder.stages.2.layers.7.dwconv.weight``; the V2 begins with its own name."""
    model = '[convnextv2.]' if module.response_norm else '[convnext.]'
    names = _Names(
        stem_conv=f'{model}embeddings.patch_embeddings',
        stem_norm=f'{model}embeddings.layernorm',
        downsample=lambda stage: f'{model}encoder.stages.{stage - 1}.downsampling_layer',
        block=lambda stage: f'{model}encoder.stages.{stage - 1}.layers.{{b}}',
        block_layers=('dwconv', 'layernorm', 'pwconv1', 'pwconv2'),
        layer_scale='layer_scale_parameter',
        norm=f'{model}layernorm',
        head='classifier',
        response_norm=('grn.weight', 'grn.bias'),
        response_norm_transform=_CHANNELS_LAST,
    )
    return _lines(names, module)


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
        response_norm=('grn.gamma', 'grn.beta'),
        response_norm_transform=_CHANNELS_LAST,
    ),
)


def facebook_dinov3(module: ConvNeXtWithTokens) -> list[Line]:
    """As that of ConvNeXt; the last normalisation stands there twice, as it is one of a list too."""
    return [*facebook(module), *layer_norm_rules('norms.3', 'backbone/norm')]


def transformers_dinov3(module: ConvNeXtWithTokens) -> list[Line]:
    """Files say ``stages.2.layers.7.…``; the model in memory, ``model.stages.2.…``."""
    written, *others = [
        _lines(
            _Names(
                stem_conv=f'{model}stages.0.downsample_layers.0',
                stem_norm=f'{model}stages.0.downsample_layers.1',
                downsample=lambda stage, model=model: f'{model}stages.{stage - 1}.downsample_layers',
                block=lambda stage, model=model: f'{model}stages.{stage - 1}.layers.{{b}}',
                block_layers=('depthwise_conv', 'layer_norm', 'pointwise_conv1', 'pointwise_conv2'),
                layer_scale='gamma',
                norm='layer_norm',
                head='classifier',
            ),
            module,
        )
        for model in ('', 'model.')
    ]
    return [*written, *(alias for other in others for alias in aliases(other))]
