"""DINOv3's vision transformers as their authors, timm and transformers store them."""

import dataclasses

import numpy as np

from backbones.layers.rotary import periods_of
from backbones.pretrained.keymaps.rules import (
    Absent,
    Ignored,
    Line,
    Made,
    Rule,
    Transform,
    aliases,
    dense_rules,
    layer_norm_rules,
)
from backbones.pretrained.keymaps.vit import BlockKeys, block_rules, blocks, patch_rules, token_rules
from backbones.vit.vit import VisionTransformer

_AUTHORS = BlockKeys(
    'blocks.{}.',
    ('norm1', 'norm2'),
    ('attn.qkv.',),
    'attn.proj',
    ('mlp.fc1', 'mlp.fc2'),
    ('ls1.gamma', 'ls2.gamma'),
    ('mlp.w1', 'mlp.w2', 'mlp.w3'),
)
_TIMM = dataclasses.replace(
    _AUTHORS,
    scales=('gamma_1', 'gamma_2'),
    gated=('mlp.fc1_g', 'mlp.fc1_x', 'mlp.fc2'),
    biases=('attn.q_bias', 'attn.v_bias'),
)
_TRANSFORMERS = BlockKeys(
    'layer.{}.',
    ('norm1', 'norm2'),
    ('attention.q_proj.', 'attention.k_proj.', 'attention.v_proj.'),
    'attention.o_proj',
    ('mlp.up_proj', 'mlp.down_proj'),
    ('layer_scale1.lambda1', 'layer_scale2.lambda1'),
    ('mlp.gate_proj', 'mlp.up_proj', 'mlp.down_proj'),
)
_MASK_TOKEN = Transform('without one axis', lambda array: array[0], lambda array: array[None])


def is_dinov3(module: VisionTransformer) -> bool:
    """Whether the module has DINOv3's positions."""
    return (module.rotary or '').startswith('dinov3')


def _mask(bias: np.ndarray) -> np.ndarray:
    """What the authors multiply the packed bias by: zero for the keys, one for queries and values (``bias``)."""
    return np.repeat(np.array([1, 0, 1], np.float32), len(bias) // 2)


def authors(module: VisionTransformer) -> list[Line]:
    """Meta's own files, which hold the periods of the positions and a mask for the bias of the keys."""
    if not is_dinov3(module):
        return []
    width = module.channels // module.heads
    rules = [
        *patch_rules(module, 'patch_embed.proj'),
        *token_rules(module, class_token='cls_token', register_tokens='storage_tokens', mask_token='mask_token'),
        *block_rules(module, _AUTHORS),
        *layer_norm_rules('norm', 'backbone/norm'),
        Made('rope_embed.periods', 'params/backbone/norm/scale', lambda _: periods_of(str(module.rotary), width)),
        # Of the class tokens of small crops in training; only the weights for satellite images have it.
        Ignored(r'local_cls_norm\..*'),
    ]
    if module.attention_biases == 'queries_and_values':
        for number, path in blocks(module):
            rules.append(Made(f'blocks.{number}.attn.qkv.bias_mask', f'params/{path}/attention/qkv/bias', _mask))
    return rules


def timm(module: VisionTransformer) -> list[Line]:
    """Timm's usual files, in which queries and values have no bias: those of the published weights are zero."""
    rules = _timm(module, module.clone(attention_biases='none'))
    if rules and module.attention_biases == 'queries_and_values':
        rules += [Absent(f'params/{path}/attention/qkv/bias', exact=True) for _, path in blocks(module)]
    return rules


def timm_qkvb(module: VisionTransformer) -> list[Line]:
    """Those of timm's models whose names end in ``_qkvb``, which have these biases."""
    return _timm(module, module) if module.attention_biases == 'queries_and_values' else []


def _timm(module: VisionTransformer, biased: VisionTransformer) -> list[Line]:
    if not is_dinov3(module):
        return []
    return [
        *patch_rules(module, 'patch_embed.proj'),
        *token_rules(module, class_token='cls_token', register_tokens='reg_token'),
        Absent('params/backbone/mask_token'),
        *block_rules(biased, _TIMM),
        *layer_norm_rules('norm', 'backbone/norm'),
        *dense_rules('head', 'head'),
    ]


def transformers(module: VisionTransformer) -> list[Line]:
    """Files say ``layer.7.attention.q_proj.weight``; the model in memory, ``model.layer.7.…``."""
    if not is_dinov3(module):
        return []
    in_memory = dataclasses.replace(_TRANSFORMERS, block='model.layer.{}.')
    return [
        *patch_rules(module, 'embeddings.patch_embeddings'),
        *token_rules(module, class_token='embeddings.cls_token', register_tokens='embeddings.register_tokens'),
        Rule('embeddings.mask_token', 'params/backbone/mask_token', _MASK_TOKEN),
        *block_rules(module, _TRANSFORMERS),
        *layer_norm_rules('norm', 'backbone/norm'),
        *aliases(block_rules(module, in_memory)),
    ]
