"""Hiera as timm, its authors and transformers store it."""

from collections.abc import Iterator

from backbones.pretrained.keymaps.rules import (
    Ignored,
    Line,
    Rule,
    aliases,
    convolution_rules,
    dense_rules,
    layer_norm_rules,
)
from backbones.pretrained.keymaps.vit import POSITIONS
from backbones.vit.hiera import Hiera


def timm(module: Hiera) -> list[Line]:
    """``blocks.3.attn.qkv.weight`` is ``backbone/stage3/block1/attention/qkv/kernel`` in the tiny and the small one."""
    return _rules(module, 'head.norm', 'head.fc')


def facebook(module: Hiera) -> list[Line]:
    """The authors' own, whose blocks have timm's names; files of the pretraining hold its decoder too."""
    return [
        *_rules(module, 'norm', 'head.projection'),
        *aliases(layer_norm_rules('encoder_norm', 'backbone/norm')),
        Ignored(r'decoder_.*|mask_token|multi_scale_fusion_heads\..*'),
    ]


def transformers(module: Hiera) -> list[Line]:
    """``hiera.encoder.stages.2.layers.0.attn.qkv.weight`` is ``backbone/stage3/block1/attention/qkv/kernel``."""
    lines: list[Line] = [
        *convolution_rules('[hiera.]embeddings.patch_embeddings.projection', 'backbone/patch_embedding', bias=True),
        Rule('[hiera.]embeddings.position_embeddings', POSITIONS),
        *layer_norm_rules('[hiera.]pooler.layernorm', 'backbone/norm'),
        *dense_rules('classifier', 'head'),
    ]
    for stage, index, path in _blocks(module):
        key = f'[hiera.]encoder.stages.{stage}.layers.{index}'
        lines += _block(key, path, ('layernorm_before', 'layernorm_after'), stage > 0 and index == 0)
    return lines


def _rules(module: Hiera, norm: str, head: str) -> list[Line]:
    lines: list[Line] = [
        *convolution_rules('patch_embed.proj', 'backbone/patch_embedding', bias=True),
        Rule('pos_embed', POSITIONS),
        *layer_norm_rules(norm, 'backbone/norm'),
        *dense_rules(head, 'head'),
    ]
    for number, (stage, index, path) in enumerate(_blocks(module)):
        lines += _block(f'blocks.{number}', path, ('norm1', 'norm2'), stage > 0 and index == 0)
    return lines


def _blocks(module: Hiera) -> Iterator[tuple[int, int, str]]:
    """Stage and place of each block, from zero, and its path."""
    for stage, depth in enumerate(module.depths):
        for index in range(depth):
            yield stage, index, f'backbone/stage{stage + 1}/block{index + 1}'


def _block(key: str, path: str, norms: tuple[str, str], grows: bool) -> list[Line]:
    lines = [
        *layer_norm_rules(f'{key}.{norms[0]}', f'{path}/norm1'),
        *dense_rules(f'{key}.attn.qkv', f'{path}/attention/qkv'),
        *dense_rules(f'{key}.attn.proj', f'{path}/attention/projection'),
        *layer_norm_rules(f'{key}.{norms[1]}', f'{path}/norm2'),
        *dense_rules(f'{key}.mlp.fc1', f'{path}/mlp/dense1'),
        *dense_rules(f'{key}.mlp.fc2', f'{path}/mlp/dense2'),
    ]
    return [*lines, *dense_rules(f'{key}.proj', f'{path}/shortcut')] if grows else lines
