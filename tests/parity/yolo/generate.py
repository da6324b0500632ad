"""Ask ultralytics' detectors; keep what they answer, or compare ours with them for any seed and size.

Run in an environment of its own; the tests need none of it:

    pip install torch torchvision ultralytics
    python tests/parity/yolo/generate.py                        # write the .npz files beside this one
    python tests/parity/yolo/generate.py --answers FILE KIND --seed 3 --size 320 448
                                                                # one model at any size, for compare.py
"""

import argparse
import dataclasses
import importlib.metadata
import json
import os
import tempfile
from pathlib import Path

# Read when the package is imported: it writes its settings somewhere, and asks for updates.
os.environ['YOLO_CONFIG_DIR'] = tempfile.mkdtemp()
os.environ['YOLO_OFFLINE'] = 'true'

import cases
import numpy as np
import torch
from torch import Tensor, nn
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils.loss import E2ELoss, v8DetectionLoss
from ultralytics.utils.nms import non_max_suppression

_LOSSES = {'box_loss': 'boxes', 'cls_loss': 'classes', 'dfl_loss': 'distances', 'l1_loss': 'distances'}


def build(case: cases.Case) -> DetectionModel:
    """The detector of a case, in inference mode."""
    model = DetectionModel(f'{case.kind}.yaml', nc=case.classes, verbose=False)
    model.load_state_dict({key: torch.from_numpy(each) for key, each in state(case, model).items()})
    model.args = get_cfg()
    return model.eval()


def state(case: cases.Case, model: nn.Module) -> dict[str, np.ndarray]:
    """The weights of a case."""
    return cases.state_dict(case, {key: tuple(each.shape) for key, each in model.state_dict().items()})


def batch_of(boxes: np.ndarray, classes: np.ndarray, size: tuple[int, int]) -> dict[str, Tensor]:
    """Objects as ultralytics takes them: centre and sides, relative to the size of the images."""
    height, width = size
    centre, sides = (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
    relative = np.concatenate([centre, sides], -1).astype(np.float64) / [width, height, width, height]
    return {
        'batch_idx': torch.arange(len(boxes)).repeat_interleave(boxes.shape[1]).float(),
        'cls': torch.from_numpy(classes.reshape(-1)).float(),
        'bboxes': torch.from_numpy(relative.reshape(-1, 4)).float(),
    }


def maps_of(size: tuple[int, int]) -> list[Tensor]:
    """What is asked of the maps is their size."""
    return [torch.zeros(2, 1, size[0] // stride, size[1] // stride) for stride in (8, 16, 32)]


def kept(found: list[Tensor], prefix: str, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Boxes (clipped), scores and classes of each image under names of their own."""
    result = {}
    limits = torch.tensor([size[1], size[0]] * 2)
    for row, each in enumerate(found):
        result[f'{prefix}{row}/boxes'] = torch.minimum(each[:, :4].clamp(min=0), limits).numpy()
        result[f'{prefix}{row}/scores'], result[f'{prefix}{row}/labels'] = each[:, 4].numpy(), each[:, 5].numpy()
    return result


def answers_to(case: cases.Case, model: DetectionModel, predictions: dict[str, dict[str, Tensor]], objects, prefix):
    """Losses of raw outputs, boxes of all points, and detections; the outputs are ``{'one2many': …}`` and so on."""
    head, result = model.model[-1], {}
    batch = batch_of(*objects, case.size)
    both = 'one2one' in predictions
    loss = (E2ELoss if both else v8DetectionLoss)(model)
    if both:
        parts = [
            each.loss(predictions[name], batch)[0]
            for each, name in ((loss.one2many, 'one2many'), (loss.one2one, 'one2one'))
        ]
        weighted = loss(predictions, batch)[0]
        assert torch.allclose(weighted, 0.8 * parts[0] + 0.2 * parts[1])
    else:
        weighted = loss(predictions['one2many'], batch)[0]
    names = dict.fromkeys(_LOSSES.values())
    result |= {f'{prefix}loss/{name}': each.numpy() / 2 for name, each in zip(names, weighted, strict=True)}
    head.shape = None
    for ours, theirs in cases.BRANCHES.items():
        if theirs not in predictions:
            continue
        head._end2end = theirs == 'one2one'  # whether boxes are corners, or centres and sides
        decoded = head._inference(predictions[theirs])
        boxes = decoded[:, :4].permute(0, 2, 1)
        if not head.end2end:
            boxes = torch.cat([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], -1)
            for several in (False, True):
                found = non_max_suppression(
                    decoded.clone(),
                    case.threshold,
                    0.7,
                    multi_label=several,
                    max_det=300,
                    nc=case.classes,
                    max_time_img=1e3,
                )
                name = 'several' if several else 'suppressed'
                result |= kept([each[:, :6] for each in found], f'{prefix}{name}', case.size)
        else:
            found = head.postprocess(decoded.permute(0, 2, 1))
            found = [each[each[:, 4] > case.threshold] for each in found]
            result |= kept(found, f'{prefix}best', case.size)
        result[f'{prefix}decoded/{ours}'] = boxes.numpy()
    return result


@torch.inference_mode()
def answers(case: cases.Case) -> dict[str, np.ndarray]:
    """What a detector answers to images."""
    model = build(case)
    # In float64 the reference adds no error of its own; what follows is done in float32, as ultralytics does it.
    images = torch.from_numpy(cases.images(case)).permute(0, 3, 1, 2).double()
    _, predictions = model.double()(images)
    predictions = predictions if 'one2many' in predictions else {'one2many': predictions}
    model.float()
    for each in predictions.values():
        each.update(
            boxes=each['boxes'].float(), scores=each['scores'].float(), feats=[m.float() for m in each['feats']]
        )
    result = answers_to(case, model, predictions, cases.objects(case), '')
    counts = [each.shape[2] * each.shape[3] for each in predictions['one2many']['feats']]
    for ours, theirs in cases.BRANCHES.items():
        for name, key in (('classes', 'scores'), ('boxes', 'boxes')):
            if theirs in predictions:
                for level, each in enumerate(predictions[theirs][key].split(counts, dim=2), start=3):
                    result[f'raw/p{level}/{ours}/{name}'] = each.permute(0, 2, 1).numpy()
    return result


@torch.inference_mode()
def raw_answers(case: cases.Case) -> dict[str, np.ndarray]:
    """Losses of, and boxes made of, raw outputs that no network has made."""
    case = cases.raw_case(case)
    predictions = {
        cases.BRANCHES[kind]: {
            'boxes': torch.from_numpy(each['boxes']).permute(0, 2, 1),
            'scores': torch.from_numpy(each['classes']).permute(0, 2, 1),
            'feats': maps_of(case.size),
        }
        for kind, each in cases.raw(case).items()
    }
    return answers_to(case, build(case), predictions, cases.objects(case, 'raw/objects'), 'given/')


def summarised(result: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """With a part of the raw outputs and of the boxes of all points."""
    return {name: cases.sample(each) if 'raw/' in name or 'decoded/' in name else each for name, each in result.items()}


def fused_answers(case: cases.Case) -> dict[str, np.ndarray]:
    """Keys and a value of each entry of the state dictionary after ``model.fuse()``."""
    model = build(case)
    model.end2end = 'one_to_one' in case.kinds  # otherwise the other branch is left out
    model.fuse(verbose=False)
    state = {key: each.numpy() for key, each in model.state_dict().items()}
    return {'fused/keys': json.dumps(list(state)), 'fused/values': cases.one_of_each(state)}


def shapes_of(case: cases.Case) -> str:
    """Key → shape of the state dictionary."""
    return json.dumps({key: list(each.shape) for key, each in build(case).state_dict().items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--answers', nargs=2, metavar=('FILE', 'KIND'))
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--size', nargs=2, type=int, default=(320, 320))
    parser.add_argument('--gain', type=float, default=1.0)
    arguments = parser.parse_args()
    if arguments.answers:
        path, kind = arguments.answers
        case = cases.Case(kind, tuple(arguments.size), arguments.seed, gain=arguments.gain)
        np.savez(Path(path), shapes=shapes_of(case), **answers(case), **raw_answers(case))
        return
    packages = ('torch', 'torchvision', 'ultralytics')
    made_with = json.dumps({package: importlib.metadata.version(package) for package in packages})
    for case in cases.CASES:
        result = summarised(answers(case) | raw_answers(case)) | fused_answers(case)
        found = {name: len(each) for name, each in result.items() if name.endswith('scores')}
        print(dataclasses.astuple(case), {name: float(each) for name, each in result.items() if 'loss' in name}, found)
        np.savez_compressed(case.path, made_with=made_with, shapes=shapes_of(case), **result)


if __name__ == '__main__':
    main()
