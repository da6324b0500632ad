"""Ask torchvision's detectors; keep what they answer, or compare ours with them for any seed and size.

Run in an environment of its own; the tests need none of it:

    pip install torch torchvision
    python tests/parity/detection/generate.py                        # write the .npz files beside this one
    python tests/parity/detection/generate.py --answers FILE KIND --seed 3 --size 427 640 --size 333 500
                                                                     # the published model, for compare.py
"""

import argparse
import importlib.metadata
import json
from pathlib import Path

import cases
import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models import resnet, resnet50
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection._utils import overwrite_eps
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNetHead, _default_anchorgen
from torchvision.ops.feature_pyramid_network import LastLevelP6P7
from torchvision.ops.misc import FrozenBatchNorm2d

_NAMES = {'cls_logits': 'classes', 'bbox_regression': 'boxes', 'bbox_ctrness': 'centerness'}


class Narrow(resnet.ResNet):
    """Torchvision's ResNet with other numbers of channels and blocks."""

    def __init__(self, norm_layer):
        super().__init__(resnet.BasicBlock, [1, 1, 1, 1], norm_layer=norm_layer)
        widths, stem = cases.NARROW['channels'], cases.NARROW['stem_channels']
        self.inplanes = stem
        self.conv1 = nn.Conv2d(3, stem, 7, 2, 3, bias=False)
        self.bn1 = norm_layer(stem)
        for index, width in enumerate(widths, start=1):
            setattr(self, f'layer{index}', self._make_layer(resnet.BasicBlock, width, 1, stride=1 if index == 1 else 2))


def build(case: cases.Case) -> nn.Module:
    """The detector of a case, in inference mode."""
    norm = FrozenBatchNorm2d if case.frozen else nn.BatchNorm2d
    body = Narrow(norm) if case.narrow else resnet50(weights=None, norm_layer=norm)
    widths = [body.inplanes // 4, body.inplanes // 2, body.inplanes]
    channels = 64 if case.narrow else 256
    extra = LastLevelP6P7(body.inplanes if case.kind.endswith('v2') else channels, channels)
    layers = {f'layer{index}': str(index - 2) for index in (2, 3, 4)}
    backbone = BackboneWithFPN(body, layers, widths, channels, extra)
    sizes = {'min_size': case.min_size, 'max_size': case.max_size}
    if case.kind.startswith('fcos'):
        model = FCOS(backbone, case.classes, **sizes)
    elif case.kind.endswith('v2'):
        head = RetinaNetHead(channels, 9, case.classes, norm_layer=lambda width: nn.GroupNorm(32, width))
        head.regression_head._loss_type = 'giou'
        model = RetinaNet(backbone, case.classes, head=head, anchor_generator=_default_anchorgen(), **sizes)
    else:
        model = RetinaNet(backbone, case.classes, **sizes)
    if case.frozen:
        overwrite_eps(model, case.epsilon)
    model.load_state_dict({key: torch.from_numpy(each) for key, each in state(case, model).items()})
    return model.eval()


def state(case: cases.Case, model: nn.Module) -> dict[str, np.ndarray]:
    """The weights of a case."""
    return cases.state_dict(case, {key: tuple(each.shape) for key, each in model.state_dict().items()})


def targets_of(objects) -> list[dict[str, Tensor]]:
    """Objects as torchvision takes them."""
    return [
        {'boxes': torch.from_numpy(boxes), 'labels': torch.from_numpy(np.asarray(classes, np.int64))}
        for boxes, classes in objects
    ]


def losses(model: nn.Module, outputs: dict[str, Tensor], targets, anchors, per_level: list[int]) -> dict[str, Tensor]:
    """The losses of a batch, by our names."""
    extra = [per_level] if isinstance(model, FCOS) else []
    return {
        _NAMES.get(name, 'classes'): each
        for name, each in model.compute_loss(targets, outputs, anchors, *extra).items()
    }


def detections(model: nn.Module, outputs: dict[str, Tensor], anchors, per_level: list[int], extents):
    """Boxes in pixels of the input."""
    split = {name: list(each.split(per_level, dim=1)) for name, each in outputs.items()}
    return model.postprocess_detections(split, [list(each.split(per_level)) for each in anchors], extents)


def kept(found, prefix: str) -> dict[str, np.ndarray]:
    """Boxes, scores and classes of each image under names of their own."""
    return {
        f'{prefix}{index}/{name}': each[name].numpy()
        for index, each in enumerate(found)
        for name in ('boxes', 'scores', 'labels')
    }


@torch.inference_mode()
def answers(case: cases.Case) -> dict[str, np.ndarray]:
    """What a detector answers to images: raw outputs, losses, boxes in the input and in the images as they came."""
    model = build(case)
    images = [torch.from_numpy(each).permute(2, 0, 1).float() / 255 for each in cases.images(case)]
    batch, targets = model.transform(images, targets_of(cases.objects(case)))
    # In float64 the reference adds no error of its own; what follows is done in float32, as torchvision does it.
    model.double()
    maps = list(model.backbone(batch.tensors.double()).values())
    outputs = {name: each.float() for name, each in model.head(maps).items()}
    model.float()
    maps = [each.float() for each in maps]
    anchors = model.anchor_generator(batch, maps)
    count = model.anchor_generator.num_anchors_per_location()[0]
    per_level = [each.shape[2] * each.shape[3] * count for each in maps]
    found = detections(model, outputs, anchors, per_level, batch.image_sizes)
    result = {
        'extents': np.array(batch.image_sizes),
        'input': batch.tensors.permute(0, 2, 3, 1).numpy(),
        'targets': np.concatenate([each['boxes'].numpy() for each in targets]),
        **{f'loss/{name}': each.numpy() for name, each in losses(model, outputs, targets, anchors, per_level).items()},
        **kept(found, 'input'),
    }
    for name, each in outputs.items():
        for level, values in enumerate(each.split(per_level, dim=1), start=3):
            result[f'raw/p{level}/{_NAMES[name]}'] = values.numpy()
    original = [image.shape[-2:] for image in images]
    result |= kept(model.transform.postprocess([dict(each) for each in found], batch.image_sizes, original), 'image')
    return result


@torch.inference_mode()
def raw_answers(kind: str, seed: int = 0) -> dict[str, np.ndarray]:
    """Losses of, and boxes made of, raw outputs that no network has made."""
    case = cases.Case(kind, classes=cases.RAW_CLASSES)
    model = build(case)
    raw = cases.raw(kind, seed)
    grids = cases.raw_grids()
    outputs = {}
    for name, ours in _NAMES.items():
        if ours in raw['p3']:
            width = 1 if ours == 'centerness' else raw['p3'][ours].shape[-1]
            outputs[name] = torch.cat([torch.from_numpy(raw[level][ours]).reshape(2, -1, width) for level in grids], 1)
    maps = [torch.zeros(2, 1, *grid) for grid in grids.values()]
    batch = ImageList(torch.zeros(2, 3, *cases.RAW_SIZE), [tuple(each) for each in cases.RAW_EXTENTS])
    anchors = model.anchor_generator(batch, maps)
    count = model.anchor_generator.num_anchors_per_location()[0]
    per_level = [rows * columns * count for rows, columns in grids.values()]
    objects = list(zip(*cases.raw_objects(kind, seed), strict=True))
    found = detections(model, outputs, anchors, per_level, batch.image_sizes)
    result = losses(model, outputs, targets_of(objects), anchors, per_level)
    return {f'rawloss/{name}': each.numpy() for name, each in result.items()} | kept(found, 'raw')


def summarised(result: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Without the input, which follows from the images, and with a part of the raw outputs."""
    kept = {name: each for name, each in result.items() if name != 'input'}
    for name, each in result.items():
        if name.startswith('raw/'):
            kept[name] = cases.sample(each)
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--answers', nargs=2, metavar=('FILE', 'KIND'))
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--size', nargs=2, type=int, action='append', default=[])
    parser.add_argument('--min-size', type=int, default=800)
    parser.add_argument('--max-size', type=int, default=1333)
    parser.add_argument('--narrow', action='store_true')
    arguments = parser.parse_args()
    if arguments.answers:
        path, kind = arguments.answers
        sizes = tuple(map(tuple, arguments.size)) or ((427, 640),)
        case = cases.Case(
            kind, sizes, arguments.min_size, arguments.max_size, 91, arguments.seed, narrow=arguments.narrow
        )
        shapes = {key: list(each.shape) for key, each in build(case).state_dict().items()}
        np.savez(Path(path), shapes=json.dumps(shapes), **answers(case), **raw_answers(kind, arguments.seed))
        return
    made_with = json.dumps({package: importlib.metadata.version(package) for package in ('torch', 'torchvision')})
    for case in cases.CASES:
        shapes = {key: list(each.shape) for key, each in build(case).state_dict().items()}
        result = summarised(answers(case)) | raw_answers(case.kind)
        found = [len(each) for name, each in result.items() if name.endswith('scores')]
        print(case.kind, {name: float(each) for name, each in result.items() if 'loss' in name}, 'boxes', found)
        np.savez_compressed(case.path, made_with=made_with, shapes=json.dumps(shapes), **result)


if __name__ == '__main__':
    main()
