"""EVA-02 of timm and of its authors.

The authors' code is github.com/baaivision/EVA, here at commit 5623d08bb08a8268c7bc18e1d9b8b4bd651fe4d9: clone it, add
its directory ``EVA-02/asuka`` to PYTHONPATH, and install einops. It is imported where it is asked for. What it takes
from apex and xformers, which run on GPUs, is replaced by the same functions in plain torch.
"""

import sys
import types

import timm
import torch
from references.common import Outputs, Reference
from references.vit import option, resampled, shape, with_stages
from torch import Tensor, nn
from weights import Case

_HIDDEN = 4 * 2 / 3


def is_split(case: Case) -> bool:
    """Whether projections are stored one by one, and the hidden layer is normalised, as from the base size on."""
    return 'base' in case.backbone


def timm_eva(case: Case) -> Reference:
    """Timm means the patches and normalises that."""
    channels, depth, heads = shape(case).values()
    model = timm.create_model(
        f'eva02_{"base" if is_split(case) else "small"}_patch14_224',
        num_classes=1000,
        img_size=case.image_size,
        embed_dim=channels,
        depth=depth,
        num_heads=heads,
        drop_path_rate=option(case, 'stochastic_depth', 0.0),
    )

    def forward(images: Tensor) -> Outputs:
        tokens = model.forward_features(images)
        pooled = model.forward_head(tokens, pre_logits=True)
        outputs = {'tokens': tokens, 'pooled': pooled, 'logits': model(images)}
        return outputs | {'position_embedding': model.pos_embed}

    return Reference(model, with_stages(model.blocks, 1, 14, forward), resample=resampled(case, 1))


class _SwiGLU(nn.Module):
    """What ``xformers.ops.SwiGLU`` computes, with its packed parameters."""

    def __init__(self, in_features: int, hidden_features: int):
        super().__init__()
        self.w12 = nn.Linear(in_features, 2 * hidden_features)
        self.w3 = nn.Linear(hidden_features, in_features)

    def forward(self, x: Tensor) -> Tensor:
        gate, values = self.w12(x).chunk(2, dim=-1)
        return self.w3(nn.functional.silu(gate) * values)


def _attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """What ``xformers.ops.memory_efficient_attention`` computes: heads come after tokens."""
    scores = torch.einsum('bqhd,bkhd->bhqk', query, key) / query.shape[-1] ** 0.5
    return torch.einsum('bhqk,bkhd->bqhd', scores.softmax(-1), value)


def _module(name: str, **contents: object) -> None:
    """Make a module of this name, unless the real one is there."""
    sys.modules.setdefault(name, types.ModuleType(name)).__dict__.update(contents)


def authors_eva(case: Case) -> Reference:
    """``VisionTransformer`` of ``modeling_finetune.py``, as ``eva02_small_…`` and ``eva02_base_…`` build it."""
    _module('apex')
    _module('apex.normalization', FusedLayerNorm=nn.LayerNorm)
    operators = types.ModuleType('xformers.ops')
    operators.__dict__.update(SwiGLU=_SwiGLU, memory_efficient_attention=_attention)
    _module('xformers', ops=operators)
    sys.modules['xformers.ops'] = operators
    from modeling_finetune import VisionTransformer  # ty: ignore[unresolved-import]

    channels, depth, heads = shape(case).values()
    split = is_split(case)
    model = VisionTransformer(
        img_size=case.image_size,
        patch_size=14,
        embed_dim=channels,
        depth=depth,
        num_heads=heads,
        mlp_ratio=_HIDDEN,
        qkv_bias=True,
        norm_layer=lambda width: nn.LayerNorm(width, eps=1e-6),
        xattn=True,
        subln=split,
        swiglu=not split,
        naiveswiglu=split,
        rope=True,
        pt_hw_seq_len=16,
        intp_freq=True,
        use_checkpoint=False,
    )

    def forward(images: Tensor) -> Outputs:
        x = model.patch_embed(images)
        x = torch.cat([model.cls_token.expand(len(x), -1, -1), x], dim=1) + model.pos_embed
        for block in model.blocks:
            x = block(x)
        return {'tokens': x, 'pooled': model.forward_features(images), 'logits': model(images)}

    return Reference(model, with_stages(model.blocks, 1, 14, forward))
