"""What the parity with ultralytics does not show of YOLO11 and YOLO26: whole models, each other's files, options."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import backbones
from backbones import UserError
from backbones.pretrained.keymaps.rules import Foreign, ForeignFileError, KeyMap, Rule, export, translate
from tests.backbones.test_parity import reference_of, same_arrays
from tests.parity import weights

WHOLE = weights.marked([case for case in weights.WHOLE if case.layout != 'classify'])
IN_BACKBONE = re.compile(r'model\.(\d|10)\..*')


def write(tmp_path: Path, arrays: dict[str, np.ndarray]) -> Path:
    path = tmp_path / 'weights.safetensors'
    save_file(arrays, path)
    return path


def cast(arrays: dict[str, np.ndarray], dtype: type) -> dict[str, np.ndarray]:
    """All but the counters, which are integers."""
    return {key: array if array.dtype == np.int64 else array.astype(dtype) for key, array in arrays.items()}


@pytest.mark.parametrize('case', WHOLE)
def test_of_a_whole_model_only_the_backbone_is_kept(case: weights.Case, tmp_path: Path):
    """Published files are float16; what comes back is layers 0 to 10 in float32."""
    arrays = cast(reference_of(case)[0], np.float16)
    kept = {key: array for key, array in arrays.items() if IN_BACKBONE.fullmatch(key)}
    variables, report = backbones.load_weights(case.backbone, write(tmp_path, arrays))
    assert not report.problems()
    counters = {key for key in kept if key.endswith('num_batches_tracked')}
    assert set(report.dropped) == (arrays.keys() - kept.keys()) | counters
    back = tmp_path / 'back.safetensors'
    backbones.save_weights(back, variables, 'ultralytics', case.backbone)
    assert same_arrays(load_file(back), cast(kept, np.float32))


@pytest.mark.parametrize('strict', [True, False])
@pytest.mark.parametrize('case', WHOLE)
def test_a_whole_model_of_the_other_is_refused(case: weights.Case, strict: bool, tmp_path: Path):
    path = write(tmp_path, reference_of(case)[0])
    other = {'yolo11n': 'yolo26n', 'yolo26n': 'yolo11n'}[case.backbone]
    key = r'model\.23\.dfl\.conv\.weight' if case.backbone == 'yolo11n' else r'model\.(22|17)\.\S+'
    message = f'^{re.escape(str(path))} does not fit {other}: {key} belongs to the .* into {case.backbone} … '
    with pytest.raises(UserError, match=message):
        backbones.load_weights(other, path, strict=strict)


def test_a_classification_model_is_refused(tmp_path: Path):
    (case,) = (case for case in weights.WHOLE if case.layout == 'classify')
    path = write(tmp_path, reference_of(case)[0])
    for name in ('yolo11n', 'yolo26n'):
        with pytest.raises(UserError, match=r'model\.10\.linear\.weight belongs to a classification model'):
            backbones.load_weights(name, path)


def test_a_foreign_line_only_refuses():
    keymap = KeyMap([Rule('{n}.weight', 'params/layer{n}/kernel'), Foreign(r'neck\..*', 'is of another')])
    assert keymap.known(['0.weight', 'neck.weight']) == 1
    arrays = {'0.weight': np.ones(2, np.float32)}
    assert list(translate(arrays, keymap).arrays) == ['params/layer0/kernel']
    with pytest.raises(ForeignFileError, match=r'^neck\.weight is of another$'):
        translate(arrays | {'neck.weight': np.ones(2, np.float32)}, keymap)
    exported, homeless = export({'params/layer0/kernel': arrays['0.weight']}, keymap)
    assert same_arrays(exported, arrays)
    assert not homeless


def test_channels_that_do_not_divide_among_the_heads():
    model = backbones.create('yolo11n', head_channels=40)
    message = r'128 channels do not divide into 3 heads \(head_channels=40\); the nearest head_channels that does is 32'
    with pytest.raises(UserError, match=message):
        jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 64, 64, 3), np.float32))
