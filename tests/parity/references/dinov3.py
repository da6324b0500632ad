"""DINOv3's vision transformers of its authors, timm and transformers.

The authors' code is github.com/facebookresearch/dinov3, here at commit 6876159a11b4df116f30f667f8c9888617df0751: clone
it and add the clone to PYTHONPATH. It is imported where it is asked for, as nothing else needs it.
"""

import timm
import transformers
from references.common import Outputs, Reference
from references.vit import option, shape, with_stages
from references.vit_transformers import published
from torch import Tensor
from weights import Case


def is_gated(case: Case) -> bool:
    """Whether its feed-forward layers are SwiGLU."""
    return 'plus' in case.backbone


def authors_dinov3(case: Case) -> Reference:
    """``DinoVisionTransformer`` with the arguments of ``dinov3/hub/backbones.py``."""
    from dinov3.models.vision_transformer import DinoVisionTransformer  # ty: ignore[unresolved-import]

    channels, depth, heads = shape(case).values()
    model = DinoVisionTransformer(
        patch_size=16,
        embed_dim=channels,
        depth=depth,
        num_heads=heads,
        ffn_ratio=6 if is_gated(case) else 4,
        ffn_layer='swiglu' if is_gated(case) else 'mlp',
        layerscale_init=1e-5,
        norm_layer='layernormbf16',
        n_storage_tokens=4,
        mask_k_bias=True,
        pos_embed_rope_rescale_coords=2,
        pos_embed_rope_dtype='fp32',
    )

    def forward(images: Tensor) -> Outputs:
        pooled = model(images)
        x, (rows, columns) = model.prepare_tokens_with_masks(images)
        for block in model.blocks:
            x = block(x, model.rope_embed(H=rows, W=columns))
        return {'tokens': model.norm(x), 'pooled': pooled}

    return Reference(model, with_stages(model.blocks, 5, 16, forward))


def timm_dinov3(case: Case) -> Reference:
    """With biases of queries and values where the layout says so; timm means the patches unless it is told."""
    biases = '_qkvb' if case.layout == 'timm_qkvb' else ''
    plus = '_plus' if is_gated(case) else ''
    channels, depth, heads = shape(case).values()
    model = timm.create_model(
        f'vit_small{plus}_patch16_dinov3{biases}',
        embed_dim=channels,
        depth=depth,
        num_heads=heads,
        global_pool={'token': 'token', 'average': 'avg'}[option(case, 'pooling', 'token')],
        drop_path_rate=option(case, 'stochastic_depth', 0.0),
    )

    def forward(images: Tensor) -> Outputs:
        tokens = model.forward_features(images)
        return {'tokens': tokens, 'pooled': model.forward_head(tokens)}

    return Reference(model, with_stages(model.blocks, 5, 16, forward))


def transformers_dinov3(case: Case) -> Reference:
    """``DINOv3ViTModel``."""
    channels, depth, heads = shape(case).values()
    configuration = transformers.DINOv3ViTConfig(
        hidden_size=channels,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        intermediate_size=4 * channels,
        num_register_tokens=4,
        use_gated_mlp=is_gated(case),
        hidden_act='silu' if is_gated(case) else 'gelu',
    )
    model = transformers.DINOv3ViTModel(configuration)

    def forward(images: Tensor) -> Outputs:
        answer = model(images)
        return {'tokens': answer.last_hidden_state, 'pooled': answer.pooler_output}

    return Reference(model, with_stages(model.model.layer, 5, 16, forward), published(model))
