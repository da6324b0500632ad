"""Swin Transformer as torchvision, timm, transformers and its authors store it."""

from collections.abc import Callable

import numpy as np

from backbones.layers.attention import relative_position_index, shift_mask
from backbones.pretrained.keymaps.rules import (
    TRANSPOSE,
    Ignored,
    Line,
    Made,
    Rule,
    convolution_rules,
    dense_rules,
    layer_norm_rules,
)
from backbones.vit.swin import SwinTransformer

_TABLE = 'attention/relative_position_bias_table'

# A block's dense layers in files of transformers, the modules' own names since version 5, and ours.
_TRANSFORMERS_BLOCK = (
    ('attention.self.query', 'attention.q_proj', 'attention/qkv', (0, 3)),
    ('attention.self.key', 'attention.k_proj', 'attention/qkv', (1, 3)),
    ('attention.self.value', 'attention.v_proj', 'attention/qkv', (2, 3)),
    ('attention.output.dense', 'attention.o_proj', 'attention/projection', (0, 1)),
    ('intermediate.dense', 'mlp.fc1', 'mlp/dense1', (0, 1)),
    ('output.dense', 'mlp.fc2', 'mlp/dense2', (0, 1)),
)


def torchvision(module: SwinTransformer) -> list[Line]:
    """``features.{1, 3, 5, 7}`` are the stages, and what is between them merges; indices are flat buffers."""
    lines = _outside_the_stages('features.0.0', 'features.0.2', 'norm', 'head')
    for stage in range(1, len(module.depths) + 1):
        key, path = f'features.{2 * stage - 1}.{{b}}', f'backbone/stage{stage}/block{{b+1}}'
        lines += _block(key, path, 'mlp.0', 'mlp.3')
        index = f'{key}.attn.relative_position_index'
        lines.append(Made(index, f'params/{path}/{_TABLE}', lambda table: _index(table).ravel()))
        if stage > 1:
            lines += _downsample(f'features.{2 * stage - 2}', stage)
    return lines


def timm(module: SwinTransformer) -> list[Line]:
    """``layers.1.downsample`` begins stage 2 (since version 0.9; before, the naming was the authors')."""
    lines = _outside_the_stages('patch_embed.proj', 'patch_embed.norm', 'norm', 'head.fc')
    for stage in range(1, len(module.depths) + 1):
        path = f'backbone/stage{stage}/block{{b+1}}'
        lines += _block(f'layers.{stage - 1}.blocks.{{b}}', path, 'mlp.fc1', 'mlp.fc2')
        if stage > 1:
            lines += _downsample(f'layers.{stage - 1}.downsample', stage)
    return lines


def microsoft(module: SwinTransformer) -> list[Line]:
    """The authors' files: ``layers.0.downsample`` ends stage 1, and indices and masks are stored.

    The masks are those of images of ``32 * window`` pixels, whose last map is one window: 224 pixels and windows of 7,
    384 and 12, as published.
    """
    lines = _outside_the_stages('patch_embed.proj', 'patch_embed.norm', 'norm', 'head')
    count = len(module.depths)
    for stage, depth in enumerate(module.depths, start=1):
        key, path = f'layers.{stage - 1}.blocks', f'backbone/stage{stage}'
        lines += _block(f'{key}.{{b}}', f'{path}/block{{b+1}}', 'mlp.fc1', 'mlp.fc2')
        index = f'{key}.{{b}}.attn.relative_position_index'
        lines.append(Made(index, f'params/{path}/block{{b+1}}/{_TABLE}', _index))
        if stage < count:
            lines += _downsample(f'layers.{stage - 1}.downsample', stage + 1)
            mask = _mask(2 ** (count - stage))
            shifted = range(1, depth, 2)
            lines += [Made(f'{key}.{b}.attn_mask', f'params/{path}/block{b + 1}/{_TABLE}', mask) for b in shifted]
    return lines


def transformers(module: SwinTransformer) -> list[Line]:
    """The keys of its files, which every version reads: merging ends a stage; queries, keys and values are separate."""
    lines = _outside_the_stages(
        '[swin.]embeddings.patch_embeddings.projection', '[swin.]embeddings.norm', '[swin.]layernorm', 'classifier'
    )
    for stage in range(1, len(module.depths) + 1):
        layer = f'[swin.]encoder.layers.{stage - 1}'
        key, path = f'{layer}.blocks.{{b}}', f'backbone/stage{stage}/block{{b+1}}'
        lines += layer_norm_rules(f'{key}.layernorm_before', f'{path}/norm1')
        lines += layer_norm_rules(f'{key}.layernorm_after', f'{path}/norm2')
        for published, newer, ours, part in _TRANSFORMERS_BLOCK:
            for name, alias in ((published, False), (newer, True)):
                kernel, bias = f'params/{path}/{ours}/kernel', f'params/{path}/{ours}/bias'
                lines.append(Rule(f'{key}.{name}.weight', kernel, TRANSPOSE, part, alias=alias))
                lines.append(Rule(f'{key}.{name}.bias', bias, part=part, alias=alias))
        for name, alias in (('self', False), ('relative_position_bias', True)):
            table = f'{key}.attention.{name}.relative_position_bias_table'
            lines.append(Rule(table, f'params/{path}/{_TABLE}', alias=alias))
        if stage < len(module.depths):
            lines += _downsample(f'{layer}.downsample', stage + 1)
    return [*lines, Ignored(r'.*\.relative_position_index')]


def _outside_the_stages(convolution: str, patch_norm: str, norm: str, head: str) -> list[Line]:
    return [
        *convolution_rules(convolution, 'backbone/patch_embedding', bias=True),
        *layer_norm_rules(patch_norm, 'backbone/patch_norm'),
        *layer_norm_rules(norm, 'backbone/norm'),
        *dense_rules(head, 'head'),
    ]


def _block(key: str, path: str, dense1: str, dense2: str) -> list[Line]:
    """A block whose queries, keys and values are one layer."""
    return [
        *layer_norm_rules(f'{key}.norm1', f'{path}/norm1'),
        Rule(f'{key}.attn.relative_position_bias_table', f'params/{path}/{_TABLE}'),
        *dense_rules(f'{key}.attn.qkv', f'{path}/attention/qkv'),
        *dense_rules(f'{key}.attn.proj', f'{path}/attention/projection'),
        *layer_norm_rules(f'{key}.norm2', f'{path}/norm2'),
        *dense_rules(f'{key}.{dense1}', f'{path}/mlp/dense1'),
        *dense_rules(f'{key}.{dense2}', f'{path}/mlp/dense2'),
    ]


def _downsample(key: str, stage: int) -> list[Line]:
    """The merging layer that our ``stage`` begins with."""
    path = f'backbone/stage{stage}/downsample'
    return [
        *layer_norm_rules(f'{key}.norm', f'{path}_norm'),
        Rule(f'{key}.reduction.weight', f'params/{path}_reduction/kernel', TRANSPOSE),
    ]


def _window(table: np.ndarray) -> int:
    """The window that a table of relative positions belongs to."""
    return (round(len(table) ** 0.5) + 1) // 2


def _index(table: np.ndarray) -> np.ndarray:
    """The buffer that says where in the table the bias of each pair of positions is."""
    return relative_position_index(_window(table))


def _mask(windows: int) -> Callable[[np.ndarray], np.ndarray]:
    """A function that makes, from a table, the mask of a shifted map with so many windows along each side."""

    def make(table: np.ndarray) -> np.ndarray:
        window = _window(table)
        return shift_mask((windows, windows), window, (window // 2, window // 2))

    return make
