"""ResNet as torchvision and timm store it: the same keys."""

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
