"""Our YOLOs against ultralytics' answers: of the stored cases, or of a file that ``generate.py --answers`` wrote.

python tests/parity/yolo/compare.py FILE KIND --seed 3 --size 320 448
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import load_file, save_file

sys.path.insert(0, str(Path(__file__).parents[3]))

import backbones
from backbones.boxes.nms import Detections
from backbones.heads.yolo import NAMES
from backbones.model import Model
from tests.parity.detection.compare import differences
from tests.parity.yolo import cases

# The weight that the reference gives to the one-to-many branch when a training begins.
WEIGHT = 0.8


def model_of(case: cases.Case, **head: Any) -> Model:
    """Our detector of a case."""
    options = {'score_threshold': case.threshold, 'one_to_many_weight': WEIGHT, **head}
    row = backbones.published_models.TABLE[case.kind].options
    return backbones.create_published(
        case.kind, num_classes=case.classes, head_options={**row['head_options'], **options}
    )


def loaded(case: cases.Case, shapes: Mapping[str, tuple[int, ...]], model: Model) -> dict[str, Any]:
    """The variables from a file of ultralytics'; it comes back as it was."""
    with tempfile.TemporaryDirectory() as directory:
        file, back = Path(directory, 'weights.safetensors'), Path(directory, 'back.safetensors')
        arrays = cases.state_dict(case, shapes)
        save_file(arrays, file)
        variables, report = backbones.load_weights(case.kind, file, model=model)
        assert not report.problems()
        assert report.layout == 'ultralytics'
        assert report.preprocessing == backbones.preprocessing.YOLO
        backbones.save_weights(back, variables, 'ultralytics', case.kind, model=model)
        again = load_file(back)
    assert again.keys() == arrays.keys()
    assert all(np.array_equal(again[key], each) and again[key].dtype == each.dtype for key, each in arrays.items())
    return variables


def truth_of(objects: tuple[np.ndarray, np.ndarray]) -> dict[str, np.ndarray]:
    """Objects as our heads take them, with one row of padding."""
    boxes, classes = objects
    return {
        'boxes': np.pad(boxes, ((0, 0), (0, 1), (0, 0))),
        'classes': np.pad(classes, ((0, 0), (0, 1)), constant_values=-1),
        'valid': np.ones(len(boxes), np.float32),
    }


def levels_of(case: cases.Case) -> dict[str, dict[str, np.ndarray]]:
    """The raw outputs that no network has made, level by level."""
    outputs: dict[str, dict[str, np.ndarray]] = {f'p{k}': {} for k in (3, 4, 5)}
    for kind, both in cases.raw(case).items():
        for name, values in zip(NAMES[kind], (both['classes'], both['boxes']), strict=True):
            start = 0
            for level in outputs:
                rows, columns = (side // 2 ** int(level[1:]) for side in case.size)
                part = values[:, start : start + rows * columns]
                outputs[level][name] = part.reshape(len(part), rows, columns, 1, -1)
                start += rows * columns
    return outputs


def answers(case: cases.Case, outputs: Mapping[str, Any], truth: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What ours makes of raw outputs: losses, boxes of all points, and detections by name."""
    head = model_of(case).head

    @jax.jit
    def run(outputs, truth):
        result: dict[str, Any] = {'losses': head.losses(outputs, truth, case.size)}
        result['decoded'] = {kind: head.boxes(outputs, case.size, kind) for kind in case.kinds}
        options = {'suppressed': {}, 'several': {'multi_label': True}}
        for name, each in options.items():
            result[name] = head.clone(branches='one_to_many', **each).detections(outputs, case.size)
        if 'one_to_one' in case.kinds:
            result['best'] = head.detections(outputs, case.size)
        return result

    return run(outputs, truth)


def deviations(ours: Mapping[str, Any], stored: Mapping[str, np.ndarray], prefix: str) -> dict[str, float]:
    """Of losses relative to them, of boxes in pixels."""
    result = {
        f'{prefix}loss/{name}': abs(float(np.mean(each)) / float(stored[f'{prefix}loss/{name}']) - 1)
        for name, each in ours['losses'].items()
    }
    for kind, each in ours['decoded'].items():
        result[f'{prefix}decoded/{kind}'] = _apart(np.asarray(each), stored[f'{prefix}decoded/{kind}']).max()
    for name, each in ours.items():
        if isinstance(each, Detections):
            found = differences(each, stored, f'{prefix}{name}')
            result |= {f'{prefix}{name}/{what}': apart for what, apart in found.items()}
    return result


def _apart(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Absolute differences; of a part of the values where only that is stored."""
    ours = ours.reshape(-1) if theirs.ndim > 1 else cases.sample(ours)
    return np.abs(ours - theirs.reshape(-1))


def compare(case: cases.Case, stored: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Every deviation: of raw outputs relative to the largest, of losses relative to them, of boxes in pixels.

    Losses and boxes are made of our raw outputs, or of the reference's where all of them are stored.
    """
    model = model_of(case)
    variables = loaded(case, json.loads(str(stored['shapes'])), model)
    with jax.default_matmul_precision('highest'):
        outputs = jax.jit(model.apply)(variables, cases.images(case))
    result = {}
    for level, values in outputs.items():
        for kind in case.kinds:
            for name, ours in zip(('classes', 'boxes'), NAMES[kind], strict=True):
                theirs = stored[f'raw/{level}/{kind}/{name}']
                result[f'raw/{level}/{kind}/{name}'] = (
                    _apart(np.asarray(values[ours]), theirs).max() / np.abs(theirs).max()
                )
                if theirs.ndim > 1:
                    # Which of two scores is larger may be decided by the rounding of raw outputs; of the same ones it
                    # is not.
                    values[ours] = theirs.reshape(values[ours].shape)
    result |= deviations(answers(case, outputs, truth_of(cases.objects(case))), stored, '')
    given = cases.raw_case(case)
    truth = truth_of(cases.objects(given, 'raw/objects'))
    return result | deviations(answers(given, levels_of(given), truth), stored, 'given/')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('file')
    parser.add_argument('kind')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--size', nargs=2, type=int, default=(320, 320))
    parser.add_argument('--gain', type=float, default=1.0)
    arguments = parser.parse_args()
    case = cases.Case(arguments.kind, tuple(arguments.size), arguments.seed, gain=arguments.gain)
    with np.load(arguments.file) as stored:
        for name, each in compare(case, dict(stored)).items():
            print(f'{name:36} {each:.1e}')


if __name__ == '__main__':
    main()
