"""Vision transformers of transformers, under the keys of published files."""

import transformers
from references.common import Outputs, Reference
from references.vit import option, patch, shape, with_stages
from torch import Tensor
from transformers.core_model_loading import revert_weight_conversion
from weights import Case


def settings(case: Case) -> dict[str, int]:
    """What every configuration takes."""
    sizes = shape(case)
    return {
        'image_size': 518 if case.backbone.startswith('dinov2') else case.image_size,
        'patch_size': patch(case),
        'hidden_size': sizes['channels'],
        'num_hidden_layers': sizes['depth'],
        'num_attention_heads': sizes['heads'],
    }


def published(model: transformers.PreTrainedModel) -> dict[str, str]:
    """Key in memory → key in a file."""
    state = model.state_dict()
    keys = {array.data_ptr(): key for key, array in revert_weight_conversion(model, dict(state)).items()}
    return {key: keys[array.data_ptr()] for key, array in state.items()}


def transformers_vit(case: Case) -> Reference:
    """``ViTForImageClassification``, and for DeiT's distilled ones their classes of one and of two classifiers."""
    configuration = settings(case) | {
        'intermediate_size': 4 * shape(case)['channels'],
        'layer_norm_eps': option(case, 'epsilon', 1e-6),
        'num_labels': 1000,
    }
    if 'distilled' not in case.backbone:
        model = transformers.ViTForImageClassification(transformers.ViTConfig(**configuration))
        tower = model.vit
    else:
        one = option(case, 'pooling', 'distillation') == 'token'
        kind = 'DeiTForImageClassification' + ('' if one else 'WithTeacher')
        model = getattr(transformers, kind)(transformers.DeiTConfig(**configuration))
        tower = model.deit
    seen = 2 if hasattr(model, 'distillation_classifier') else 1

    def forward(images: Tensor) -> Outputs:
        tokens = tower(images).last_hidden_state
        return {'tokens': tokens, 'pooled': tokens[:, :seen].mean(1), 'logits': model(images).logits}

    prefix = 2 if 'distilled' in case.backbone else 1
    return Reference(model, with_stages(tower.layers, prefix, patch(case), forward), published(model))
