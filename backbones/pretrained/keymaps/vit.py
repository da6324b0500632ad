"""Vision transformers as timm, torchvision, and the authors of CLIP and of DINOv2 store them.

A layout that a variant of the module never had gives no lines.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from backbones.errors import UserError
from backbones.pretrained.keymaps.rules import (
    IDENTITY,
    TRANSPOSE,
    Absent,
    Ignored,
    Line,
    Made,
    Rule,
    Transform,
    aliases,
    convolution_rules,
    dense_rules,
    layer_norm_rules,
)
from backbones.vit.vit import VisionTransformer

POSITIONS = 'params/backbone/position_embedding'
PROJECTION = 'params/backbone/projection/kernel'

ONE_TOKEN = Transform('as one token', lambda array: array.reshape(1, 1, -1), lambda array: array[0, 0])
ONE_TABLE = Transform('as one table', lambda array: array[None], lambda array: array[0])


@dataclasses.dataclass(frozen=True)
class BlockKeys:
    """What a layout calls the parts of a block; empty for what it has no name for.

    Attributes:
        block: prefix of a block, with a field for its number.
        norms: normalisations before the attention and before the feed-forward layers.
        qkv: one packed projection, or three; ``weight`` or ``bias`` follows directly.
        projection: the layer after the attention.
        dense: the feed-forward layers.
        scales: the factors on both branches.
        gated: gates, values and output of feed-forward layers that are gated; or gates and values in one, and output.
        biases: those of queries and of values, where they are stored apart from the packed projection.
        mlp_norm: the normalisation between the feed-forward layers.
    """

    block: str
    norms: tuple[str, str]
    qkv: tuple[str, ...]
    projection: str
    dense: tuple[str, str]
    scales: tuple[str, str] = ('', '')
    gated: tuple[str, ...] = ('', '', '')
    biases: tuple[str, ...] = ()
    mlp_norm: str = ''


_TIMM = BlockKeys(
    'blocks.{}.', ('norm1', 'norm2'), ('attn.qkv.',), 'attn.proj', ('mlp.fc1', 'mlp.fc2'), ('ls1.gamma', 'ls2.gamma')
)
_TORCHVISION = BlockKeys(
    'encoder.layers.encoder_layer_{}.',
    ('ln_1', 'ln_2'),
    ('self_attention.in_proj_',),
    'self_attention.out_proj',
    ('mlp.0', 'mlp.3'),
)
_CLIP = BlockKeys(
    'transformer.resblocks.{}.', ('ln_1', 'ln_2'), ('attn.in_proj_',), 'attn.out_proj', ('mlp.c_fc', 'mlp.c_proj')
)


class _InStages(Protocol):
    """A transformer of images or of texts."""

    def stage_depths(self) -> tuple[int, ...]: ...


def blocks(module: _InStages) -> Iterator[tuple[int, str]]:
    """Each block's number from zero, and its path: 7 is ``backbone/stage3/block2`` in a transformer of 12 blocks."""
    paths = (
        f'backbone/stage{stage}/block{block}'
        for stage, depth in enumerate(module.stage_depths(), start=1)
        for block in range(1, depth + 1)
    )
    yield from enumerate(paths)


_WITHOUT_KEYS = Transform(
    'bias of the keys left out',
    lambda bias: bias.reshape(3, -1)[::2].reshape(-1),
    lambda bias: np.insert(bias.reshape(2, -1), 1, 0, axis=0).reshape(-1),
)


def packed_rules(keys: Sequence[str], path: str, biases: str = 'all', apart: Sequence[str] = ()) -> list[Line]:
    """Queries, keys and values in one projection of theirs, or in one projection each.

    Args:
        keys: of the projections; ``weight`` or ``bias`` follows directly.
        path: of ours.
        biases: which of ours there are, a name of ``layers.attention.BIASES``.
        apart: where they are: keys of the biases of queries and of values.
    """
    rules: list[Line] = []
    for index, key in enumerate(keys):
        part = index, len(keys)
        rules.append(Rule(f'{key}weight', f'params/{path}/kernel', TRANSPOSE, part))
        if biases == 'all':
            rules.append(Rule(f'{key}bias', f'params/{path}/bias', part=part))
    if biases == 'queries_and_values':
        if len(keys) == 1 and not apart:
            rules.append(Rule(f'{keys[0]}bias', f'params/{path}/bias', _WITHOUT_KEYS))
        else:
            two = apart or (f'{keys[0]}bias', f'{keys[2]}bias')
            rules += [Rule(key, f'params/{path}/bias', part=(index, 2)) for index, key in enumerate(two)]
    return rules


def gated_rules(keys: Sequence[str], path: str) -> list[Line]:
    """Gates and values, in one projection or one each of theirs, side by side in our first layer; then the second."""
    *first, out = keys
    rules = dense_rules(out, f'{path}/dense2')
    for index, key in enumerate(first):
        part = index, len(first)
        rules.append(Rule(f'{key}.weight', f'params/{path}/dense1/kernel', TRANSPOSE, part))
        rules.append(Rule(f'{key}.bias', f'params/{path}/dense1/bias', part=part))
    return rules


def block_rules(module: VisionTransformer, keys: BlockKeys, prefix: str = '') -> list[Line]:
    """All blocks, but for parts without a name; ``prefix`` is what their keys begin with."""
    rules: list[Line] = []
    for number, path in blocks(module):
        block = prefix + keys.block.format(number)
        apart = [block + key for key in keys.biases]
        qkv = [block + key for key in keys.qkv]
        rules += packed_rules(qkv, f'{path}/attention/qkv', module.attention_biases, apart)
        rules += dense_rules(block + keys.projection, f'{path}/attention/projection')
        if module.gated and all(keys.gated):
            rules += gated_rules([block + key for key in keys.gated], f'{path}/mlp')
        if module.hidden_norm and keys.mlp_norm:
            rules += layer_norm_rules(block + keys.mlp_norm, f'{path}/mlp/norm')
        for branch, (norm, dense, scale) in enumerate(zip(keys.norms, keys.dense, keys.scales, strict=True), start=1):
            rules += layer_norm_rules(block + norm, f'{path}/norm{branch}')
            if not module.gated and dense:
                rules += dense_rules(block + dense, f'{path}/mlp/dense{branch}')
            if module.layer_scale is not None and scale:
                rules.append(Rule(block + scale, f'params/{path}/layer_scale{branch}/scale'))
    return rules


def patch_rules(module: VisionTransformer, key: str) -> list[Line]:
    """The patch embedding."""
    return convolution_rules(key, 'backbone/patch_embedding', module.patch_bias)


def token_rules(module: VisionTransformer, **keys: str) -> list[Line]:
    """Our name → their key, for those tokens that this variant has."""
    kept = [*module.prefix]
    kept += ['register_tokens'] if module.registers else []
    kept += ['mask_token'] if module.masked_pretraining else []
    return [Rule(key, f'params/backbone/{name}') for name, key in keys.items() if name in kept]


def is_plain(module: VisionTransformer) -> bool:
    """Whether it is the vision transformer of Dosovitskiy et al. 2021, which torchvision and big_vision know."""
    extras = module.registers, module.masked_pretraining, module.pre_norm, module.layer_scale, module.projected_channels
    plain = module.position_table and module.attention_biases == 'all' and not (module.rotary or module.gated)
    tokens = module.prefix == ('class_token',) and module.pooling == 'token'
    return plain and tokens and module.patch_bias and not any(extras)


def _without_class_position(table: np.ndarray) -> np.ndarray:
    if table[:, 0].any():
        raise UserError(
            'timm keeps no position for the class token: add position_embedding[:, 0] to class_token and set it to '
            'zero, which leaves the function as it is, or choose another layout'
        )
    return table[:, 1:]


_NO_CLASS_POSITION = Transform(
    'class position of zero added', lambda table: np.pad(table, ((0, 0), (1, 0), (0, 0))), _without_class_position
)


def timm(module: VisionTransformer) -> list[Line]:
    """``blocks.7.attn.qkv.weight`` is ``backbone/stage3/block2/attention/qkv/kernel`` in a transformer of 12 blocks."""
    if module.rotary:
        return []
    rules = [
        *patch_rules(module, 'patch_embed.proj'),
        *token_rules(module, class_token='cls_token', distillation_token='dist_token', register_tokens='reg_token'),
        Absent('params/backbone/mask_token'),
        Rule('pos_embed', POSITIONS, _NO_CLASS_POSITION if module.prefix and module.registers else IDENTITY),
        *block_rules(module, _TIMM),
        *layer_norm_rules('fc_norm' if module.norm_after_pooling else 'norm', 'backbone/norm'),
    ]
    if module.pre_norm:
        rules += layer_norm_rules('norm_pre', 'backbone/norm_pre')
    if module.pooling == 'attention':
        path = 'backbone/attention_pooling'
        rules += [
            Rule('attn_pool.latent', f'params/{path}/probe'),
            Rule('attn_pool.q.weight', f'params/{path}/qkv/kernel', TRANSPOSE, (0, 3)),
            Rule('attn_pool.q.bias', f'params/{path}/qkv/bias', part=(0, 3)),
            Rule('attn_pool.kv.weight', f'params/{path}/qkv/kernel', TRANSPOSE, (1, 3), span=2),
            Rule('attn_pool.kv.bias', f'params/{path}/qkv/bias', part=(1, 3), span=2),
            *dense_rules('attn_pool.proj', f'{path}/projection'),
            *layer_norm_rules('attn_pool.norm', f'{path}/norm'),
            *dense_rules('attn_pool.mlp.fc{n}', f'{path}/mlp/dense{{n}}'),
        ]
    if module.projected_channels is None:
        return [*rules, *dense_rules('head', 'head'), *dense_rules('head_dist', 'head/distillation')]
    # Timm stores CLIP's projection as a classifier, whose bias is zero.
    return [
        *rules,
        Rule('head.weight', PROJECTION, TRANSPOSE),
        Made('head.bias', PROJECTION, lambda kernel: np.zeros(kernel.shape[-1], np.float32)),
    ]


def torchvision(module: VisionTransformer) -> list[Line]:
    """``encoder.layers.encoder_layer_7.mlp.0.weight``; older files say ``mlp.linear_1`` and ``mlp.linear_2``."""
    if not is_plain(module):
        return []
    older = dataclasses.replace(_TORCHVISION, dense=('mlp.linear_1', 'mlp.linear_2'))
    return [
        *patch_rules(module, 'conv_proj'),
        *token_rules(module, class_token='class_token'),
        Rule('encoder.pos_embedding', POSITIONS),
        *block_rules(module, _TORCHVISION),
        *layer_norm_rules('encoder.ln', 'backbone/norm'),
        *dense_rules('heads.head', 'head'),
        *aliases(block_rules(module, older)),
    ]


def dinov2(module: VisionTransformer) -> list[Line]:
    """The authors' own; blocks have timm's names."""
    if not module.masked_pretraining or module.rotary:
        return []
    return [
        *patch_rules(module, 'patch_embed.proj'),
        *token_rules(module, class_token='cls_token', register_tokens='register_tokens', mask_token='mask_token'),
        Rule('pos_embed', POSITIONS),
        *block_rules(module, _TIMM),
        *layer_norm_rules('norm', 'backbone/norm'),
    ]


def clip(module: VisionTransformer) -> list[Line]:
    """OpenAI's and open_clip's, both towers in one file: ``visual.transformer.resblocks.7.attn.in_proj_weight``."""
    text = r'(transformer|token_embedding|ln_final|text)\..*|positional_embedding|text_projection'
    others = r'logit_scale|logit_bias|input_resolution|context_length|vocab_size'
    return [*_clip_tower(module, 'visual.'), Ignored(f'{text}|{others}')] if module.pre_norm else []


def clip_visual(module: VisionTransformer) -> list[Line]:
    """The image tower alone (``model.visual``), whose keys are named as those of the text tower are in a whole file."""
    return _clip_tower(module, '') if module.pre_norm else []


def _clip_tower(module: VisionTransformer, prefix: str) -> list[Line]:
    return [
        *patch_rules(module, f'{prefix}conv1'),
        Rule(f'{prefix}class_embedding', 'params/backbone/class_token', ONE_TOKEN),
        Rule(f'{prefix}positional_embedding', POSITIONS, ONE_TABLE),
        *layer_norm_rules(f'{prefix}ln_pre', 'backbone/norm_pre'),
        *block_rules(module, _CLIP, prefix),
        *layer_norm_rules(f'{prefix}ln_post', 'backbone/norm'),
        Rule(f'{prefix}proj', PROJECTION, optional=True),
    ]
