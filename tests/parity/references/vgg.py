"""VGG of torchvision and of timm."""

import timm
import torchvision
from references.common import Outputs, Reference, numbered
from torch import Tensor, nn
from weights import Case


def torchvision_vgg(case: Case) -> Reference:
    """Stages are the maps before each max-pool, and behind the last."""
    model = torchvision.models.get_model(case.backbone, weights=None, init_weights=False)
    if hidden := dict(case.options).get('hidden_channels'):
        model.classifier[0], model.classifier[3] = nn.Linear(512 * 7 * 7, hidden), nn.Linear(hidden, hidden)
        model.classifier[6] = nn.Linear(hidden, 1000)

    def run(images: Tensor) -> Outputs:
        x, maps = images, []
        for layer in model.features:
            if isinstance(layer, nn.MaxPool2d):
                maps.append(x)
            x = layer(x)
        pooled = model.classifier[:6](model.avgpool(x).flatten(1))
        return numbered([*maps, x]) | {'pooled': pooled, 'logits': model(images)}

    return Reference(model, run)


def timm_vgg(case: Case) -> Reference:
    """Stages are those of ``features_only``."""
    model = timm.create_model(case.backbone)
    if hidden := dict(case.options).get('hidden_channels'):
        model.pre_logits.fc1, model.pre_logits.fc2 = nn.Conv2d(512, hidden, 7), nn.Conv2d(hidden, hidden, 1)
        model.head.fc = nn.Linear(hidden, 1000)

    def run(images: Tensor) -> Outputs:
        last, maps = model.forward_intermediates(images)
        return numbered(maps) | {'pooled': model.forward_head(last, pre_logits=True), 'logits': model(images)}

    return Reference(model, run)
