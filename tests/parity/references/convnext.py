"""ConvNeXt, its V2 and DINOv3's, of torchvision, timm, transformers and their authors.

The authors' code of the V2 is github.com/facebookresearch/ConvNeXt-V2, here at commit
2553895753323c6fe0b2bf390683f5ea358a42b9; that of DINOv3, see ``references/dinov3.py``. Clone it and add the clone to
PYTHONPATH.
"""

import re
import sys
import types

import timm
import torch
import torchvision
from references.common import Outputs, Reference, numbered, outputs_of
from references.vit_transformers import published
from torch import Tensor, nn
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    ConvNextV2Config,
    ConvNextV2ForImageClassification,
    DINOv3ConvNextConfig,
    DINOv3ConvNextModel,
)
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


def timm_of(case: Case) -> timm.models.ConvNeXt:
    """Timm's model; DINOv3's is an ordinary ConvNeXt without a classifier."""
    rate = dict(case.options).get('stochastic_depth', 0.0)
    classes = 1000 if case.classifier else 0
    return timm.create_model(case.backbone.removeprefix('dinov3_'), num_classes=classes, drop_path_rate=rate)


def timm_convnext(case: Case) -> Reference:
    """Stages are those of ``features_only``."""
    model = timm_of(case)

    def run(images: Tensor) -> Outputs:
        last, maps = model.forward_intermediates(images)
        outputs = numbered(maps) | {'pooled': model.forward_head(last, pre_logits=True)}
        return outputs | ({'logits': model(images)} if case.classifier else {})

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
    v2 = case.backbone.startswith('convnextv2')
    config = (ConvNextV2Config if v2 else ConvNextConfig)(**sizes(case), num_labels=1000)
    model = (ConvNextV2ForImageClassification if v2 else ConvNextForImageClassification)(config)
    trunk = model.convnextv2 if v2 else model.convnext

    def run(images: Tensor) -> Outputs:
        maps = outputs_of(trunk.encoder.stages, trunk.embeddings(images))
        return numbered(maps) | {'pooled': trunk(images).pooler_output, 'logits': model(images).logits}

    return Reference(model, run)


def sizes(case: Case) -> dict[str, list[int]]:
    """Channels and depths, as timm has them."""
    model = timm_of(case)
    return {
        'hidden_sizes': [info['num_chs'] for info in model.feature_info],
        'depths': [len(stage.blocks) for stage in model.stages],
    }


def transformers_dinov3_convnext(case: Case) -> Reference:
    """``DINOv3ConvNextModel``."""
    model = DINOv3ConvNextModel(DINOv3ConvNextConfig(**sizes(case)))

    def run(images: Tensor) -> Outputs:
        answer = model(images)
        tokens = {'tokens': answer.last_hidden_state, 'pooled': answer.pooler_output}
        return numbered(outputs_of(model.model.stages, images)) | tokens

    return Reference(model, run, published(model))


def authors_dinov3_convnext(case: Case) -> Reference:
    """``dinov3/models/convnext.py``."""
    from dinov3.models.convnext import ConvNeXt  # ty: ignore[unresolved-import]

    channels, depths = sizes(case).values()
    model = ConvNeXt(depths=depths, dims=channels)

    def run(images: Tensor) -> Outputs:
        stages = [nn.Sequential(*pair) for pair in zip(model.downsample_layers, model.stages, strict=True)]
        answer = model.forward_features(images)
        tokens = torch.cat([answer['x_norm_clstoken'][:, None], answer['x_norm_patchtokens']], dim=1)
        return numbered(outputs_of(stages, images)) | {'tokens': tokens, 'pooled': model(images)}

    return Reference(model, run)


def authors_convnextv2(case: Case) -> Reference:
    """``models/convnextv2.py``; MinkowskiEngine is imported beside it and never used."""
    sys.modules.setdefault('MinkowskiEngine', types.SimpleNamespace(SparseTensor=object))  # ty: ignore[no-matching-overload]
    from models.convnextv2 import ConvNeXtV2  # ty: ignore[unresolved-import]

    channels, depths = sizes(case).values()
    model = ConvNeXtV2(depths=depths, dims=channels)

    def run(images: Tensor) -> Outputs:
        stages = [nn.Sequential(*pair) for pair in zip(model.downsample_layers, model.stages, strict=True)]
        pooled = model.forward_features(images)
        return numbered(outputs_of(stages, images)) | {'pooled': pooled, 'logits': model(images)}

    return Reference(model, run)
