"""Our detectors against torchvision's answers: of the stored cases, or of a file that ``generate.py --answers`` wrote.

python tests/parity/detection/compare.py FILE KIND --seed 3 --size 427 640 --size 333 500
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file, save_file

sys.path.insert(0, str(Path(__file__).parents[3]))

import backbones
from backbones.boxes.nms import Detections
from backbones.detection_input import DetectionInput, InputBatch
from backbones.model import Model
from tests.parity.detection import cases


def model_of(case: cases.Case) -> Model:
    """Our detector of a case."""
    if not case.narrow:
        return backbones.create_published(case.kind, **case.arguments())
    row = backbones.published_models.TABLE[case.kind]
    options = {**row.options, 'epsilon': case.epsilon, **case.arguments(), **cases.NARROW}
    return backbones.create_detector('resnet18', **options)


def loaded(case: cases.Case, shapes: Mapping[str, tuple[int, ...]], model: Model) -> dict[str, Any]:
    """The variables from a file of torchvision's; it comes back as it was."""
    name = 'resnet18' if case.narrow else 'resnet50'
    with tempfile.TemporaryDirectory() as directory:
        file, back = Path(directory, 'weights.safetensors'), Path(directory, 'back.safetensors')
        arrays = cases.state_dict(case, shapes)
        save_file(arrays, file)
        variables, report = backbones.load_weights(name, file, model=model)
        assert not report.problems()
        backbones.save_weights(back, variables, 'torchvision', name, model=model)
        again = load_file(back)
    assert all(np.array_equal(again[key], each) for key, each in arrays.items())
    assert all(key in arrays or key.endswith('num_batches_tracked') for key in again)
    return variables


def prepared(case: cases.Case) -> tuple[InputBatch, dict[str, np.ndarray]]:
    """The batch, and the objects in its pixels."""
    batch = DetectionInput(case.min_size, case.max_size)(cases.images(case))
    objects = cases.objects(case)
    most = max(len(boxes) for boxes, _ in objects) + 1  # one row more, of padding
    boxes = np.zeros((len(objects), most, 4), np.float32)
    classes = np.full((len(objects), most), -1, np.int32)
    for row, (each, its_classes) in enumerate(objects):
        factors = np.tile((batch.extents[row] / batch.sizes[row])[::-1], 2)
        boxes[row, : len(each)], classes[row, : len(each)] = each * factors, its_classes
    return batch, {'boxes': boxes, 'classes': classes, 'valid': np.ones(len(objects), np.float32)}


def answers(case: cases.Case, model: Model, variables: Mapping[str, Any]) -> dict[str, Any]:
    """What ours answers: the raw outputs, the losses, and the detections in the input and in the images."""
    batch, truth = prepared(case)
    size = batch.images.shape[1:3]

    @jax.jit
    def run(variables, images, truth, extents):
        outputs = model.apply(variables, images)
        return outputs, model.head.losses(outputs, truth, size), model.head.detections(outputs, size, extents)

    with jax.default_matmul_precision('highest'):
        outputs, losses, found = run(variables, batch.images, truth, batch.extents)
    return {
        'batch': batch,
        'truth': truth,
        'raw': outputs,
        'losses': losses,
        'input': found,
        'image': batch.restore(found),
    }


def raw_answers(kind: str, seed: int = 0) -> tuple[dict[str, Any], Detections]:
    """Losses of, and detections from, raw outputs that no network has made."""
    head = backbones.create_published(kind, num_classes=cases.RAW_CLASSES).head
    boxes, classes = cases.raw_objects(kind, seed)
    truth = {'boxes': boxes, 'classes': classes.astype(np.int32), 'valid': np.ones(2, np.float32)}

    @jax.jit
    def run(outputs, truth, extents):
        losses = head.losses(outputs, truth, cases.RAW_SIZE)
        return losses, head.detections(outputs, cases.RAW_SIZE, extents)

    return run(cases.raw(kind, seed), truth, jnp.asarray(cases.RAW_EXTENTS, jnp.float32))


def differences(found: Detections, stored: Mapping[str, np.ndarray], prefix: str) -> dict[str, float]:
    """By how much detections deviate: their number, their classes, their boxes in pixels, their scores.

    Scores that differ by rounding may change places, so boxes are matched with the nearest of their class; several may
    be clipped to the same empty box, whose scores then tell which is which.
    """
    worst = {'number': 0.0, 'classes': 0.0, 'boxes': 0.0, 'scores': 0.0}
    for row in range(len(found.valid)):
        valid = np.asarray(found.valid[row])
        boxes, scores = np.asarray(found.boxes[row])[valid], np.asarray(found.scores[row])[valid]
        classes = np.asarray(found.classes[row])[valid]
        theirs = {name: stored[f'{prefix}{row}/{name}'] for name in ('boxes', 'scores', 'labels')}
        worst['number'] = max(worst['number'], abs(len(boxes) - len(theirs['boxes'])))
        if len(boxes) != len(theirs['boxes']):
            continue
        assert (np.diff(scores) <= 0).all()
        worst['classes'] += np.abs(np.sort(classes) - np.sort(theirs['labels'])).sum()
        for box, score, label in zip(theirs['boxes'], theirs['scores'], theirs['labels'], strict=True):
            apart = np.where(classes == label, np.abs(boxes - box).max(-1), np.inf)
            nearest = (apart + 1000 * np.abs(scores - score)).argmin()
            worst['boxes'] = max(worst['boxes'], apart[nearest])
            worst['scores'] = max(worst['scores'], abs(scores[nearest] - score))
    return worst


def compare(case: cases.Case, stored: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Every deviation: of raw outputs and losses relative to the largest and to the loss, of boxes in pixels."""
    model = model_of(case)
    variables = loaded(case, json.loads(str(stored['shapes'])), model)
    ours = answers(case, model, variables)
    assert ours['batch'].extents.tolist() == stored['extents'].tolist()
    result = {}
    if 'input' in stored:
        result['input'] = np.abs(ours['batch'].images - stored['input']).max()
    for level, values in ours['raw'].items():
        for name, each in values.items():
            theirs = stored[f'raw/{level}/{name}']
            mine = np.asarray(each).reshape(-1) if theirs.ndim > 1 else cases.sample(np.asarray(each))
            result[f'{level}/{name}'] = np.abs(mine - theirs.reshape(-1)).max() / np.abs(theirs).max()
    result |= {f'loss/{name}': abs(np.mean(each) / stored[f'loss/{name}'] - 1) for name, each in ours['losses'].items()}
    for prefix in ('input', 'image'):
        result |= {f'{prefix}/{name}': each for name, each in differences(ours[prefix], stored, prefix).items()}
    if stored['raw/p3/boxes'].ndim > 1:
        # A pair of boxes at the threshold may be decided by the rounding of raw outputs; of the same ones it is not.
        given = {
            level: {name: stored[f'raw/{level}/{name}'].reshape(each.shape) for name, each in values.items()}
            for level, values in ours['raw'].items()
        }
        found = model.head.detections(given, ours['batch'].images.shape[1:3], ours['batch'].extents)
        result |= {f'given/{name}': each for name, each in differences(found, stored, 'input').items()}
    losses, found = raw_answers(case.kind, case.seed)
    result |= {f'raw/loss/{name}': abs(np.mean(each) / stored[f'rawloss/{name}'] - 1) for name, each in losses.items()}
    return result | {f'raw/{name}': each for name, each in differences(found, stored, 'raw').items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('file')
    parser.add_argument('kind')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--size', nargs=2, type=int, action='append', default=[])
    parser.add_argument('--min-size', type=int, default=800)
    parser.add_argument('--max-size', type=int, default=1333)
    parser.add_argument('--narrow', action='store_true')
    arguments = parser.parse_args()
    sizes = tuple(map(tuple, arguments.size)) or ((427, 640),)
    limits = arguments.min_size, arguments.max_size
    case = cases.Case(arguments.kind, sizes, *limits, 91, arguments.seed, narrow=arguments.narrow)
    with np.load(arguments.file) as stored:
        for name, each in compare(case, dict(stored)).items():
            print(f'{name:20} {each:.1e}')


if __name__ == '__main__':
    main()
