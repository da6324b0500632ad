"""Timm's Vision Transformers."""

from references.common import Outputs, Reference, numbered
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from weights import Case

# Width, depth and heads.
SIZES = {'tiny': (192, 12, 3), 'small': (384, 12, 6), 'base': (768, 12, 12), 'large': (1024, 24, 16)}


def timm_vit(case: Case) -> Reference:
    """The augreg ViT: stages are the outputs of the last block of each quarter, neither normalised nor pooled."""
    size, patch = case.backbone.removeprefix('vit_').split('_patch')
    width, depth, heads = SIZES[size]
    # Not by name: timm has no tiny one of patch 32.
    model = VisionTransformer(case.image_size, int(patch), embed_dim=width, depth=depth, num_heads=heads)
    quarter = len(model.blocks) // 4

    def run(images: Tensor) -> Outputs:
        last_blocks = [quarter * index - 1 for index in range(1, 5)]
        tokens, maps = model.forward_intermediates(images, indices=last_blocks, norm=False, output_fmt='NCHW')
        outputs = numbered(maps)
        outputs |= {'tokens': tokens, 'pooled': model.forward_head(tokens, pre_logits=True), 'logits': model(images)}
        return outputs | {'position_embedding': model.pos_embed}

    def resample(state: dict[str, Tensor]) -> dict[str, Tensor]:
        side = case.image_size // model.patch_embed.patch_size[0]
        return state | {'pos_embed': resample_abs_pos_embed(state['pos_embed'], [side, side], num_prefix_tokens=1)}

    return Reference(model, run, resample=resample)
