"""ResNet as torchvision and timm store it (the same keys), and as transformers does."""

from backbones.cnn.resnet import ResNet
from backbones.pretrained.keymaps.rules import Line, batch_norm_rules, convolution_rules, dense_rules


def torchvision(module: ResNet) -> list[Line]:
    """``layer1.0.conv1.weight`` is ``backbone/stage1/block1/conv1/kernel``."""
    block, path = 'layer{s}.{b}.', 'backbone/stage{s}/block{b+1}/'
    return [
        *convolution_rules('conv1', 'backbone/stem_conv'),
        *batch_norm_rules('bn1', 'backbone/stem_norm'),
        *convolution_rules(f'{block}conv{{n}}', f'{path}conv{{n}}'),
        *batch_norm_rules(f'{block}bn{{n}}', f'{path}norm{{n}}'),
        *convolution_rules(f'{block}downsample.0', f'{path}shortcut_conv'),
        *batch_norm_rules(f'{block}downsample.1', f'{path}shortcut_norm'),
        *dense_rules('fc', 'head'),
    ]


def transformers(module: ResNet) -> list[Line]:
    """``ResNetForImageClassification``, or ``ResNetModel`` alone, whose keys begin after ``resnet.``.

    It has neither groups nor other widths nor a stem for small images, so those modules have no such layout.
    """
    if (module.groups, module.base_width, module.small_images) != (1, 64, False):
        return []
    stem, stage = '[resnet.]embedder.embedder.', '[resnet.]encoder.stages.{s}.layers.{b}.'
    path = 'backbone/stage{s+1}/block{b+1}/'
    return [
        *convolution_rules(f'{stem}convolution', 'backbone/stem_conv'),
        *batch_norm_rules(f'{stem}normalization', 'backbone/stem_norm'),
        *convolution_rules(f'{stage}layer.{{n}}.convolution', f'{path}conv{{n+1}}'),
        *batch_norm_rules(f'{stage}layer.{{n}}.normalization', f'{path}norm{{n+1}}'),
        *convolution_rules(f'{stage}shortcut.convolution', f'{path}shortcut_conv'),
        *batch_norm_rules(f'{stage}shortcut.normalization', f'{path}shortcut_norm'),
        *dense_rules('classifier.1', 'head'),
    ]
