"""Ask torchvision's Faster R-CNNs; keep what they answer, or compare ours with them for any seed and size.

Run in an environment of its own; the tests need none of it:

    pip install torch torchvision
    python tests/parity/faster_rcnn/generate.py                      # write the .npz files beside this one
    python tests/parity/faster_rcnn/generate.py --answers FILE KIND --seed 3 --size 427 640 --size 333 500
                                                                     # the published model, for compare.py
"""

import argparse
import importlib.metadata
import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torchvision.models import mobilenet_v3_large, mobilenetv3, resnet, resnet50
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection._utils import overwrite_eps
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import _mobilenet_extractor, _resnet_fpn_extractor
from torchvision.models.detection.faster_rcnn import (
    FastRCNNConvFCHead,
    FastRCNNPredictor,
    TwoMLPHead,
    _default_anchorgen,
)
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops.misc import FrozenBatchNorm2d

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.parity.detection import cases as one_stage
from tests.parity.faster_rcnn import cases

# Torchvision's names of the losses → ours.
_LOSSES = {
    'loss_objectness': 'objectness',
    'loss_rpn_box_reg': 'proposals',
    'loss_classifier': 'classes',
    'loss_box_reg': 'boxes',
}


class Narrow(resnet.ResNet):
    """Torchvision's ResNet with other numbers of channels and blocks."""

    def __init__(self, norm_layer):
        super().__init__(resnet.BasicBlock, [1, 1, 1, 1], norm_layer=norm_layer)
        widths, stem = one_stage.NARROW['channels'], one_stage.NARROW['stem_channels']
        self.inplanes = stem
        self.conv1 = nn.Conv2d(3, stem, 7, 2, 3, bias=False)
        self.bn1 = norm_layer(stem)
        for index, width in enumerate(widths, start=1):
            setattr(self, f'layer{index}', self._make_layer(resnet.BasicBlock, width, 1, stride=1 if index == 1 else 2))


def narrow_mobilenet(norm_layer) -> nn.Module:
    """Torchvision's MobileNetV3 with few blocks."""
    rows, inputs = [], 16
    for expanded, channels, kernel, stride, squeezes, act in cases.NARROW_ROWS:
        name = 'HS' if act == 'hard_swish' else 'RE'
        rows.append(
            mobilenetv3.InvertedResidualConfig(inputs, kernel, expanded, channels, squeezes, name, stride, 1, 1)
        )
        inputs = channels
    return mobilenetv3.MobileNetV3(rows, 64, norm_layer=norm_layer)


class NarrowFPN:
    """Within it, torchvision's extractors make necks of ``cases.CHANNELS``."""

    def __enter__(self):
        from torchvision.models.detection import backbone_utils

        self.module, self.before = backbone_utils, backbone_utils.BackboneWithFPN

        def made(body, layers, widths, channels, **options):
            return self.before(body, layers, widths, cases.CHANNELS, **options)

        backbone_utils.BackboneWithFPN = made

    def __exit__(self, *error):
        self.module.BackboneWithFPN = self.before


def build(case: cases.Case, **options) -> FasterRCNN:
    """The detector of a case, in inference mode."""
    norm = FrozenBatchNorm2d if case.frozen else nn.BatchNorm2d
    options = {'min_size': case.min_size, 'max_size': case.max_size, **options}
    if case.mobile:
        body = narrow_mobilenet(norm) if case.narrow else mobilenet_v3_large(weights=None, norm_layer=norm)
        sizes = ((32, 64, 128, 256, 512),) * 3
        options['rpn_anchor_generator'] = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 3)
        options['rpn_score_thresh'] = 0.05
        if '320' in case.kind:
            options |= {'rpn_pre_nms_top_n_test': 150, 'rpn_post_nms_top_n_test': 150}
        extractor, arguments = _mobilenet_extractor, (True, 6)
    else:
        body = Narrow(norm) if case.narrow else resnet50(weights=None, norm_layer=norm)
        extractor, arguments = _resnet_fpn_extractor, (5,)
    neck = {} if case.frozen else {'norm_layer': nn.BatchNorm2d}
    if case.narrow:
        with NarrowFPN():
            backbone = extractor(body, *arguments, **neck)
    else:
        backbone = extractor(body, *arguments, **neck)
    channels = backbone.out_channels
    outputs, features = case.classes + 1, 4 * channels
    if case.frozen:
        box_head = TwoMLPHead(channels * 49, features)
    else:
        options['rpn_head'] = RPNHead(channels, _default_anchorgen().num_anchors_per_location()[0], conv_depth=2)
        box_head = FastRCNNConvFCHead((channels, 7, 7), [channels] * 4, [features], norm_layer=nn.BatchNorm2d)
    model = FasterRCNN(backbone, box_head=box_head, box_predictor=FastRCNNPredictor(features, outputs), **options)
    if case.frozen:
        overwrite_eps(model, case.epsilon)
    shapes = {key: tuple(each.shape) for key, each in model.state_dict().items()}
    model.load_state_dict({key: torch.from_numpy(each) for key, each in cases.state_dict(case, shapes).items()})
    return model.eval()


class Precise(nn.Module):
    """A module in float64, between float32: the reference then adds no error of its own.

    What is between these, such as the suppression of boxes, is done in float32, as torchvision does it.
    """

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner.double()
        self.out_channels = getattr(inner, 'out_channels', None)

    def forward(self, *arguments):
        return _cast(self.inner(*_cast(arguments, torch.float64)), torch.float32)


def _cast(tree, dtype):
    if isinstance(tree, torch.Tensor):
        return tree.to(dtype)
    if isinstance(tree, dict):
        return {key: _cast(each, dtype) for key, each in tree.items()}
    return type(tree)(_cast(each, dtype) for each in tree)


def precise(model: FasterRCNN) -> FasterRCNN:
    """The same detector, more exact."""
    model.backbone, model.rpn.head = Precise(model.backbone), Precise(model.rpn.head)
    model.roi_heads.box_head = Precise(model.roi_heads.box_head)
    model.roi_heads.box_predictor = Precise(model.roi_heads.box_predictor)
    return model


def _inputs(case: cases.Case):
    images = [torch.from_numpy(each).permute(2, 0, 1).float() / 255 for each in one_stage.images(case)]
    targets = [
        {
            'boxes': torch.from_numpy(boxes).reshape(-1, 4),
            'labels': torch.from_numpy(np.asarray(classes, np.int64)) + 1,
        }
        for boxes, classes in one_stage.objects(case)
    ]
    return images, targets


@torch.inference_mode()
def answers(case: cases.Case) -> dict[str, np.ndarray]:
    """What a detector answers to images: raw outputs of both stages, losses, boxes in the input and in the images."""
    images, _ = _inputs(case)
    model = precise(build(case))
    batch, _ = model.transform(images)
    maps = model.backbone(batch.tensors)
    logits, deltas = model.rpn.head(list(maps.values()))
    proposals, _ = model.rpn(batch, maps)
    outputs = model.roi_heads.box_head(model.roi_heads.box_roi_pool(maps, proposals, batch.image_sizes))
    classes, boxes = model.roi_heads.box_predictor(outputs)
    found, _ = model.roi_heads(maps, proposals, batch.image_sizes)
    result = {'extents': np.array(batch.image_sizes), 'input': batch.tensors.permute(0, 2, 3, 1).numpy()}
    for index, (objectness, delta) in enumerate(zip(logits, deltas, strict=True)):
        result[f'raw/{index}/objectness'] = objectness.permute(0, 2, 3, 1).numpy()
        result[f'raw/{index}/boxes'] = delta.permute(0, 2, 3, 1).numpy()
    counts = [len(each) for each in proposals]
    for index, (each, scores, delta) in enumerate(
        zip(proposals, classes.split(counts), boxes.split(counts), strict=True)
    ):
        result[f'proposals{index}'] = each.numpy()
        result[f'box/{index}/classes'], result[f'box/{index}/boxes'] = scores.numpy(), delta.numpy()
    original = [image.shape[-2:] for image in images]
    restored = model.transform.postprocess([dict(each) for each in found], batch.image_sizes, original)
    for prefix, detections in (('input', found), ('image', restored)):
        for index, each in enumerate(detections):
            labels = each['labels'].numpy() - 1
            values = {'boxes': each['boxes'].numpy(), 'scores': each['scores'].numpy(), 'labels': labels}
            result |= {f'{prefix}{index}/{name}': value for name, value in values.items()}
    return result | losses(case)


@torch.inference_mode()
def losses(case: cases.Case) -> dict[str, np.ndarray]:
    """Those of training, where all anchors and proposals are drawn."""
    images, targets = _inputs(case)
    sizes = {'rpn_batch_size_per_image': cases.ALL, 'box_batch_size_per_image': cases.ALL}
    model = precise(build(case, **sizes, box_positive_fraction=0.5)).train()
    found = model(images, targets)
    return {f'loss/{_LOSSES[name]}': each.numpy() for name, each in found.items()}


def summarised(result: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Without the input, which follows from the images, and with a part of the raw outputs."""
    kept = {name: each for name, each in result.items() if name != 'input'}
    for name, each in result.items():
        if name.startswith(('raw/', 'box/')):
            kept[name] = one_stage.sample(each)
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--answers', nargs=2, metavar=('FILE', 'KIND'))
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--size', nargs=2, type=int, action='append', default=[])
    parser.add_argument('--min-size', type=int, default=800)
    parser.add_argument('--max-size', type=int, default=1333)
    parser.add_argument('--narrow', action='store_true')
    parser.add_argument('--background', type=float)
    arguments = parser.parse_args()
    if arguments.answers:
        path, kind = arguments.answers
        sizes = tuple(map(tuple, arguments.size)) or ((427, 640),)
        limits, options = (arguments.min_size, arguments.max_size), {'narrow': arguments.narrow}
        case = cases.Case(kind, sizes, *limits, 90, arguments.seed, **options, background=arguments.background)
        shapes = {key: list(each.shape) for key, each in build(case).state_dict().items()}
        np.savez(Path(path), shapes=json.dumps(shapes), **answers(case))
        return
    made_with = json.dumps({package: importlib.metadata.version(package) for package in ('torch', 'torchvision')})
    for case in cases.CASES:
        shapes = {key: list(each.shape) for key, each in build(case).state_dict().items()}
        result = summarised(answers(case))
        found = [len(each) for name, each in result.items() if name.endswith('scores')]
        proposed = [len(each) for name, each in result.items() if name.startswith('proposals')]
        losses_ = {name: float(each) for name, each in result.items() if 'loss' in name}
        print(case.kind, losses_, 'proposals', proposed, 'boxes', found)
        np.savez_compressed(case.path, made_with=made_with, shapes=json.dumps(shapes), **result)


if __name__ == '__main__':
    main()
