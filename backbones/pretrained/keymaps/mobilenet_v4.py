"""MobileNetV4 as timm stores it."""

from collections.abc import Iterator

from backbones.cnn.mobilenet_v4 import BlockConfig, MobileNetV4
from backbones.pretrained.keymaps.rules import (
    POINTWISE,
    Line,
    Rule,
    batch_norm_rules,
    conv_norm_rules,
    convolution_rules,
    dense_rules,
)


def timm(module: MobileNetV4) -> list[Line]:
    """``blocks.2.0.dw_mid.conv.weight`` is ``backbone/stage4/block1/depthwise/conv/kernel``."""
    rules = [
        *_convolution('conv_stem', 'bn1', 'backbone/stage1/block1/conv'),
        Rule('conv_head.weight', 'params/backbone/head_dense/kernel', POINTWISE),
        *batch_norm_rules('norm_head', 'backbone/head_norm'),
        *dense_rules('classifier', 'head'),
    ]
    for key, path, block in _located_blocks(module):
        rules += _KINDS[block.kind](key, path, block)
        if module.layer_scale is not None and block.kind in ('bottleneck', 'attention'):
            rules.append(Rule(f'{key}.layer_scale.gamma', f'params/{path}/layer_scale/scale'))
    return rules


def _located_blocks(module: MobileNetV4) -> Iterator[tuple[str, str, BlockConfig]]:
    """Their key and our path of each block after the stem; the last block is a group of its own there."""
    stages = module.stages()
    for group, blocks in enumerate(stages[1:]):
        for index, block in enumerate(blocks):
            last = group + 2 == len(stages) and index + 1 == len(blocks)
            key = f'blocks.{group + 1}.0' if last else f'blocks.{group}.{index}'
            yield key, f'backbone/stage{group + 2}/block{index + 1}', block


def _convolution(conv: str, norm: str, path: str) -> list[Line]:
    """One of our ``ConvNormActivation``, of which theirs are two modules."""
    return [*convolution_rules(conv, f'{path}/conv'), *batch_norm_rules(norm, f'{path}/norm')]


def _fused(key: str, path: str) -> list[Line]:
    expand = _convolution(f'{key}.conv_exp', f'{key}.bn1', f'{path}/expand')
    return [*expand, *_convolution(f'{key}.conv_pwl', f'{key}.bn2', f'{path}/project')]


def _bottleneck(key: str, path: str, block: BlockConfig) -> list[Line]:
    layers = {'dw_start': 'first_depthwise'} if block.first_kernel else {}
    layers['pw_exp'] = 'expand'
    layers |= {'dw_mid': 'depthwise'} if block.kernel else {}
    layers['pw_proj'] = 'project'
    return [line for theirs, ours in layers.items() for line in conv_norm_rules(f'{key}.{theirs}', f'{path}/{ours}')]


def _attention(key: str, path: str, block: BlockConfig) -> list[Line]:
    rules = batch_norm_rules(f'{key}.norm', f'{path}/norm')
    key, path = f'{key}.attn', f'{path}/attention'
    if block.reduction > 1:
        for name in ('key', 'value'):
            rules += convolution_rules(f'{key}.{name}.down_conv', f'{path}/{name}_conv')
            rules += batch_norm_rules(f'{key}.{name}.norm', f'{path}/{name}_norm')
    for theirs, ours in (('query', 'query'), ('key', 'key'), ('value', 'value'), ('output', 'projection')):
        rules += convolution_rules(f'{key}.{theirs}.proj', f'{path}/{ours}')
    return rules


_KINDS = {
    'convolution': lambda key, path, block: _convolution(f'{key}.conv', f'{key}.bn1', f'{path}/conv'),
    'fused': lambda key, path, block: _fused(key, path),
    'bottleneck': _bottleneck,
    'attention': _attention,
}
