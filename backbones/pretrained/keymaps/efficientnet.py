"""EfficientNet as torchvision, timm, lukemelas/EfficientNet-PyTorch and transformers store it."""

from backbones.cnn.efficientnet import EfficientNet
from backbones.pretrained.keymaps.inverted_residual import (
    block_rules,
    located_blocks,
    timm_block_rules,
    torchvision_block_rules,
)
from backbones.pretrained.keymaps.rules import Line, batch_norm_rules, convolution_rules, dense_rules


def _ends(stem: tuple[str, str], head: tuple[str, str], classifier: str) -> list[Line]:
    """Rules around the blocks: for a convolution and its normalisation at either end, and for the classifier."""
    return [
        *convolution_rules(stem[0], 'backbone/stem_conv'),
        *batch_norm_rules(stem[1], 'backbone/stem_norm'),
        *convolution_rules(head[0], 'backbone/head_conv'),
        *batch_norm_rules(head[1], 'backbone/head_norm'),
        *dense_rules(classifier, 'head'),
    ]


def torchvision(module: EfficientNet) -> list[Line]:
    """``features.3.0.block.1.0.weight`` is ``backbone/stage3/block1/depthwise_conv/kernel``."""
    rules = _ends(('features.0.0', 'features.0.1'), ('features.8.0', 'features.8.1'), 'classifier.1')
    for path, group, index, block in located_blocks(module):
        rules += torchvision_block_rules(f'features.{group + 1}.{index}', path, block)
    return rules


def timm(module: EfficientNet) -> list[Line]:
    """``blocks.2.0.conv_dw.weight`` is ``backbone/stage3/block1/depthwise_conv/kernel``."""
    return _ends(('conv_stem', 'bn1'), ('conv_head', 'bn2'), 'classifier') + timm_block_rules(module)


def lukemelas(module: EfficientNet) -> list[Line]:
    """``_blocks.3._depthwise_conv.weight`` is ``backbone/stage3/block1/depthwise_conv/kernel`` in B0."""
    rules = _ends(('_conv_stem', '_bn0'), ('_conv_head', '_bn1'), '_fc')
    for number, (path, _, _, block) in enumerate(located_blocks(module)):
        key = f'_blocks.{number}.'
        keys = {
            'expand': (f'{key}_expand_conv', f'{key}_bn0'),
            'depthwise': (f'{key}_depthwise_conv', f'{key}_bn1'),
            'squeeze_excitation': (f'{key}_se_reduce', f'{key}_se_expand'),
            'project': (f'{key}_project_conv', f'{key}_bn2'),
        }
        rules += block_rules(path, block, keys)
    return rules


def transformers(module: EfficientNet) -> list[Line]:
    """``efficientnet.encoder.blocks.3.depthwise_conv.depthwise_conv.weight`` is
    ``backbone/stage3/block1/depthwise_conv/kernel`` in B0.
    """
    stem, head = 'efficientnet.embeddings.', 'efficientnet.encoder.top_'
    rules = _ends((f'{stem}convolution', f'{stem}batchnorm'), (f'{head}conv', f'{head}bn'), 'classifier')
    for number, (path, _, _, block) in enumerate(located_blocks(module)):
        key = f'efficientnet.encoder.blocks.{number}.'
        keys = {
            'expand': (f'{key}expansion.expand_conv', f'{key}expansion.expand_bn'),
            'depthwise': (f'{key}depthwise_conv.depthwise_conv', f'{key}depthwise_conv.depthwise_norm'),
            'squeeze_excitation': (f'{key}squeeze_excite.reduce', f'{key}squeeze_excite.expand'),
            'project': (f'{key}projection.project_conv', f'{key}projection.project_bn'),
        }
        rules += block_rules(path, block, keys)
    return rules
