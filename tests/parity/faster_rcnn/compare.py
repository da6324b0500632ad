"""Our Faster R-CNNs against torchvision's answers: of the stored cases, or of a file that ``generate.py`` wrote.

python tests/parity/faster_rcnn/compare.py FILE KIND --seed 3 --size 427 640 --size 333 500
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
from backbones.detection_input import InputBatch
from backbones.model import Model
from tests.parity.detection.cases import sample
from tests.parity.detection.compare import differences, prepared
from tests.parity.faster_rcnn import cases


def model_of(case: cases.Case, **changes) -> Model:
    """Our detector of a case; ``changes`` are options of the head."""
    row = backbones.published_models.TABLE[case.kind]
    name = 'resnet18' if case.narrow and not case.mobile else row.backbone
    arguments = {**row.options, **case.arguments(row.options)}
    arguments['head_options'] = {**arguments.get('head_options', {}), **changes}
    return backbones.create_detector(name, **arguments)


def name_of(case: cases.Case) -> str:
    """The registered backbone of a case."""
    return 'mobilenet_v3_large' if case.mobile else 'resnet18' if case.narrow else 'resnet50'


def loaded(case: cases.Case, shapes: Mapping[str, tuple[int, ...]], model: Model) -> dict[str, Any]:
    """The variables from a file of torchvision's; it comes back as it was."""
    with tempfile.TemporaryDirectory() as directory:
        file, back = Path(directory, 'weights.safetensors'), Path(directory, 'back.safetensors')
        arrays = cases.state_dict(case, shapes)
        save_file(arrays, file)
        variables, report = backbones.load_weights(name_of(case), file, model=model)
        assert not report.problems()
        backbones.save_weights(back, variables, 'torchvision', name_of(case), model=model)
        again = load_file(back)
    assert all(np.array_equal(again[key], each) for key, each in arrays.items())
    assert all(key in arrays or key.endswith('num_batches_tracked') for key in again)
    return variables


def given_proposals(case: cases.Case, stored: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The reference's proposals, padded, and which of them there are."""
    found = [stored[f'proposals{index}'] for index in range(len(case.sizes))]
    most = max(map(len, found))
    boxes = np.stack([np.pad(each, ((0, most - len(each)), (0, 0))) for each in found])
    return boxes, np.stack([np.arange(most) < len(each) for each in found])


def second_stage(model: Model, variables: Mapping[str, Any], batch: InputBatch, boxes, there):
    """What the second stage says about these boxes."""
    size = batch.images.shape[1:3]

    def run(variables, images, boxes, there):
        maps = model.apply(variables, images, method=lambda model, images: model.neck(model.backbone(images)))
        own = {kind: tree['head']['box_head'] for kind, tree in variables.items() if 'box_head' in tree.get('head', {})}
        second = model.head.second_stage(next(iter(maps.values())).shape[-1])
        return second.apply(own, model.head.pool(maps, boxes, size), there)

    return jax.jit(run)(variables, batch.images, boxes, there)


def compare(case: cases.Case, stored: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Every deviation: of raw outputs and losses relative to the largest and to the loss, of boxes in pixels."""
    with jax.default_matmul_precision('highest'):
        return _compare(case, stored)


def _compare(case: cases.Case, stored: Mapping[str, np.ndarray]) -> dict[str, float]:
    model = model_of(case)
    variables = loaded(case, json.loads(str(stored['shapes'])), model)
    batch, truth = prepared(case)
    size = batch.images.shape[1:3]
    assert batch.extents.tolist() == stored['extents'].tolist()

    @jax.jit
    def run(variables, images, extents):
        outputs = model.apply(variables, images, extents=extents)
        return outputs, model.head.detections(outputs, size, extents)

    outputs, found = run(variables, batch.images, batch.extents)
    result = {}
    if 'input' in stored:
        result['input'] = np.abs(batch.images - stored['input']).max()

    def relative(name: str, ours: np.ndarray) -> None:
        theirs = stored[name]
        ours = np.asarray(ours).reshape(-1) if theirs.ndim > 1 else sample(np.asarray(ours))
        result[name] = np.abs(ours - theirs.reshape(-1)).max() / np.abs(theirs).max()

    for index, values in enumerate(outputs.anchors.values()):
        for name, each in values.items():
            relative(f'raw/{index}/{name}', each)
    boxes, there = given_proposals(case, stored)
    classes, deltas = second_stage(model, variables, batch, boxes, there)
    for index, own in enumerate(there):
        relative(f'box/{index}/classes', np.asarray(classes[index])[own])
        relative(f'box/{index}/boxes', np.asarray(deltas[index])[own])
    result |= _proposals(outputs, boxes, there)
    for prefix, each in (('input', found), ('image', batch.restore(found))):
        result |= {f'{prefix}/{name}': value for name, value in differences(each, stored, prefix).items()}
    return result | losses(case, stored, variables, batch.images, batch.extents, truth)


def _proposals(outputs, boxes: np.ndarray, there: np.ndarray) -> dict[str, float]:
    """By how much the proposals deviate: their number, and the nearest ones in pixels."""
    number, worst = 0, 0.0
    for ours, own, theirs, its in zip(outputs.proposals, outputs.there, boxes, there, strict=True):
        ours, theirs = np.asarray(ours)[np.asarray(own)], theirs[its]
        number = max(number, abs(len(ours) - len(theirs)))
        worst = max(worst, max(np.abs(ours - each).max(-1).min() for each in theirs))
    return {'proposals/number': number, 'proposals/boxes': worst}


def losses(case, stored, variables, images, extents, truth) -> dict[str, float]:
    """By how much the losses of training deviate, where all anchors and proposals are drawn."""
    model = model_of(case, sampled_anchors=(cases.ALL, 0.5), sampled_proposals=(cases.ALL, 0.5))
    size = images.shape[1:3]

    @jax.jit
    def run(variables, images, extents, truth):
        outputs, _ = model.apply(
            variables,
            images,
            train=not case.frozen,
            extents=extents,
            truth=truth,
            rngs={'sampling': jax.random.key(0)},
            mutable=['batch_stats'],
        )
        return model.head.losses(outputs, truth, size)

    found = run(variables, images, extents, truth)
    return {f'loss/{name}': abs(np.mean(each) / stored[f'loss/{name}'] - 1) for name, each in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('file')
    parser.add_argument('kind')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--size', nargs=2, type=int, action='append', default=[])
    parser.add_argument('--min-size', type=int, default=800)
    parser.add_argument('--max-size', type=int, default=1333)
    parser.add_argument('--narrow', action='store_true')
    parser.add_argument('--background', type=float)
    arguments = parser.parse_args()
    sizes = tuple(map(tuple, arguments.size)) or ((427, 640),)
    limits, options = (arguments.min_size, arguments.max_size), {'narrow': arguments.narrow}
    case = cases.Case(arguments.kind, sizes, *limits, 90, arguments.seed, **options, background=arguments.background)
    with np.load(arguments.file) as stored:
        for name, each in compare(case, dict(stored)).items():
            print(f'{name:20} {each:.1e}')


if __name__ == '__main__':
    main()
