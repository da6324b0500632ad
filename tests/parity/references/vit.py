"""Vision transformers of timm and torchvision, and what all references of vision transformers share."""

from collections.abc import Callable

import timm
import torch
from references.common import Outputs, Reference, numbered
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn
from torchvision.models import VisionTransformer
from weights import Case

SIZES = {
    'tiny': {'channels': 192, 'depth': 12, 'heads': 3},
    'small': {'channels': 384, 'depth': 12, 'heads': 6},
    'base': {'channels': 768, 'depth': 12, 'heads': 12},
    'large': {'channels': 1024, 'depth': 24, 'heads': 16},
    'wee': {'channels': 256, 'depth': 14, 'heads': 4},
    'little': {'channels': 320, 'depth': 14, 'heads': 5},
    'medium': {'channels': 512, 'depth': 12, 'heads': 8},
    'mediumd': {'channels': 512, 'depth': 20, 'heads': 8},
    'betwixt': {'channels': 640, 'depth': 12, 'heads': 10},
}


def option(case: Case, name: str, default):
    """What the case changes about the backbone, or the default."""
    return dict(case.options).get(name, default)


def size(case: Case) -> str:
    """A key of ``SIZES``."""
    return next(each for each in SIZES if each in case.backbone.split('_'))


def shape(case: Case) -> dict[str, int]:
    """Channels, depth and heads: those of the backbone's size, unless the case changes them."""
    return {name: option(case, name, value) for name, value in SIZES[size(case)].items()}


def patch(case: Case) -> int:
    """Side of a patch in pixels."""
    return 14 if case.backbone.startswith('dinov2') else int(case.backbone.partition('patch')[2][:2])


def with_stages(
    blocks: nn.ModuleList | nn.Sequential, prefix: int, side: int, forward: Callable[[Tensor], Outputs]
) -> Callable[[Tensor], Outputs]:
    """What ``forward`` says of the images, and the outputs of the block at each quarter of the depth as maps.

    Args:
        blocks: of the model.
        prefix: number of tokens before the patches.
        side: of a patch in pixels.
        forward: images → ``'tokens'``, ``'pooled'`` and, where there are any, ``'logits'``.
    """
    ends = {index: -(-len(blocks) * index // 4) - 1 for index in range(1, 5)}

    def run(images: Tensor) -> Outputs:
        last: dict[int, Tensor] = {}
        hooks = [
            blocks[end].register_forward_hook(lambda *seen, index=index: last.update({index: seen[-1]}))
            for index, end in ends.items()
        ]
        outputs = forward(images)
        for hook in hooks:
            hook.remove()
        rows = -(-images.shape[2] // side)
        maps = [last[index][:, prefix:].transpose(1, 2).unflatten(2, (rows, -1)) for index in sorted(last)]
        return numbered(maps) | outputs

    return run


def build_timm(case: Case, **changes) -> nn.Module:
    """The model that timm has for the backbone; a table of positions is made for the images of the case."""
    family = case.backbone.partition('_')[0]
    name = {
        'dinov2': f'vit_{size(case)}_patch14_{"reg4_" if case.backbone.endswith("_reg") else ""}dinov2',
        'clip': f'vit_{size(case)}_patch16_clip_quickgelu_224',
        'siglip': f'vit_{size(case)}_patch16_siglip_224',
        'siglip2': f'vit_{size(case)}_patch16_siglip_224',  # whose weights of SigLIP 2 are a tag, ``.v2_webli``
    }.get(family, case.backbone.replace('patch32', 'patch16') + ('_256' if case.backbone.endswith('_gap') else '_224'))
    channels, depth, heads = shape(case).values()
    sizes = {'patch_size': patch(case), 'embed_dim': channels, 'depth': depth, 'num_heads': heads}
    return timm.create_model(name, **({'img_size': case.image_size} | sizes | changes))


def resampled(case: Case, prefix: int) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """Brings timm's table of positions, the first of them for ``prefix`` tokens, to the size of the case's images."""
    side = case.image_size // patch(case)
    return lambda state: (
        state | {'pos_embed': resample_abs_pos_embed(state['pos_embed'], [side, side], num_prefix_tokens=prefix)}
    )


def timm_vit(case: Case) -> Reference:
    """ViT and DeiT: stages are neither normalised nor pooled. Where ``fc_norm`` follows the pooling, nor are tokens."""
    changes = {'drop_path_rate': option(case, 'stochastic_depth', 0.0)}
    if option(case, 'pooling', 'token') == 'average':
        changes |= {'global_pool': 'avg', 'fc_norm': False}
    model = build_timm(case, **changes)
    prefix = model.num_prefix_tokens

    def forward(images: Tensor) -> Outputs:
        tokens = model.forward_features(images)
        outputs = {'tokens': tokens, 'pooled': model.forward_head(tokens, pre_logits=True)}
        return outputs | {'logits': model.forward_head(tokens), 'position_embedding': model.pos_embed}

    with_position = 0 if model.no_embed_class else prefix
    run = with_stages(model.blocks, prefix, patch(case), forward)
    return Reference(model, run, resample=resampled(case, with_position))


def timm_tower(case: Case) -> Reference:
    """DINOv2, and the image towers of CLIP and SigLIP; CLIP's projection is timm's classifier.

    Timm's own SigLIP has the exact GELU, where its authors and transformers have the tanh formula; it is built with the
    one that the backbone has.
    """
    changes = {
        'dinov2': {'img_size': 518, 'dynamic_img_size': True},
        'clip': {},
        'siglip': {'act_layer': option(case, 'activation', 'gelu_tanh')},
        'siglip2': {'act_layer': option(case, 'activation', 'gelu_tanh')},
    }
    model = build_timm(case, **changes[case.backbone.partition('_')[0]])
    prefix = model.num_prefix_tokens

    def forward(images: Tensor) -> Outputs:
        tokens = model.forward_features(images)
        return {'tokens': tokens, 'pooled': model.forward_head(tokens)}

    return Reference(model, with_stages(model.blocks, prefix, patch(case), forward), resample=resampled(case, prefix))


def torchvision_vit(case: Case) -> Reference:
    """Torchvision's, of any width."""
    sizes = shape(case)
    model = VisionTransformer(
        case.image_size, patch(case), sizes['depth'], sizes['heads'], sizes['channels'], 4 * sizes['channels']
    )

    def forward(images: Tensor) -> Outputs:
        patches = model._process_input(images)
        tokens = model.encoder(torch.cat([model.class_token.expand(len(images), -1, -1), patches], dim=1))
        return {'tokens': tokens, 'pooled': tokens[:, 0], 'logits': model.heads(tokens[:, 0])}

    return Reference(model, with_stages(model.encoder.layers, 1, patch(case), forward))
