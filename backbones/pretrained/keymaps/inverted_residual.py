"""Inverted residual blocks, as the references of EfficientNet and MobileNetV3 store them."""

from collections.abc import Iterator, Mapping

from backbones.cnn.efficientnet import EfficientNet
from backbones.cnn.mobilenet import MobileNetV3
from backbones.layers.inverted_residual import BlockConfig
from backbones.pretrained.keymaps.rules import Line, batch_norm_rules, convolution_rules


def layers_of(block: BlockConfig) -> list[str]:
    """Our names of the parts that a block has, in order."""
    expand = ['expand'] * (block.expanded != block.inputs)
    squeeze = ['squeeze_excitation'] * (block.squeezed > 0)
    return [*expand, 'depthwise', *squeeze, 'project']


def located_blocks(module: EfficientNet | MobileNetV3) -> Iterator[tuple[str, int, int, BlockConfig]]:
    """Our path of each block, its group and its place in the group, both from zero, and the block."""
    places = [(group, index) for group, blocks in enumerate(module.groups()) for index in range(len(blocks))]
    paths = [
        (f'backbone/stage{stage}/block{number}', block)
        for stage, blocks in enumerate(module.stages(), start=1)
        for number, block in enumerate(blocks, start=1)
    ]
    for (group, index), (path, block) in zip(places, paths, strict=True):
        yield path, group, index, block


def block_rules(path: str, block: BlockConfig, keys: Mapping[str, tuple[str, str]]) -> list[Line]:
    """The rules of one block.

    Args:
        path: our path of the block.
        block: configuration of the block.
        keys: our name of a part → their keys of its convolution and its normalisation, or of the two convolutions
            inside the squeeze-and-excitation.
    """
    rules = []
    for layer in layers_of(block):
        first, second = keys[layer]
        if layer == 'squeeze_excitation':
            rules += convolution_rules(first, f'{path}/{layer}/reduce', bias=True)
            rules += convolution_rules(second, f'{path}/{layer}/expand', bias=True)
        else:
            rules += convolution_rules(first, f'{path}/{layer}_conv')
            rules += batch_norm_rules(second, f'{path}/{layer}_norm')
    return rules


def torchvision_block_rules(key: str, path: str, block: BlockConfig) -> list[Line]:
    """One block, whose parts are numbered: ``block.1.0`` is the second part's convolution, ``block.1.1`` its norm."""
    keys = {}
    for number, layer in enumerate(layers_of(block)):
        first, second = ('fc1', 'fc2') if layer == 'squeeze_excitation' else ('0', '1')
        keys[layer] = f'{key}.block.{number}.{first}', f'{key}.block.{number}.{second}'
    return block_rules(path, block, keys)


def timm_block_rules(module: EfficientNet | MobileNetV3) -> list[Line]:
    """All blocks: ``blocks.2.1.conv_dw.weight`` is the depthwise kernel of the second block in the third group."""
    rules = []
    for path, group, index, block in located_blocks(module):
        key, layers = f'blocks.{group}.{index}', layers_of(block)
        convolutions = ['conv_pw', 'conv_dw', 'conv_pwl'] if 'expand' in layers else ['conv_dw', 'conv_pw']
        plain = [layer for layer in layers if layer != 'squeeze_excitation']
        keys = {
            layer: (f'{key}.{convolution}', f'{key}.bn{number}')
            for number, (layer, convolution) in enumerate(zip(plain, convolutions, strict=True), start=1)
        }
        keys['squeeze_excitation'] = (f'{key}.se.conv_reduce', f'{key}.se.conv_expand')
        rules += block_rules(path, block, keys)
    return rules
