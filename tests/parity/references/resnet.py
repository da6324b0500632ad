"""Torchvision's ResNet, ResNeXt and Wide ResNet, and the ResNet of transformers."""

import torchvision
from references.common import Outputs, Reference, numbered
from torch import Tensor
from transformers import ResNetConfig, ResNetForImageClassification
from weights import Case


def resnet(case: Case) -> Reference:
    """Stages are the outputs of ``layer1`` to ``layer4``."""
    model = torchvision.models.get_model(case.backbone, weights=None)

    def run(images: Tensor) -> Outputs:
        x = model.maxpool(model.relu(model.bn1(model.conv1(images))))
        outputs = {}
        for index in range(1, 5):
            x = outputs[f'stage{index}'] = getattr(model, f'layer{index}')(x)
        return outputs | {'pooled': model.avgpool(x).flatten(1), 'logits': model(images)}

    return Reference(model, run)


def transformers_resnet(case: Case) -> Reference:
    """As ``microsoft/resnet-*`` are configured; torchvision's model says how deep and how wide it is."""
    twin = torchvision.models.get_model(case.backbone, weights=None)
    layers = [getattr(twin, f'layer{index}') for index in range(1, 5)]
    basic = isinstance(layers[0][0], torchvision.models.resnet.BasicBlock)
    config = ResNetConfig(
        depths=[len(layer) for layer in layers],
        hidden_sizes=[layer[-1].bn2.num_features * layer[-1].expansion for layer in layers],
        layer_type='basic' if basic else 'bottleneck',
        downsample_in_bottleneck=False,
        num_labels=1000,
    )
    model = ResNetForImageClassification(config)

    def run(images: Tensor) -> Outputs:
        features = model.resnet(images, output_hidden_states=True)
        outputs = numbered(features.hidden_states[1:]) | {'pooled': features.pooler_output.flatten(1)}
        return outputs | {'logits': model(images).logits}

    return Reference(model, run)
