"""EVA-02 as timm and its authors store it."""

import dataclasses
import math

import numpy as np

from backbones.errors import UserError
from backbones.layers.rotary import PAIRINGS, rotation_for
from backbones.pretrained.keymaps.rules import Ignored, Line, Made, Rule, aliases, dense_rules, layer_norm_rules
from backbones.pretrained.keymaps.vit import POSITIONS, BlockKeys, block_rules, blocks, patch_rules, token_rules
from backbones.vit.vit import VisionTransformer

_TIMM = BlockKeys(
    'blocks.{}.',
    ('norm1', 'norm2'),
    ('attn.qkv.',),
    'attn.proj',
    ('', ''),
    gated=('mlp.fc1', 'mlp.fc2'),
    biases=('attn.q_bias', 'attn.v_bias'),
)
# Where the hidden layer is normalised, projections are stored one by one.
_TIMM_SPLIT = dataclasses.replace(
    _TIMM,
    qkv=('attn.q_proj.', 'attn.k_proj.', 'attn.v_proj.'),
    gated=('mlp.fc1_g', 'mlp.fc1_x', 'mlp.fc2'),
    biases=(),
    mlp_norm='mlp.norm',
)
_AUTHORS = dataclasses.replace(_TIMM, gated=('mlp.w12', 'mlp.w3'))
_AUTHORS_SPLIT = dataclasses.replace(
    _TIMM_SPLIT, gated=('mlp.w1', 'mlp.w2', 'mlp.w3'), biases=_TIMM.biases, mlp_norm='mlp.ffn_ln'
)


def _rules(module: VisionTransformer, keys: BlockKeys) -> list[Line]:
    return [
        *patch_rules(module, 'patch_embed.proj'),
        *token_rules(module, class_token='cls_token'),
        Rule('pos_embed', POSITIONS),
        *block_rules(module, keys),
        *layer_norm_rules('fc_norm' if module.norm_after_pooling else 'norm', 'backbone/norm'),
        *dense_rules('head', 'head'),
    ]


def timm(module: VisionTransformer) -> list[Line]:
    """``blocks.7.mlp.fc1.weight`` holds the gates and the values, ``fc1_g`` and ``fc1_x`` of the base size one each."""
    if module.rotary != 'eva02':
        return []
    return _rules(module, _TIMM_SPLIT if module.hidden_norm else _TIMM)


def authors(module: VisionTransformer) -> list[Line]:
    """The authors' own files, which also hold the cosines and sines of the positions, once more in every block.

    Files of the pretraining hold its mask token and head, and a normalisation of all tokens; timm reads it as that
    which comes after the pooling.
    """
    if module.rotary != 'eva02':
        return []
    rules = _rules(module, _AUTHORS_SPLIT if module.hidden_norm else _AUTHORS)
    rules.append(Ignored(r'mask_token|lm_head\..*'))
    if module.norm_after_pooling:
        rules += aliases(layer_norm_rules('norm', 'backbone/norm'))
    for prefix in ('rope', *(f'blocks.{number}.attn.rope' for number, _ in blocks(module))):
        rules.append(Made(f'{prefix}.freqs_cos', POSITIONS, lambda table: _of_positions(module, table, 'cosine')))
        rules.append(Made(f'{prefix}.freqs_sin', POSITIONS, lambda table: _of_positions(module, table, 'sine')))
    return rules


def _of_positions(module: VisionTransformer, table: np.ndarray, function: str) -> np.ndarray:
    """Cosine or sine of each patch's angles, for both channels of a pair, at the size that the table is made for.

    Raises:
        UserError: its grid is not square, and how many of its positions are rows the table does not say.
    """
    patches = table.shape[1] - len(module.prefix)
    side = math.isqrt(patches)
    if side**2 != patches:
        raise UserError(
            f"the authors' layout of EVA-02 holds the cosines of a square grid of patches, and {patches} positions "
            "are not those of one: save another layout, such as 'timm', or weights that were loaded for square images"
        )
    rotation = rotation_for('eva02', (side, side), module.channels // module.heads)
    values = np.asarray(getattr(rotation, function))
    assert PAIRINGS[rotation.pairing] == -1
    return np.repeat(values, 2, axis=-1)
