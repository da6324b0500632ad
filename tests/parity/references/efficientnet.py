"""EfficientNet of torchvision, timm and transformers; stages are what each resolution ends with."""

import math

import timm
import torchvision
from references.common import Outputs, Reference, last_of_each_size, numbered, outputs_of
from torch import Tensor
from transformers import EfficientNetConfig, EfficientNetForImageClassification
from weights import Case


def torchvision_efficientnet(case: Case) -> Reference:
    """The last of ``features`` is the head's convolution."""
    model = torchvision.models.get_model(case.backbone, weights=None)

    def run(images: Tensor) -> Outputs:
        stages = last_of_each_size(outputs_of(model.features[:-1], images))
        return stages | {'pooled': model.avgpool(model.features(images)).flatten(1), 'logits': model(images)}

    return Reference(model, run)


def timm_efficientnet(case: Case) -> Reference:
    """The ``tf_*`` models are those with TensorFlow's padding, which EfficientNet-Lite always has."""
    tensorflow = 'lite' in case.backbone or dict(case.options).get('padding') == 'same'
    model = timm.create_model(f'tf_{case.backbone}' if tensorflow else case.backbone)

    def run(images: Tensor) -> Outputs:
        last, maps = model.forward_intermediates(images)
        return numbered(maps) | {'pooled': model.forward_head(last, pre_logits=True), 'logits': model(images)}

    return Reference(model, run)


def lukemelas_efficientnet(case: Case) -> Reference:
    """Timm's port of TensorFlow's weights, under the keys that the published files of lukemelas use."""
    reference = timm_efficientnet(case)
    layers = {'conv_stem': '_conv_stem', 'bn1': '_bn0', 'conv_head': '_conv_head', 'bn2': '_bn1', 'classifier': '_fc'}
    squeeze = {'se.conv_reduce': '_se_reduce', 'se.conv_expand': '_se_expand'}
    separable = {'conv_dw': '_depthwise_conv', 'bn1': '_bn1', 'conv_pw': '_project_conv', 'bn2': '_bn2'}
    inverted = {
        'conv_pw': '_expand_conv',
        'bn1': '_bn0',
        'conv_dw': '_depthwise_conv',
        'bn2': '_bn1',
        'conv_pwl': '_project_conv',
        'bn3': '_bn2',
    }
    number = 0
    for group, blocks in enumerate(reference.model.blocks):
        for block in range(len(blocks)):
            for ours, theirs in (squeeze | (separable if group == 0 else inverted)).items():
                layers[f'blocks.{group}.{block}.{ours}'] = f'_blocks.{number}.{theirs}'
            number += 1
    for key in reference.model.state_dict():
        layer, _, leaf = key.rpartition('.')
        reference.keys[key] = f'{layers[layer]}.{leaf}'
    return reference


# Factors on width and depth in the configurations of transformers' published weights.
_SCALES = ((1.0, 1.0), (1.0, 1.1), (1.1, 1.2), (1.2, 1.4), (1.4, 1.8), (1.6, 2.2), (1.8, 2.6), (2.0, 3.1))


def transformers_efficientnet(case: Case) -> Reference:
    """It pads as TensorFlow does for images of one even size: the configuration lists the blocks that see odd maps."""
    width, depth = _SCALES[int(case.backbone[-1])]
    config = EfficientNetConfig(width_coefficient=width, depth_coefficient=depth, num_labels=1000)
    config.hidden_dim = round(1280 * width)
    odd, number, side = [], 0, case.image_size // 2
    for stride, blocks in zip(config.strides, config.num_block_repeats, strict=True):
        odd += [number] * (stride == 2 and side % 2)
        side = math.ceil(side / stride)
        number += math.ceil(blocks * depth)
    config.depthwise_padding = odd
    model = EfficientNetForImageClassification(config)

    def run(images: Tensor) -> Outputs:
        features = model.efficientnet(images, output_hidden_states=True)
        pooled = features.pooler_output
        return last_of_each_size(features.hidden_states) | {'pooled': pooled, 'logits': model.classifier(pooled)}

    return Reference(model, run)
