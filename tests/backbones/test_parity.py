"""Stage by stage, our outputs against those of the reference implementations under the same weights (tests/parity)."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors import safe_open
from safetensors.numpy import save_file

import backbones
from backbones import Report, freezing
from backbones.preprocessing import TORCHVISION
from backbones.pretrained.load import expected_shapes, recognise
from backbones.pretrained.merge import merge
from backbones.pretrained.save import to_layout
from tests.parity import weights

# Largest deviation allowed, as a share of the reference's largest magnitude. Float32 alone makes less than 1e-6; the
# smallest mistake known, a GELU by its tanh formula, makes 1.2e-4.
TOLERANCE = 2e-5
AS_USERS_COMPILE = True
# No two tests share a program, and the next network may need 1.3 GiB.
LARGE = 500.0


def load(case: weights.Case, file: Path, classifier: bool) -> tuple[dict, backbones.Report]:
    """The variables that a case's file gives, and the report."""
    return backbones.load_weights(case.backbone, file, classifier, image_size=case.size, **dict(case.options))


def outputs_of(case: weights.Case, variables: dict, classifier: bool) -> dict[str, np.ndarray]:
    """All outputs of the classifier and of the backbone inside it, from one compilation, and the parameters."""
    if classifier:
        model = backbones.create_classifier(case.backbone, num_classes=1000, **dict(case.options))
    else:
        model = backbones.create(case.backbone, **dict(case.options))

    @jax.jit
    def run(variables, images):
        return model.apply(
            variables,
            images,
            capture_intermediates=lambda module, _: module.name == 'backbone',
            mutable=['intermediates'],
        )

    with jax.default_matmul_precision('highest'):
        result, state = run(variables, weights.images(case))
    features = state['intermediates']['backbone']['__call__'][0] if classifier else result
    outputs = dict(features.stages, pooled=features.pooled)
    if classifier:
        outputs['logits'] = result
    if dict(case.options).get('auxiliary_classes'):
        outputs |= auxiliary_logits(case, variables)
    params = variables['params']['backbone'] if classifier else variables['params']
    if features.tokens is not None:
        outputs['tokens'] = features.tokens
    return outputs | flatten_dict(params, sep='/')


def auxiliary_logits(case: weights.Case, variables: dict) -> dict[str, np.ndarray]:
    """Those of a training step in which all but the heads' last layers are frozen, so that statistics stay."""
    model = backbones.create_classifier(case.backbone, num_classes=1000, auxiliary_dropout=0.0, **dict(case.options))
    mask = freezing.mask(variables['params'], (('backbone/auxiliary./dense2/.*', 'trainable'), ('.*', 'frozen')))

    @jax.jit
    def run(variables, images):
        with freezing.inference_where_frozen(mask):
            rngs = {'dropout': jax.random.key(0)}
            return model.apply(variables, images, train=True, mutable=['auxiliary_logits'], rngs=rngs)[1]

    with jax.default_matmul_precision('highest'):
        sown = run(variables, weights.images(case))['auxiliary_logits']['backbone']
    return {name: head['logits'][0] for name, head in sown.items()}


def same_arrays(left: Mapping[str, np.ndarray], right: Mapping[str, np.ndarray]) -> bool:
    """The same keys, types, shapes and bits."""
    return left.keys() == right.keys() and all(
        left[key].dtype == right[key].dtype
        and left[key].shape == right[key].shape
        and left[key].tobytes() == right[key].tobytes()
        for key in left
    )


def digests(file: Path) -> dict[str, tuple[str, tuple[int, ...], str]]:
    """Type, shape and digest of each array of a safetensors file."""
    found = {}
    with safe_open(file, 'numpy') as arrays:
        for key in arrays.keys():  # noqa: SIM118 (not a dict)
            array = arrays.get_tensor(key)
            found[key] = array.dtype.name, array.shape, hashlib.sha256(array).hexdigest()
    return found


def stored_of(case: weights.Case) -> tuple[dict[str, list[int]], dict[str, np.ndarray]]:
    """Keys and shapes of the file that the reference was given, and its answers."""
    with np.load(case.path) as stored:
        answers = dict(stored)
    answers.pop('made_with')
    return json.loads(answers.pop('shapes').tobytes()), answers


def reference_of(case: weights.Case) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The file that the reference was given, and its answers."""
    shapes, answers = stored_of(case)
    return weights.state_dict(case, shapes), answers


def families_and_layouts(cases: Iterable[weights.Case]) -> set[tuple[str, str]]:
    return {(type(backbones.create(case.backbone)).__name__, case.layout) for case in cases}


def test_each_family_and_each_of_its_layouts_has_a_quick_case():
    known = {str(case) for case in (*weights.CASES, *weights.KEYS_ONLY, *weights.TRAINING)}
    assert known >= weights.QUICK | weights.SLOW | weights.REPEATING
    assert len(weights.QUICK | weights.SLOW | weights.REPEATING) == sum(
        map(len, (weights.QUICK, weights.SLOW, weights.REPEATING))
    )
    quick = [case for case in (*weights.CASES, *weights.KEYS_ONLY) if str(case) in weights.QUICK]
    every = families_and_layouts((*weights.CASES, *weights.KEYS_ONLY))
    assert families_and_layouts((*quick, *weights.QUICK_KEYS)) == every
    compared = families_and_layouts(case for case in quick if case.image_size)
    assert {family for family, _ in compared} == {family for family, _ in every}


@pytest.mark.parametrize('case', weights.marked(weights.CASES))
def test_every_stage_equals_the_reference(case: weights.Case, tmp_path: Path):
    arrays, reference = reference_of(case)
    classifier = 'logits/shape' in reference
    file = tmp_path / 'reference.safetensors'
    save_file(arrays, file)
    del arrays  # large networks are in memory once, not three times
    variables, report = load(case, file, classifier)
    before = digests(file)
    file.unlink()
    assert not report.problems()
    if case.image_size != case.file_size:
        assert [path for path, *_ in report.reshaped]
    else:
        assert not report.reshaped
        back = tmp_path / 'back.safetensors'
        backbones.save_weights(back, variables, report.layout, case.backbone, **dict(case.options))
        assert digests(back) == before, 'the round trip changes the file'
        back.unlink()

    outputs = outputs_of(case, variables, classifier)
    errors = {}
    for name in sorted({key.rpartition('/')[0] for key in reference}):
        ours = weights.summary(name, outputs[name])
        assert ours[f'{name}/shape'].tolist() == reference[f'{name}/shape'].tolist(), name
        largest = reference[f'{name}/moments'][2]
        errors[name] = max(
            np.abs(ours[key] - reference[key]).max() / largest for key in (f'{name}/moments', f'{name}/values')
        )
    stages = {stage.name for stage in backbones.info(case.backbone).stages}
    assert stages | {'pooled'} <= set(errors)
    print(case, ' '.join(f'{name} {error:.1e}' for name, error in errors.items()))
    assert max(errors.values()) <= TOLERANCE, errors


@pytest.mark.parametrize(
    'case', [*weights.marked(weights.KEYS_ONLY), *(pytest.param(case, id=str(case)) for case in weights.QUICK_KEYS)]
)
def test_key_map_of_a_large_variant(case: weights.Case):
    """Every key of the reference finds its place, every place its key, and all come back under their names.

    Each array is one number, a different one for each key, seen through a shape: gigabytes that take no memory.
    """
    shapes, _ = stored_of(case)
    numbers = {key: np.float32(index) for index, key in enumerate(shapes)}
    arrays = {
        key: np.zeros(shape, np.int64)
        if key.endswith(weights.INTEGERS)
        else np.broadcast_to(numbers[weights.held_as(key)], shape)
        for key, shape in shapes.items()
    }
    module = backbones.create(case.backbone, **dict(case.options))
    layout, translation = recognise(module, arrays, case.backbone, str(case))
    classes = 1000 if case.classifier else None
    expected = expected_shapes(case.backbone, classes, (1, case.file_size, case.file_size, 3), dict(case.options))
    fitting, report = merge(expected, translation, Report('', layout, TORCHVISION), lambda *_: None)
    assert not report.problems()
    assert not report.reshaped
    back = to_layout(fitting, layout, case.backbone, dict(case.options))
    assert {key: list(array.shape) for key, array in back.items()} == shapes
    floats = {key: array for key, array in arrays.items() if key not in report.dropped}
    assert {key: back[key].ravel()[[0, -1]].tolist() for key in floats} == {
        key: array.ravel()[[0, -1]].tolist() for key, array in floats.items()
    }
