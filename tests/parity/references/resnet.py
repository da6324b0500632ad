"""Torchvision's ResNet."""

import torchvision
from references.common import Outputs, Reference
from torch import Tensor
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
