"""Vision transformers as big_vision stores them in ``.npz`` files: augreg's ViT, and SigLIP's image tower.

Arrays have the axes of flax, as ours do, except that attention heads have an axis of their own.
"""

from backbones.pretrained.keymaps.rules import Ignored, Line, Rule, Transform, aliases
from backbones.pretrained.keymaps.vit import POSITIONS, blocks, is_plain
from backbones.vit.vit import VisionTransformer


def big_vision(module: VisionTransformer) -> list[Line]:
    """``Transformer/encoderblock_7/MultiHeadDotProductAttention_1/query/kernel``; newer flax counts from zero."""
    if module.pooling == 'attention':
        towers = [_tower(module, prefix, older=False) for prefix in ('params/img/', 'params/', '')]
        ignored = r'params/(txt/.*|t|b)'
    elif is_plain(module):
        named = [('', True), ('opt/target/', True), ('params/', False), ('', False)]
        towers = [_tower(module, prefix, older) for prefix, older in named]
        # The hidden layer of the classifier in pretraining, which later weights lack.
        ignored = r'(.*/)?pre_logits/.*|opt/state/.*'
    else:
        return []
    first, *others = towers
    return [*first, *(alias for other in others for alias in aliases(other)), Ignored(ignored)]


def _tower(module: VisionTransformer, prefix: str, older: bool) -> list[Line]:
    attention, norm2, mlp, positions = (
        ('MultiHeadDotProductAttention_1', 'LayerNorm_2', 'MlpBlock_3', 'Transformer/posembed_input/pos_embedding')
        if older
        else ('MultiHeadDotProductAttention_0', 'LayerNorm_1', 'MlpBlock_0', 'pos_embedding')
    )
    rules = [
        *_same(f'{prefix}embedding', 'backbone/patch_embedding', 'kernel', 'bias'),
        Rule(f'{prefix}{positions}', POSITIONS),
        *_same(f'{prefix}Transformer/encoder_norm', 'backbone/norm', 'scale', 'bias'),
        *_same(f'{prefix}head', 'head', 'kernel', 'bias'),
    ]
    for number, path in blocks(module):
        block = f'{prefix}Transformer/encoderblock_{number}'
        rules += _same(f'{block}/LayerNorm_0', f'{path}/norm1', 'scale', 'bias')
        rules += _attention(f'{block}/{attention}', f'{path}/attention', module.heads)
        rules += _same(f'{block}/{norm2}', f'{path}/norm2', 'scale', 'bias')
        rules += _feed_forward(f'{block}/{mlp}', f'{path}/mlp')
    if module.prefix:
        rules.append(Rule(f'{prefix}cls', 'params/backbone/class_token'))
    if module.pooling == 'attention':
        head, path = f'{prefix}MAPHead_0', 'backbone/attention_pooling'
        rules += [
            Rule(f'{head}/probe', f'params/{path}/probe'),
            *_attention(f'{head}/MultiHeadDotProductAttention_0', path, module.heads),
            *_same(f'{head}/LayerNorm_0', f'{path}/norm', 'scale', 'bias'),
            *_feed_forward(f'{head}/MlpBlock_0', f'{path}/mlp'),
        ]
    return rules


def _same(key: str, path: str, *leaves: str) -> list[Line]:
    return [Rule(f'{key}/{leaf}', f'params/{path}/{leaf}') for leaf in leaves]


def _feed_forward(key: str, path: str) -> list[Line]:
    first, second = (_same(f'{key}/Dense_{n}', f'{path}/dense{n + 1}', 'kernel', 'bias') for n in range(2))
    return first + second


def _attention(key: str, path: str, heads: int) -> list[Line]:
    """Theirs are ``[channels, heads, width]`` for queries, keys and values, and ``[heads, width, channels]``."""
    into = Transform(
        'heads joined',
        lambda array: array.reshape(array.shape[0], -1),
        lambda array: array.reshape(array.shape[0], heads, -1),
    )
    bias = Transform('heads joined', lambda array: array.reshape(-1), lambda array: array.reshape(heads, -1))
    out = Transform(
        'heads joined',
        lambda array: array.reshape(-1, array.shape[-1]),
        lambda array: array.reshape(heads, -1, array.shape[-1]),
    )
    rules: list[Line] = []
    for index, name in enumerate(('query', 'key', 'value')):
        rules.append(Rule(f'{key}/{name}/kernel', f'params/{path}/qkv/kernel', into, (index, 3)))
        rules.append(Rule(f'{key}/{name}/bias', f'params/{path}/qkv/bias', bias, (index, 3)))
    rules.append(Rule(f'{key}/out/kernel', f'params/{path}/projection/kernel', out))
    return [*rules, Rule(f'{key}/out/bias', f'params/{path}/projection/bias')]
