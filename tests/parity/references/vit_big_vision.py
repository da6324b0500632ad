"""Vision transformers of big_vision: its ``.npz`` files, as timm reads them."""

import tempfile
from pathlib import Path

import numpy as np
import torch
from references.common import Outputs, Reference
from references.vit import build_timm, patch, shape, with_stages
from timm.models.vision_transformer import _load_weights
from torch import Tensor, nn
from weights import Case


class Archive(nn.Module):
    """The arrays of a file: parameters whose names are its keys."""

    def __init__(self, shapes: dict[str, tuple[int, ...]]):
        super().__init__()
        for key, each in shapes.items():
            self.register_parameter(key, nn.Parameter(torch.zeros(each)))


def attention(key: str, channels: int, heads: int) -> dict[str, tuple[int, ...]]:
    """Flax's ``MultiHeadDotProductAttention``."""
    width = channels // heads
    shapes = {f'{key}/{name}/kernel': (channels, heads, width) for name in ('query', 'key', 'value')}
    shapes |= {f'{key}/{name}/bias': (heads, width) for name in ('query', 'key', 'value')}
    return shapes | {f'{key}/out/kernel': (heads, width, channels), f'{key}/out/bias': (channels,)}


def norm(key: str, channels: int) -> dict[str, tuple[int, ...]]:
    """Flax's ``LayerNorm``."""
    return {f'{key}/scale': (channels,), f'{key}/bias': (channels,)}


def dense(key: str, *axes: int) -> dict[str, tuple[int, ...]]:
    """Flax's ``Dense`` and ``Conv``."""
    return {f'{key}/kernel': axes, f'{key}/bias': axes[-1:]}


def archive(case: Case) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of augreg's files, or of SigLIP's (its image tower)."""
    channels, depth, heads = shape(case).values()
    siglip = case.backbone.startswith('siglip')
    prefix = 'params/img/' if siglip else ''
    numbers = (0, 1, 0) if siglip else (1, 2, 3)
    patches = (case.image_size // patch(case)) ** 2
    shapes = dense(f'{prefix}embedding', patch(case), patch(case), 3, channels)
    if siglip:
        head = f'{prefix}MAPHead_0'
        shapes |= {f'{prefix}pos_embedding': (1, patches, channels), f'{head}/probe': (1, 1, channels)}
        shapes |= attention(f'{head}/MultiHeadDotProductAttention_0', channels, heads)
        shapes |= norm(f'{head}/LayerNorm_0', channels)
        shapes |= dense(f'{head}/MlpBlock_0/Dense_0', channels, 4 * channels)
        shapes |= dense(f'{head}/MlpBlock_0/Dense_1', 4 * channels, channels)
    else:
        shapes |= {'cls': (1, 1, channels), 'Transformer/posembed_input/pos_embedding': (1, patches + 1, channels)}
        shapes |= dense('head', channels, 1000)
    for number in range(depth):
        block = f'{prefix}Transformer/encoderblock_{number}'
        shapes |= norm(f'{block}/LayerNorm_0', channels)
        shapes |= attention(f'{block}/MultiHeadDotProductAttention_{numbers[0]}', channels, heads)
        shapes |= norm(f'{block}/LayerNorm_{numbers[1]}', channels)
        shapes |= dense(f'{block}/MlpBlock_{numbers[2]}/Dense_0', channels, 4 * channels)
        shapes |= dense(f'{block}/MlpBlock_{numbers[2]}/Dense_1', 4 * channels, channels)
    return shapes | norm(f'{prefix}Transformer/encoder_norm', channels)


def big_vision_vit(case: Case) -> Reference:
    """The activation of SigLIP is what flax calls ``gelu``, which is the tanh formula."""
    siglip = case.backbone.startswith('siglip')
    model = build_timm(case, **({'act_layer': 'gelu_tanh'} if siglip else {})).double().eval()
    arrays = Archive(archive(case))

    def forward(images: Tensor) -> Outputs:
        tokens = model.forward_features(images)
        outputs = {'tokens': tokens, 'pooled': model.forward_head(tokens, pre_logits=True)}
        return outputs if siglip else outputs | {'logits': model.forward_head(tokens)}

    def run(images: Tensor) -> Outputs:
        with tempfile.TemporaryDirectory() as directory, torch.no_grad():
            file = Path(directory) / 'weights.npz'
            np.savez(file, **{key: array.numpy() for key, array in arrays.state_dict().items()})
            _load_weights(model, str(file))
        return with_stages(model.blocks, model.num_prefix_tokens, patch(case), forward)(images)

    return Reference(arrays, run)
