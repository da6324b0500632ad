"""MobileNetV3 of torchvision and timm; stages are what each resolution behind the stem ends with."""

import timm
import torchvision
from references.common import Outputs, Reference, last_of_each_size, outputs_of
from torch import Tensor
from weights import Case


def torchvision_mobilenet(case: Case) -> Reference:
    """``features`` runs from the stem to the head's convolution, ``classifier`` ends with dropout and linear layer."""
    model = torchvision.models.get_model(case.backbone, weights=None)

    def run(images: Tensor) -> Outputs:
        stages = last_of_each_size(outputs_of(model.features[1:-1], model.features[0](images)))
        pooled = model.classifier[:-2](model.avgpool(model.features(images)).flatten(1))
        return stages | {'pooled': pooled, 'logits': model(images)}

    return Reference(model, run)


def timm_mobilenet(case: Case) -> Reference:
    """The ``tf_*`` models are those with TensorFlow's padding; the last of ``blocks`` is the head's convolution."""
    name = case.backbone.replace('_v3', 'v3') + '_100'
    model = timm.create_model(f'tf_{name}' if dict(case.options).get('padding') == 'same' else name)

    def run(images: Tensor) -> Outputs:
        stages = last_of_each_size(outputs_of(model.blocks[:-1], model.bn1(model.conv_stem(images))))
        pooled = model.forward_head(model.forward_features(images), pre_logits=True)
        return stages | {'pooled': pooled, 'logits': model(images)}

    return Reference(model, run)
