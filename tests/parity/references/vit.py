"""Timm's Vision Transformers."""

import timm
from references.common import Outputs, Reference, numbered
from timm.layers import resample_abs_pos_embed
from torch import Tensor
from weights import Case


def timm_vit(case: Case) -> Reference:
    """The augreg ViT: stages are the outputs of the last block of each quarter, neither normalised nor pooled."""
    model = timm.create_model(f'{case.backbone}_224', img_size=case.image_size)
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
