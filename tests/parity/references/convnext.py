"""ConvNeXt of torchvision, timm and transformers, and under the keys of its authors' files."""

import re

import timm
import torchvision
from references.common import Outputs, Reference, numbered
from torch import Tensor
from transformers import ConvNextConfig, ConvNextForImageClassification
from weights import Case


def torchvision_convnext(case: Case) -> Reference:
    """Stages are the outputs before the next downsampling layer."""
    model = torchvision.models.get_model(case.backbone, weights=None)

    def run(images: Tensor) -> Outputs:
        x, maps = images, []
        for index, layer in enumerate(model.features):
            x = layer(x)
            if index % 2:
                maps.append(x)
        pooled = model.classifier[:2](model.avgpool(x))
        return numbered(maps) | {'pooled': pooled, 'logits': model(images)}

    return Reference(model, run)


def timm_convnext(case: Case) -> Reference:
    """Stages are those of ``features_only``."""
    model = timm.create_model(case.backbone)

    def run(images: Tensor) -> Outputs:
        last, maps = model.forward_intermediates(images)
        return numbered(maps) | {'pooled': model.forward_head(last, pre_logits=True), 'logits': model(images)}

    return Reference(model, run)


def facebook_convnext(case: Case) -> Reference:
    """Timm's model; the keys are those that its ``checkpoint_filter_fn`` converts from."""
    reference = timm_convnext(case)
    for key in reference.model.state_dict():
        published = re.sub(r'^stem\.', 'downsample_layers.0.', key)
        published = re.sub(r'^stages\.(\d)\.downsample\.', r'downsample_layers.\1.', published)
        published = published.replace('.blocks.', '.').replace('conv_dw', 'dwconv').replace('mlp.fc', 'pwconv')
        reference.keys[key] = published.replace('head.fc.', 'head.').replace('head.norm.', 'norm.')
    return reference


def transformers_convnext(case: Case) -> Reference:
    """Built from the sizes of timm's model; the configuration's other values are those of the published ones."""
    sizes = timm.create_model(case.backbone)
    config = ConvNextConfig(
        hidden_sizes=[info['num_chs'] for info in sizes.feature_info],
        depths=[len(stage.blocks) for stage in sizes.stages],
        num_labels=1000,
    )
    model = ConvNextForImageClassification(config)

    def run(images: Tensor) -> Outputs:
        x, maps = model.convnext.embeddings(images), []
        for stage in model.convnext.encoder.stages:
            x = stage(x)
            maps.append(x)
        return numbered(maps) | {'pooled': model.convnext(images).pooler_output, 'logits': model(images).logits}

    return Reference(model, run)
