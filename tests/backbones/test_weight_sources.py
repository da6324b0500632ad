"""Directories as a hub lays them out, shards, the hub's cache, checkpoints of a training; and what they may lack."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import hub_files
import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import load_file, save_file

import backbones
from backbones import UserError, freezing, lora
from backbones.layers.convolution import Conv
from backbones.preprocessing import Preprocessing
from backbones.pretrained.sources import read
from tests.backbones.test_parity import same_arrays
from tests.parity import weights

COMMIT = '0123456789abcdef0123456789abcdef01234567'


@pytest.fixture(scope='module')
def arrays() -> dict[str, np.ndarray]:
    return hub_files.resnet18()


@pytest.fixture
def hub(tmp_path: Path, arrays) -> Path:
    return hub_files.write_directory(tmp_path / 'hub', arrays)


def shard(directory: Path, arrays: dict[str, np.ndarray], parts: int = 3) -> None:
    """The same weights in several files with an index."""
    (directory / 'model.safetensors').unlink()
    names = [f'model-{part + 1:05}-of-{parts:05}.safetensors' for part in range(parts)]
    keys = sorted(arrays)
    for part, name in enumerate(names):
        save_file({key: arrays[key] for key in keys[part::parts]}, directory / name)
    places = {key: names[index % parts] for index, key in enumerate(keys)}
    (directory / 'model.safetensors.index.json').write_text(json.dumps({'weight_map': places}))


def loaded(source: Path | str) -> tuple[dict[str, np.ndarray], backbones.Report]:
    variables, report = backbones.load_weights('resnet18', source, classifier=True)
    return flatten_dict(variables, sep='/'), report


def test_directory_of_a_hub(hub, arrays):
    variables, report = loaded(hub)
    np.testing.assert_array_equal(variables['params/head/bias'], arrays['fc.bias'])
    assert not report.problems()
    expected = Preprocessing((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 160, 0.95, 'bicubic')
    assert report.preprocessing == expected
    assert backbones.preprocess(str(hub)) == expected


def test_shards_are_one_file(hub, arrays):
    whole, _ = loaded(hub)
    shard(hub, arrays)
    assert same_arrays(loaded(hub)[0], whole)
    assert same_arrays(loaded(hub / 'model.safetensors.index.json')[0], whole)


def test_an_array_in_two_shards_is_refused(hub, arrays):
    shard(hub, arrays)
    part = hub / 'model-00002-of-00003.safetensors'
    save_file({**load_file(part), sorted(arrays)[0]: arrays[sorted(arrays)[0]]}, part)
    with pytest.raises(UserError, match=rf'{sorted(arrays)[0]} is in {part.name} and in another shard'):
        loaded(hub)


def test_missing_shard_is_named(hub, arrays):
    shard(hub, arrays)
    (hub / 'model-00002-of-00003.safetensors').unlink()
    with pytest.raises(UserError, match=r'lacks model-00002-of-00003\.safetensors of the 3 shards'):
        loaded(hub)


def test_shard_without_a_key_of_the_index(hub, arrays):
    shard(hub, arrays)
    index = json.loads((hub / 'model.safetensors.index.json').read_text())
    index['weight_map']['layer9.bias'] = 'model-00001-of-00003.safetensors'
    (hub / 'model.safetensors.index.json').write_text(json.dumps(index))
    with pytest.raises(UserError, match=r'do not hold layer9\.bias'):
        loaded(hub)


@pytest.mark.parametrize('content', ['[]', '{', '{"weight_map": ["a"]}', '{"weight_map": {"a": 1}}'])
def test_damaged_index(hub, arrays, content: str):
    shard(hub, arrays)
    (hub / 'model.safetensors.index.json').write_text(content)
    with pytest.raises(UserError, match=r'index\.json'):
        loaded(hub)


def test_index_that_points_out_of_its_directory(hub, arrays):
    shard(hub, arrays)
    outside = {'weight_map': {'fc.bias': '../secret.safetensors'}}
    (hub / 'model.safetensors.index.json').write_text(json.dumps(outside))
    with pytest.raises(UserError, match='points out of its directory'):
        loaded(hub)


def test_any_single_file_in_a_directory(hub, arrays):
    (hub / 'model.safetensors').rename(hub / 'whatever.safetensors')
    assert not loaded(hub)[1].problems()
    shutil.copy(hub / 'whatever.safetensors', hub / 'another.safetensors')
    with pytest.raises(UserError, match=r'it holds another\.safetensors, config\.json, whatever\.safetensors'):
        loaded(hub)


# --- The hub's cache. -------------------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, hub: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache as huggingface_hub lays it out, with the network switched off."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', True)
    repository = tmp_path / 'cache' / 'models--timm--resnet18.a1_in1k'
    (repository / 'refs').mkdir(parents=True)
    (repository / 'refs' / 'main').write_text(COMMIT)
    shutil.copytree(hub, repository / 'snapshots' / COMMIT)
    return repository


@pytest.mark.parametrize('source', ['hf:timm/resnet18.a1_in1k', f'hf:timm/resnet18.a1_in1k@{COMMIT}'])
def test_repository_in_the_cache(cache, hub, source: str):
    assert same_arrays(loaded(source)[0], loaded(hub)[0])
    assert backbones.preprocess(source) == backbones.preprocess(str(hub))


def test_repository_that_is_not_in_the_cache(cache):
    with pytest.raises(UserError, match=r'hf:timm/resnet34\.a1_in1k is not in the cache'):
        loaded('hf:timm/resnet34.a1_in1k')
    with pytest.raises(UserError, match=r'is not in the cache'):
        loaded('hf:timm/resnet18.a1_in1k@another')


@pytest.mark.parametrize('name', ['', 'a/b/c', 'a b/c', '../x'])
def test_names_that_are_no_repository(cache, name: str):
    with pytest.raises(UserError, match='names no repository'):
        loaded(f'hf:{name}')


def test_repository_without_weights(cache):
    (cache / 'snapshots' / COMMIT / 'model.safetensors').unlink()
    with pytest.raises(UserError, match='holds no weights'):
        loaded('hf:timm/resnet18.a1_in1k')


# --- Half a cache. ----------------------------------------------------------------------------------------------------


def test_a_link_of_the_cache_that_leads_nowhere(cache):
    """As after a download that was cut off, or where a cache was copied without what its links lead to."""
    file = cache / 'snapshots' / COMMIT / 'model.safetensors'
    file.unlink()
    file.symlink_to('../../blobs/0123')
    message = f"{file} is a link to '../../blobs/0123', which is not there: the download of it was cut off"
    for source in ('hf:timm/resnet18.a1_in1k', file.parent, file):
        with pytest.raises(UserError, match=re.escape(message)):
            loaded(source)


@pytest.mark.parametrize('name', ['whatever.safetensors', 'config.json', 'model-00002-of-00003.safetensors'])
def test_other_links_that_lead_nowhere(hub, arrays, name: str):
    if name.startswith('model-'):
        shard(hub, arrays)
    elif name != 'config.json':
        (hub / 'model.safetensors').rename(hub / name)
    (hub / name).unlink()
    (hub / name).symlink_to('gone')
    with pytest.raises(UserError, match=re.escape(f"{hub / name} is a link to 'gone', which is not there")):
        loaded(hub)


def test_a_link_behind_the_file_that_is_read_does_not_matter(hub):
    (hub / 'pytorch_model.bin').symlink_to('gone')
    assert not loaded(hub)[1].problems()


def test_a_download_that_was_cut_off_before_its_link_was_made(cache):
    (cache / 'snapshots' / COMMIT / 'model.safetensors').unlink()
    (cache / 'blobs').mkdir()
    begun = cache / 'blobs' / '0123.incomplete'
    begun.touch()
    message = (
        f'the cache holds only a part of hf:timm/resnet18.a1_in1k (a download was cut off: {begun}); fetch it again'
    )
    with pytest.raises(UserError, match=re.escape(message)):
        loaded('hf:timm/resnet18.a1_in1k')


def test_a_cache_that_is_known_to_lack_a_file(cache):
    (cache / 'snapshots' / COMMIT / 'model.safetensors').unlink()
    (cache / 'trees').mkdir()
    entry = {'size': 1, 'blob_id': '0', 'lfs_sha256': None, 'lfs_size': None, 'xet_hash': None}
    from huggingface_hub._snapshot_download import TreeCacheEntry, write_tree_cache

    write_tree_cache(str(cache), COMMIT, {'model.safetensors': TreeCacheEntry(**entry)})
    with pytest.raises(
        UserError, match=r'the cache holds only a part of hf:timm/resnet18\.a1_in1k \(a download was cut'
    ):
        loaded('hf:timm/resnet18.a1_in1k')


# --- Preprocessing that a configuration states. -----------------------------------------------------------------------


def stated(directory: Path, preprocessor: dict) -> Preprocessing:
    (directory / 'preprocessor_config.json').write_text(json.dumps(preprocessor))
    return backbones.preprocess(str(directory))


NORMALISATION = {'image_mean': [0.5, 0.5, 0.5], 'image_std': [0.25, 0.25, 0.25]}


@pytest.mark.parametrize(
    ('config', 'expected'),
    [
        (
            {'size': {'height': 224, 'width': 224}, 'resample': 3},
            {'size': 224, 'fit': 'squash', 'interpolation': 'bicubic'},
        ),
        ({'size': 224, 'image_processor_type': 'ViTImageProcessor'}, {'size': 224, 'fit': 'squash'}),
        (
            {'size': {'shortest_edge': 256}, 'do_center_crop': True, 'crop_size': {'height': 224, 'width': 224}},
            {'size': 224, 'crop': 224 / 256},
        ),
        ({'size': 256, 'do_center_crop': True, 'crop_size': 240}, {'size': 240, 'crop': 240 / 256}),
        ({'size': {'height': 224, 'width': 112}}, {'size': (224, 112), 'fit': 'squash'}),
        (
            {'size': {'height': 256, 'width': 128}, 'do_center_crop': True, 'crop_size': {'height': 224, 'width': 112}},
            {'size': (224, 112), 'crop': 0.875, 'fit': 'squash'},
        ),
        ({'size': {'shortest_edge': 224}, 'crop_pct': 0.875, 'resample': 3}, {'size': 224, 'interpolation': 'bicubic'}),
        ({'size': {'shortest_edge': 384}, 'crop_pct': 0.875, 'resample': 1}, {'size': 384, 'interpolation': 'lanczos'}),
    ],
)
def test_preprocessing_of_transformers(hub, config: dict, expected: dict):
    if 'crop_pct' in config:
        expected |= {'crop': 0.875} if expected['size'] < 384 else {'fit': 'squash'}
    expected = Preprocessing((0.5,) * 3, (0.25,) * 3, **expected)
    assert stated(hub, NORMALISATION | config) == expected


def test_preprocessing_without_normalisation(hub):
    assert stated(hub, {'size': 64, 'do_normalize': False}) == Preprocessing((0.0,) * 3, (1.0,) * 3, 64)


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        (
            {'size': {'shortest_edge': 256}, 'do_center_crop': True, 'crop_size': {'height': 224, 'width': 192}},
            'not square',
        ),
        ({'size': 224, 'rescale_factor': 1 / 127.5}, 'rescale_factor is 0.0078'),
        ({'size': 224, 'rescale_offset': True}, 'rescale_offset'),
        ({'size': 224, 'resample': 5}, "unknown resample '5'"),
        ({}, "incomplete or damaged: KeyError.'size'"),
    ],
)
def test_preprocessing_that_can_not_be_followed(hub, config: dict, message: str):
    with pytest.raises(UserError, match=message):
        stated(hub, NORMALISATION | config)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'crop_mode': 'border'}, "unknown crop_mode 'border'"),
        ({'interpolation': 'bicubi'}, "unknown interpolation 'bicubi'; did you mean 'bicubic'"),
        ({'mean': None}, 'incomplete or damaged'),
    ],
)
def test_preprocessing_of_timm_that_can_not_be_followed(hub, change: dict, message: str):
    configuration = json.loads((hub / 'config.json').read_text())
    configuration['pretrained_cfg'] |= change
    (hub / 'config.json').write_text(json.dumps(configuration))
    with pytest.raises(UserError, match=message):
        backbones.preprocess(str(hub))


def test_preprocessing_of_timm_that_is_not_square(hub):
    configuration = json.loads((hub / 'config.json').read_text())
    configuration['pretrained_cfg'] |= {'input_size': [3, 160, 192], 'crop_pct': 1.0}
    (hub / 'config.json').write_text(json.dumps(configuration))
    preprocessing = backbones.preprocess(str(hub))
    assert preprocessing.size == (160, 192)
    assert preprocessing(np.zeros((1, 50, 40, 3), np.uint8)).shape == (1, 160, 192, 3)


def test_directory_that_states_nothing(hub):
    (hub / 'config.json').unlink()
    with pytest.raises(UserError, match='does not say what its weights expect'):
        backbones.preprocess(str(hub))
    assert loaded(hub)[1].preprocessing == backbones.preprocess('resnet18')


# --- Wrapped files, other numbers of channels, other backbones. -------------------------------------------------------


@pytest.mark.parametrize('prefix', ['module.', '_orig_mod.', 'module._orig_mod.'])
def test_what_wrappers_of_torch_put_before_every_key(hub, arrays, prefix: str):
    plain, _ = loaded(hub)
    save_file({prefix + key: array for key, array in arrays.items()}, hub / 'model.safetensors')
    assert same_arrays(loaded(hub)[0], plain)


def test_one_input_channel_is_the_sum_over_three(hub, arrays):
    variables, report = backbones.load_weights('resnet18', hub, input_channels=1)
    kernel = variables['params']['stem_conv']['kernel']
    np.testing.assert_allclose(kernel[:, :, 0], arrays['conv1.weight'].sum(1).transpose(1, 2, 0), rtol=1e-5, atol=1e-6)
    assert report.reshaped == (('params/backbone/stem_conv/kernel', (7, 7, 3, 64), (7, 7, 1, 64)),)


@pytest.mark.parametrize('channels', [1, pytest.param(3, marks=pytest.mark.exhaustive), 5])
def test_preprocessing_has_as_many_channels_as_the_model(hub, channels: int):
    variables, report = backbones.load_weights('resnet18', hub, input_channels=channels)
    images = report.preprocessing.replace(size=40)(np.zeros((1, 50, 60, channels), np.uint8))
    assert images.shape == (1, 40, 40, channels)
    features = jax.eval_shape(backbones.create('resnet18').apply, variables, images)
    assert features.pooled.shape == (1, 512)
    mean = {1: (0.2,), 3: (0.1, 0.2, 0.3), 5: (0.1, 0.2, 0.3, 0.1, 0.2)}[channels]
    assert report.preprocessing.mean == pytest.approx(mean)


def test_more_input_channels_repeat_the_three(hub, arrays):
    variables, _ = backbones.load_weights('resnet18', hub, input_channels=5)
    kernel = arrays['conv1.weight'].transpose(2, 3, 1, 0)
    expected = np.concatenate([kernel, kernel[:, :, :2]], axis=2) * (3 / 5)
    np.testing.assert_allclose(variables['params']['stem_conv']['kernel'], expected, rtol=1e-6)


@pytest.mark.parametrize('channels', [1, 6])
def test_equal_channels_give_what_rgb_gave(hub, channels: int):
    image = np.random.default_rng(0).standard_normal((1, 33, 33, 1), np.float32)
    outputs = []
    for count in (3, channels):
        variables, _ = backbones.load_weights('resnet18', hub, input_channels=count)
        stem = Conv(64, 7, 2).apply({'params': variables['params']['stem_conv']}, np.repeat(image, count, -1))
        outputs.append(np.asarray(stem))
    np.testing.assert_allclose(*outputs, atol=1e-5 * np.abs(outputs[0]).max())


@pytest.mark.parametrize(
    'name',
    [
        'resnet34',
        pytest.param('resnet50', marks=pytest.mark.exhaustive),
        'vit_tiny_patch16',
        pytest.param('efficientnet_lite0', marks=pytest.mark.exhaustive),
    ],
)
def test_the_backbone_that_fits_is_named(hub, name: str):
    with pytest.raises(UserError, match=r'; it fits resnet18$'):
        backbones.load_weights(name, hub)


# --- Checkpoints of a training. ---------------------------------------------------------------------------------------


def test_checkpoint_of_a_training(tmp_path: Path):
    import optax

    from experiments.training.checkpoints import Checkpoints
    from experiments.training.state import create_state

    images = np.zeros((1, 32, 32, 3), np.float32)
    variables = jax.jit(backbones.create_classifier('resnet_micro', 3).init)(jax.random.key(0), images)
    mask = jax.tree.map(lambda leaf: leaf.ndim == 1, variables['params'])
    state = create_state(variables, mask, optax.sgd(0.1), jax.random.key(1))
    # The last name is a pattern for the library that reads checkpoints.
    odd = tmp_path / 'a run [1]'
    for directory in (tmp_path, odd):
        with Checkpoints(directory / 'checkpoints') as checkpoints:
            checkpoints.save(0, state, {})
    for source in (tmp_path, tmp_path / 'checkpoints' / '0', tmp_path / 'checkpoints' / '0' / 'default', odd):
        restored, report = backbones.load_weights('resnet_micro', source, classifier=True)
        assert report.layout == 'native'
        expected = {path: np.asarray(leaf) for path, leaf in flatten_dict(dict(variables), sep='/').items()}
        assert same_arrays(flatten_dict(restored, sep='/'), expected)


def unfinished(directory: Path, variables: dict, mask: dict, **fields) -> None:
    """A work directory whose run was interrupted after some steps."""
    import optax

    from experiments.training.checkpoints import Checkpoints
    from experiments.training.state import create_state

    averaged = 'average' in fields
    state = create_state(variables, mask, optax.sgd(0.1), jax.random.key(1), averaged)
    with Checkpoints(directory / 'checkpoints') as checkpoints:
        checkpoints.save(7, dataclasses.replace(state, **fields), {})


SMALL = {'depth': 4, 'channels': 24}


def micro_variables() -> dict:
    images = np.zeros((1, 32, 32, 3), np.float32)
    model = backbones.create_classifier('vit_micro', 3, **SMALL)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    random = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: random.standard_normal(leaf.shape, np.float32), shapes)


def test_an_unfinished_run_with_an_average_gives_the_average(tmp_path: Path):
    """As its finished one would: the averaged parameters, and the frozen ones as they are."""
    variables = micro_variables()
    mask = jax.tree.map(lambda leaf: leaf.ndim > 1, variables['params'])
    trainable, frozen = freezing.split(variables['params'], mask)
    average = jax.tree.map(lambda leaf: leaf / 2, trainable)
    unfinished(tmp_path, variables, mask, average=average)
    for source in (tmp_path, tmp_path / 'checkpoints' / '7'):
        loaded, _ = backbones.load_weights('vit_micro', source, classifier=True, **SMALL)
        expected = flatten_dict(freezing.join(average, frozen), sep='/')
        assert same_arrays(flatten_dict(loaded['params'], sep='/'), expected)
    assert any((leaf != 0).any() for leaf in jax.tree.leaves(average))


@pytest.mark.parametrize(('config', 'scale'), [({'lora_alpha': 6.0}, 3.0), ({'lora_alpha': 0.0}, 1.0), ({}, 1.0)])
@pytest.mark.parametrize('averaged', [False, True])
def test_an_unfinished_run_with_adapters_has_them_merged(tmp_path: Path, config: dict, scale: float, averaged: bool):
    variables = micro_variables()
    targets = ('backbone/stage2/block1/mlp/dense1', 'backbone/stage3/block1/attention/qkv')
    params = lora.add(variables['params'], targets, 2, jax.random.key(2))
    params = jax.tree.map(lambda leaf: np.asarray(leaf) + np.float32(0.5), params)
    is_trainable = {path: path[-1] in lora.LEAVES for path in flatten_dict(params)}
    mask = unflatten_dict(is_trainable)
    trainable, frozen = freezing.split(params, mask)
    used = jax.tree.map(lambda leaf: 2 * leaf, trainable) if averaged else trainable
    unfinished(tmp_path, {'params': params}, mask, **({'average': used} if averaged else {}))
    with pytest.raises(UserError, match=re.escape(f'{tmp_path / "config.json"}; bring the checkpoint back')):
        backbones.load_weights('vit_micro', tmp_path, **SMALL)
    (tmp_path / 'config.json').write_text(json.dumps(config))
    loaded, _ = backbones.load_weights('vit_micro', tmp_path, classifier=True, **SMALL)
    expected = lora.merge(freezing.join(used, frozen), scale)
    assert same_arrays(
        flatten_dict(loaded['params'], sep='/'),
        {path: np.asarray(leaf) for path, leaf in flatten_dict(expected, sep='/').items()},
    )
    kernel = ('backbone', 'stage3', 'block1', 'attention', 'qkv', 'kernel')
    assert (flatten_dict(loaded['params'])[kernel] != flatten_dict(params)[kernel]).any()


def test_damaged_file_of_a_checkpoint_is_named(tmp_path: Path):
    from experiments.training.checkpoints import Checkpoints

    state = {'trainable': {'kernel': jax.numpy.ones(3)}, 'frozen': {}, 'batch_stats': {}}
    with Checkpoints(tmp_path / 'checkpoints') as checkpoints:
        checkpoints.save(3, state, {})
        checkpoints.save(20, state, {})
    for name in ('21.unfinished', '22.damaged'):
        shutil.copytree(tmp_path / 'checkpoints' / '3', tmp_path / 'checkpoints' / name)
    step = tmp_path / 'checkpoints' / '20'
    assert read(tmp_path).arrays.keys() == {'params/kernel'}
    file = next((step / 'default' / 'd').iterdir())
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    for source in (tmp_path, step, step / 'default'):
        expected = f'{file} is truncated: {len(content) - 1} of {len(content)} bytes'
        with pytest.raises(UserError, match=re.escape(expected)):
            read(source)
    assert read(tmp_path / 'checkpoints' / '3').arrays.keys() == {'params/kernel'}


def test_checkpoint_of_devices_that_are_not_here(tmp_path: Path):
    script = f"""
import jax
jax.config.update('jax_num_cpu_devices', 2)
from pathlib import Path
from experiments.training.checkpoints import Checkpoints
mesh = jax.make_mesh((2,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))
kernel = jax.device_put(jax.numpy.arange(4.0), jax.sharding.NamedSharding(mesh, jax.P('data')))
with Checkpoints(Path({str(tmp_path)!r}) / 'checkpoints') as checkpoints:
    checkpoints.save(1, {{'trainable': {{'kernel': kernel}}, 'frozen': {{}}, 'batch_stats': {{}}}}, {{}})
"""
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, '-c', script], cwd=root, check=True)
    np.testing.assert_array_equal(read(tmp_path).arrays['params/kernel'], np.arange(4.0))


def test_damaged_checkpoint(tmp_path: Path):
    directory = tmp_path / 'checkpoints' / '7' / 'default'
    directory.mkdir(parents=True)
    (directory / '_METADATA').write_text('{')
    with pytest.raises(UserError, match=re.escape(str(directory))):
        backbones.load_weights('resnet_micro', tmp_path)


def test_cases_have_names_of_their_own():
    names = [str(case) for case in (*weights.CASES, *weights.KEYS_ONLY)]
    assert len(set(names)) == len(names)
