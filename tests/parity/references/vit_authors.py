"""Vision transformers as their authors have them: DINOv2's positions around timm's blocks, and CLIP of open_clip."""

import dataclasses

import torch
from open_clip.transformer import QuickGELU, VisionTransformer
from references.common import Outputs, Reference
from references.vit import build_timm, option, patch, shape, with_stages
from torch import Tensor, nn
from weights import Case


def dinov2_positions(table: Tensor, grid: tuple[int, int], registers: bool) -> Tensor:
    """The table for a grid: interpolated by a factor a little too large, or with registers to a size, antialiased."""
    count, channels = table.shape[1] - 1, table.shape[2]
    side = round(count**0.5)
    if grid == (side, side):
        return table
    target = {'size': grid} if registers else {'scale_factor': [(each + 0.1) / side for each in grid]}
    maps = table[:, 1:].reshape(1, side, side, channels).permute(0, 3, 1, 2)
    maps = nn.functional.interpolate(maps, mode='bicubic', antialias=registers, **target)
    assert tuple(maps.shape[2:]) == grid
    return torch.cat([table[:, :1], maps.permute(0, 2, 3, 1).reshape(1, -1, channels)], dim=1)


def dinov2(case: Case) -> Reference:
    """``dinov2/models/vision_transformer.py``: registers come between class token and patches, without positions."""
    registers = 4 if case.backbone.endswith('_reg') else 0
    plain = dataclasses.replace(case, backbone=case.backbone.removesuffix('_reg'))
    model = build_timm(plain, img_size=518, dynamic_img_size=True)
    model.mask_token = nn.Parameter(torch.zeros(1, model.embed_dim))
    if registers:
        model.register_tokens = nn.Parameter(torch.zeros(1, registers, model.embed_dim))

    def forward(images: Tensor) -> Outputs:
        x = model.patch_embed(images)
        positions = dinov2_positions(model.pos_embed, tuple(x.shape[1:3]), bool(registers))
        x = torch.cat([model.cls_token.expand(len(x), -1, -1), x.flatten(1, 2)], dim=1) + positions
        if registers:
            x = torch.cat([x[:, :1], model.register_tokens.expand(len(x), -1, -1), x[:, 1:]], dim=1)
        tokens = model.norm(model.blocks(x))
        return {'tokens': tokens, 'pooled': tokens[:, 0]}

    return Reference(model, with_stages(model.blocks, 1 + registers, patch(case), forward))


def clip(case: Case) -> Reference:
    """The image tower, alone or under the keys that it has in a file of both towers."""
    channels, depth, heads = shape(case).values()
    projected = option(case, 'projected_channels', 512)
    model = VisionTransformer(
        case.image_size, patch(case), channels, depth, heads, 4, output_dim=projected, act_layer=QuickGELU
    )

    def forward(images: Tensor) -> Outputs:
        tokens = model.ln_post(model.transformer(model._embeds(images)))
        return {'tokens': tokens, 'pooled': model(images)}

    keys = {} if case.layout == 'clip_visual' else {key: f'visual.{key}' for key in model.state_dict()}
    return Reference(model, with_stages(model.transformer.resblocks, 1, patch(case), forward), keys)
