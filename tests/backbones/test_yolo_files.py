"""Files of whole YOLOs: what is read of them, fused or not, what is written, and what is said where they do not fit."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file, save_file

import backbones
from backbones.errors import UserError
from tests.parity.yolo import cases

CASES = {case.kind: case for case in cases.CASES}
YOLO11, YOLO26, *_ = CASES


def arrays_of(kind: str) -> dict[str, np.ndarray]:
    """The state dictionary of a case."""
    with np.load(CASES[kind].path) as stored:
        return cases.state_dict(CASES[kind], json.loads(str(stored['shapes'])))


def written(arrays: dict[str, np.ndarray], directory: Path) -> Path:
    file = directory / 'detector.safetensors'
    save_file(arrays, file)
    return file


def flat(variables) -> dict[str, np.ndarray]:
    return flatten_dict(variables, sep='/')


def fused(arrays: dict[str, np.ndarray], without: str = '') -> dict[str, np.ndarray]:
    """What ``model.fuse()`` of ultralytics leaves of a state dictionary: the rest of it begins with ``without``."""
    result = {}
    for key, array in arrays.items():
        if '.bn.' in key or (without and key.startswith(without)):
            continue
        layer = key.removesuffix('.conv.weight')
        if f'{layer}.bn.weight' not in arrays:
            result[key] = array
            continue
        norm = {name: arrays[f'{layer}.bn.{name}'] for name in ('weight', 'bias', 'running_mean', 'running_var')}
        factor = norm['weight'] / np.sqrt(norm['running_var'] + 1e-3)
        result[key] = array * factor[:, None, None, None]
        result[f'{layer}.conv.bias'] = norm['bias'] - norm['running_mean'] * factor
    return result


@pytest.mark.parametrize('kind', [YOLO11, pytest.param(YOLO26, marks=pytest.mark.exhaustive)])
def test_parts_of_a_file_without_a_model(kind: str, tmp_path: Path):
    """Published files are of float16, which comes back in float32."""
    arrays = {key: each if each.dtype == np.int64 else each.astype(np.float16) for key, each in arrays_of(kind).items()}
    file = written(arrays, tmp_path)
    whole, report = backbones.load_weights(kind, file, model=backbones.create_published(kind))
    assert not report.problems()
    assert report.preprocessing.fit == 'letterbox'
    assert report.preprocessing.size == (640, 640)
    for parts in (('backbone', 'neck', 'head'), ('head',), ('backbone',)):
        some, report = backbones.load_weights(kind, file, parts=parts)
        assert not report.problems()
        paths = {path.replace('/', '/backbone/', 1): each for path, each in flat(some).items()}
        found = paths if parts == ('backbone',) else flat(some)
        expected = {path: each for path, each in flat(whole).items() if path.split('/')[1] in parts}
        assert found.keys() == expected.keys()
        assert all(np.array_equal(each, expected[path]) for path, each in found.items())
    # Of the published models, the one with these variables is found, also without its name.
    back = tmp_path / 'back.safetensors'
    backbones.save_weights(back, whole, 'ultralytics', kind)
    again = load_file(back)
    assert again.keys() == arrays.keys()
    assert all(np.array_equal(again[key], each.astype(again[key].dtype)) for key, each in arrays.items())


@pytest.mark.parametrize('kind', [YOLO11, pytest.param(YOLO26, marks=pytest.mark.slow)])
def test_a_fused_file_computes_the_same(kind: str, tmp_path: Path):
    arrays = arrays_of(kind)
    whole, _ = backbones.load_weights(kind, written(arrays, tmp_path), model=backbones.create_published(kind))
    branches = 'one_to_many' if kind == YOLO11 else 'one_to_one'
    model = backbones.create_published(kind, head_options={'branches': branches})
    # Of a fused YOLO26, the branch for training is left out.
    merged = fused(arrays, '' if kind == YOLO11 else 'model.23.cv')
    with np.load(CASES[kind].path) as stored:
        keys, values = json.loads(str(stored['fused/keys'])), stored['fused/values']
    assert set(keys) == set(merged)
    np.testing.assert_allclose(cases.one_of_each({key: merged[key] for key in keys}), values, rtol=1e-5, atol=1e-7)
    file = written(merged, tmp_path)
    variables, report = backbones.load_weights(kind, file, model=model)
    assert report.layout == 'ultralytics_fused'
    assert not report.problems()
    alone, report = backbones.load_weights(kind, file)
    assert report.layout == 'ultralytics_fused'
    images = cases.images(CASES[kind])
    backbone = backbones.create(kind)
    run = jax.jit(backbone.apply)
    expected = run({part: tree['backbone'] for part, tree in whole.items()}, images).stages['stage5']
    assert np.abs(run(alone, images).stages['stage5'] - expected).max() < 1e-5 * np.abs(expected).max()
    # The file is written back as it was; weights that are not fused cannot be written so.
    back = tmp_path / 'back.safetensors'
    backbones.save_weights(back, variables, 'ultralytics_fused', kind, model=model)
    assert all(np.array_equal(each, load_file(file)[key]) for key, each in load_file(back).items())
    with pytest.raises(UserError, match=r'the ultralytics_fused layout has no place for batch_stats/backbone/'):
        backbones.save_weights(back, whole, 'ultralytics_fused', kind, model=backbones.create_published(kind))


def test_what_does_not_fit_is_named_with_the_remedy(tmp_path: Path):
    arrays = arrays_of(YOLO26)
    file = written(arrays, tmp_path)
    with pytest.raises(UserError, match=r'its head has 80 classes: make the model with num_classes=80'):
        backbones.load_weights(YOLO26, file, model=backbones.create_published(YOLO26, num_classes=7))
    with pytest.raises(UserError, match=r'model\.22\.m\.0\.1\.attn\.\S+ belongs to the neck of a YOLO26'):
        backbones.load_weights(YOLO11, file, model=backbones.create_published(YOLO11))
    without = written({key: each for key, each in arrays.items() if not key.startswith('model.23.cv')}, tmp_path)
    message = r"it has no one-to-many branch: make the model with head_options=\{'branches': 'one_to_one'\}"
    with pytest.raises(UserError, match=message):
        backbones.load_weights(YOLO26, without, model=backbones.create_published(YOLO26))
    file = written(arrays_of(YOLO11), tmp_path)
    with pytest.raises(UserError, match=r'model\.23\.dfl\.conv\.weight belongs to the head of YOLO11'):
        backbones.load_weights(YOLO26, file, model=backbones.create_published(YOLO26))


def test_one_branch_of_two_is_read_alone(tmp_path: Path):
    file = written(arrays_of(YOLO26), tmp_path)
    for branches in ('one_to_many', 'one_to_one'):
        model = backbones.create_published(YOLO26, head_options={'branches': branches})
        variables, report = backbones.load_weights(YOLO26, file, model=model)
        assert not report.problems()
        assert {path.split('/')[2][:-1] for path in flat(variables) if '/head/' in path} == {branches}
