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


def transformers_dinov2(case: Case) -> Reference:
    """``Dinov2Model`` and ``Dinov2WithRegistersModel``, which resample positions to a size, without an offset."""
    if case.backbone.endswith('_reg'):
        model = transformers.Dinov2WithRegistersModel(transformers.Dinov2WithRegistersConfig(**settings(case)))
    else:
        model = transformers.Dinov2Model(transformers.Dinov2Config(**settings(case)))

    def forward(images: Tensor) -> Outputs:
        answer = model(images)
        return {'tokens': answer.last_hidden_state, 'pooled': answer.pooler_output}

    prefix = 5 if case.backbone.endswith('_reg') else 1
    return Reference(model, with_stages(model.encoder.layer, prefix, patch(case), forward), published(model))


def transformers_clip(case: Case) -> Reference:
    """``CLIPVisionModelWithProjection``, which normalises no more than the class token."""
    configuration = transformers.CLIPVisionConfig(**settings(case), intermediate_size=4 * shape(case)['channels'])
    model = transformers.CLIPVisionModelWithProjection(configuration)

    def forward(images: Tensor) -> Outputs:
        answer = model(images)
        return {'tokens': model.vision_model.post_layernorm(answer.last_hidden_state), 'pooled': answer.image_embeds}

    return Reference(model, with_stages(model.vision_model.encoder.layers, 1, patch(case), forward), published(model))


def transformers_siglip(case: Case) -> Reference:
    """``SiglipVisionModel``, under the keys that it has in the files of both towers."""
    configuration = transformers.SiglipVisionConfig(**settings(case), intermediate_size=4 * shape(case)['channels'])
    model = transformers.SiglipVisionModel(configuration)

    def forward(images: Tensor) -> Outputs:
        answer = model(images)
        return {'tokens': answer.last_hidden_state, 'pooled': answer.pooler_output}

    keys = {key: f'vision_model.{key}' for key in model.state_dict()}
    return Reference(model, with_stages(model.encoder.layers, 0, patch(case), forward), keys)
