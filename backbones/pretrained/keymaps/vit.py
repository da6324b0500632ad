"""Vision Transformer as timm stores it."""

from backbones.pretrained.keymaps.rules import Line, Rule, convolution_rules, dense_rules, layer_norm_rules
from backbones.vit.vit import VisionTransformer


def timm(module: VisionTransformer) -> list[Line]:
    """``blocks.7.attn.qkv.weight`` is ``backbone/stage3/block2/attention/qkv/kernel`` in a transformer of 12 blocks."""
    rules = [
        *convolution_rules('patch_embed.proj', 'backbone/patch_embedding', bias=True),
        Rule('cls_token', 'params/backbone/class_token'),
        Rule('pos_embed', 'params/backbone/position_embedding'),
        *layer_norm_rules('norm', 'backbone/norm'),
        *dense_rules('head', 'head'),
    ]
    quarter = module.depth // 4
    for number in range(module.depth):
        key = f'blocks.{number}.'
        path = f'backbone/stage{number // quarter + 1}/block{number % quarter + 1}/'
        rules += layer_norm_rules(f'{key}norm1', f'{path}norm1')
        rules += layer_norm_rules(f'{key}norm2', f'{path}norm2')
        rules += dense_rules(f'{key}attn.qkv', f'{path}attention/qkv')
        rules += dense_rules(f'{key}attn.proj', f'{path}attention/projection')
        rules += dense_rules(f'{key}mlp.fc1', f'{path}mlp/dense1')
        rules += dense_rules(f'{key}mlp.fc2', f'{path}mlp/dense2')
    return rules
