"""Vision transformers as transformers stores them: ViT, DeiT, DINOv2, and the image towers of CLIP and SigLIP.

The keys that are written are those of published files, which every version reads; the names that version 5 gives the
same arrays in memory are read too.
"""

import dataclasses
from collections.abc import Callable, Sequence

from backbones.pretrained.keymaps.rules import TRANSPOSE, Ignored, Line, Rule, aliases, dense_rules, layer_norm_rules
from backbones.pretrained.keymaps.vit import (
    ONE_TABLE,
    ONE_TOKEN,
    POSITIONS,
    PROJECTION,
    BlockKeys,
    block_rules,
    packed_rules,
    patch_rules,
    token_rules,
)
from backbones.vit.vit import VisionTransformer

_VIT = BlockKeys(
    'encoder.layer.{}.',
    ('layernorm_before', 'layernorm_after'),
    ('attention.attention.query.', 'attention.attention.key.', 'attention.attention.value.'),
    'attention.output.dense',
    ('intermediate.dense', 'output.dense'),
)
_VIT_IN_MEMORY = dataclasses.replace(
    _VIT,
    block='layers.{}.',
    qkv=('attention.q_proj.', 'attention.k_proj.', 'attention.v_proj.'),
    projection='attention.o_proj',
    dense=('mlp.fc1', 'mlp.fc2'),
)
_DINOV2 = dataclasses.replace(
    _VIT,
    norms=('norm1', 'norm2'),
    dense=('mlp.fc1', 'mlp.fc2'),
    scales=('layer_scale1.lambda1', 'layer_scale2.lambda1'),
)
_DINOV2_IN_MEMORY = dataclasses.replace(_DINOV2, qkv=_VIT_IN_MEMORY.qkv, projection=_VIT_IN_MEMORY.projection)
_CLIP = BlockKeys(
    'encoder.layers.{}.',
    ('layer_norm1', 'layer_norm2'),
    ('self_attn.q_proj.', 'self_attn.k_proj.', 'self_attn.v_proj.'),
    'self_attn.out_proj',
    ('mlp.fc1', 'mlp.fc2'),
)

Tower = Callable[[VisionTransformer, str, BlockKeys], list[Line]]


def transformers(module: VisionTransformer) -> list[Line]:
    """``vit.encoder.layer.7.attention.attention.query.weight`` is the first third of our ``qkv/kernel``."""
    if module.rotary:
        return []
    if module.pre_norm or module.pooling == 'attention':
        rest = r'(text_model|classifier)\..*|text_projection\.weight|logit_scale|logit_bias|(.*\.)?position_ids'
        rules = _named(_image_tower, module, ('vision_model.', ''), (_CLIP,))
        rules.append(Rule('visual_projection.weight', PROJECTION, TRANSPOSE, optional=True))
        return [*rules, Ignored(rest)]
    if module.masked_pretraining:
        rules = _named(_encoder, module, ('', 'dinov2.', 'dinov2_with_registers.'), (_DINOV2, _DINOV2_IN_MEMORY))
        # Its classifier also takes the mean of the patches.
        return [*rules, Ignored(r'classifier\..*')]
    if not module.prefix or module.registers or module.layer_scale is not None or module.norm_after_pooling:
        return []
    name = 'deit.' if 'distillation_token' in module.prefix else 'vit.'
    rules = _named(_encoder, module, (name, ''), (_VIT, _VIT_IN_MEMORY))
    if module.pooling == 'distillation':
        rules += dense_rules('cls_classifier', 'head') + dense_rules('distillation_classifier', 'head/distillation')
    else:
        rules += dense_rules('classifier', 'head')
    return [*rules, Ignored(rf'({name})?(pooler\..*|embeddings\.mask_token)')]


def _named(tower: Tower, module: VisionTransformer, prefixes: Sequence[str], blocks: Sequence[BlockKeys]) -> list[Line]:
    """The first prefix and the first names of blocks are written, all others are aliases."""
    first, *others = [tower(module, prefix, keys) for keys in blocks for prefix in prefixes]
    return [*first, *(alias for other in others for alias in aliases(other))]


def _encoder(module: VisionTransformer, prefix: str, keys: BlockKeys) -> list[Line]:
    embeddings = f'{prefix}embeddings.'
    return [
        *patch_rules(module, f'{embeddings}patch_embeddings.projection'),
        *token_rules(
            module,
            class_token=f'{embeddings}cls_token',
            distillation_token=f'{embeddings}distillation_token',
            register_tokens=f'{embeddings}register_tokens',
            mask_token=f'{embeddings}mask_token',
        ),
        Rule(f'{embeddings}position_embeddings', POSITIONS),
        *block_rules(module, keys, prefix),
        *layer_norm_rules(f'{prefix}layernorm', 'backbone/norm'),
    ]


def _image_tower(module: VisionTransformer, prefix: str, keys: BlockKeys) -> list[Line]:
    rules = [
        *patch_rules(module, f'{prefix}embeddings.patch_embedding'),
        Rule(f'{prefix}embeddings.position_embedding.weight', POSITIONS, ONE_TABLE),
        *block_rules(module, keys, prefix),
        *layer_norm_rules(f'{prefix}post_layernorm', 'backbone/norm'),
    ]
    if module.prefix:
        rules.append(Rule(f'{prefix}embeddings.class_embedding', 'params/backbone/class_token', ONE_TOKEN))
    if module.pre_norm:
        rules += layer_norm_rules(f'{prefix}pre_layrnorm', 'backbone/norm_pre')
    if module.pooling == 'attention':
        head, path = f'{prefix}head.', 'backbone/attention_pooling'
        rules += [
            Rule(f'{head}probe', f'params/{path}/probe'),
            *packed_rules([f'{head}attention.in_proj_'], f'{path}/qkv'),
            *dense_rules(f'{head}attention.out_proj', f'{path}/projection'),
            *layer_norm_rules(f'{head}layernorm', f'{path}/norm'),
            *dense_rules(f'{head}mlp.fc1', f'{path}/mlp/dense1'),
            *dense_rules(f'{head}mlp.fc2', f'{path}/mlp/dense2'),
        ]
    return rules
