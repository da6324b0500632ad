"""Timm's port of TensorFlow's EfficientNet-Lite, under the keys that the published files of lukemelas use."""

import timm
from references.common import Outputs, Reference, numbered
from torch import Tensor
from weights import Case


def efficientnet_lite(case: Case) -> Reference:
    """Stages are the outputs of the last block at each resolution."""
    model = timm.create_model(f'tf_{case.backbone}')

    def run(images: Tensor) -> Outputs:
        last, maps = model.forward_intermediates(images)
        return numbered(maps) | {'pooled': model.forward_head(last, pre_logits=True), 'logits': model(images)}

    layers = {'conv_stem': '_conv_stem', 'bn1': '_bn0', 'conv_head': '_conv_head', 'bn2': '_bn1', 'classifier': '_fc'}
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
    for group, blocks in enumerate(model.blocks):
        for block in range(len(blocks)):
            for ours, theirs in (separable if group == 0 else inverted).items():
                layers[f'blocks.{group}.{block}.{ours}'] = f'_blocks.{number}.{theirs}'
            number += 1
    published = {}
    for key in model.state_dict():
        layer, _, leaf = key.rpartition('.')
        published[key] = f'{layers[layer]}.{leaf}'
    return Reference(model, run, published)
