"""GoogLeNet as torchvision stores it."""

import dataclasses

from backbones.cnn.googlenet import GoogLeNet
from backbones.pretrained.keymaps.rules import Line, Rule, batch_norm_rules, convolution_rules, dense_rules, flattened

# Torchvision's names of our stages' blocks.
_BLOCKS = (
    ('conv1',),
    ('conv2', 'conv3'),
    ('inception3a', 'inception3b'),
    ('inception4a', 'inception4b', 'inception4c', 'inception4d', 'inception4e'),
    ('inception5a', 'inception5b'),
)
# Torchvision's names of an inception's layers, and ours; a plain convolution is a block by itself.
_BRANCHES = {
    'branch1': 'branch1',
    'branch2.0': 'branch2_reduce',
    'branch2.1': 'branch2',
    'branch3.0': 'branch3_reduce',
    'branch3.1': 'branch3',
    'branch4.1': 'branch4',
}


def torchvision(module: GoogLeNet) -> list[Line]:
    """``inception3a.branch2.0.conv.weight`` is ``backbone/stage3/block1/branch2_reduce/conv/kernel``.

    A model without auxiliary heads leaves those of a file unused.
    """
    rules = dense_rules('fc', 'head')
    for stage, blocks in enumerate(_BLOCKS, start=1):
        for number, block in enumerate(blocks, start=1):
            path = f'backbone/stage{stage}/block{number}'
            if block.startswith('conv'):
                rules += _layer(block, path)
            else:
                for key, name in _BRANCHES.items():
                    rules += _layer(f'{block}.{key}', f'{path}/{name}')
    auxiliary, path = 'aux{n}', 'backbone/auxiliary{n}'
    heads = [
        *_layer(f'{auxiliary}.conv', f'{path}/conv'),
        Rule(f'{auxiliary}.fc1.weight', f'params/{path}/dense1/kernel', flattened(4)),
        Rule(f'{auxiliary}.fc1.bias', f'params/{path}/dense1/bias'),
        *dense_rules(f'{auxiliary}.fc2', f'{path}/dense2'),
    ]
    return rules + [dataclasses.replace(line, optional=True) if isinstance(line, Rule) else line for line in heads]


def _layer(key: str, path: str) -> list[Line]:
    return [*convolution_rules(f'{key}.conv', f'{path}/conv'), *batch_norm_rules(f'{key}.bn', f'{path}/norm')]
