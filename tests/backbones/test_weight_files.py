"""Files that are not what their names say, hold more than one network, or put names in front of its keys."""

import json
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import save, save_file

import backbones
from backbones import UserError
from backbones.pretrained.kinds import kind_of
from backbones.pretrained.save import to_layout
from backbones.pretrained.selection import select
from backbones.pretrained.sources import read, resolve
from tests.backbones.test_parity import same_arrays, stored_of
from tests.backbones.test_torch_file import dictionary, integer, list_of, storage, tensor, write_legacy, write_zip
from tests.parity import weights

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope='module')
def arrays() -> Arrays:
    """A file of resnet_micro in torchvision's layout."""
    images = np.zeros((1, 32, 32, 3), np.float32)
    shapes = jax.eval_shape(backbones.create_classifier('resnet_micro', 3).init, jax.random.key(0), images)
    random = np.random.default_rng(0)
    variables = {
        path: np.abs(random.standard_normal(leaf.shape, np.float32))
        for path, leaf in flatten_dict(shapes, sep='/').items()
    }
    exported = to_layout(variables, 'torchvision', 'resnet_micro')
    return {key: np.asarray(array, order='C') for key, array in exported.items()}


def nested(tree: dict, storages: Arrays) -> bytes:
    """Nested dictionaries of arrays and assembled values as a pickle; the arrays' values go to ``storages``."""
    entries = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            entries[key] = nested(value, storages)
        elif isinstance(value, np.ndarray):
            number = str(len(storages))
            storages[number] = value.ravel()
            entries[key] = tensor(storage(number, value), value.shape)
        else:
            entries[key] = value
    return dictionary(entries)


def checkpoint(path: Path, tree: dict) -> Path:
    """A file as ``torch.save`` writes it."""
    storages: Arrays = {}
    return write_zip(path, nested(tree, storages), storages)


def loaded(source: Path | str, **options) -> Arrays:
    variables, report = backbones.load_weights('resnet_micro', source, **options)
    assert not report.problems()
    return flatten_dict(variables, sep='/')


@pytest.fixture(scope='module')
def expected(arrays, tmp_path_factory) -> Arrays:
    save_file(arrays, file := tmp_path_factory.mktemp('plain') / 'weights.safetensors')
    return loaded(file)


def doubled(arrays: Arrays) -> Arrays:
    """Another network with the same keys."""
    return {key: np.asarray(2 * array) for key, array in arrays.items()}


# --- Not what the name says. ------------------------------------------------------------------------------------------

POINTER = f'version https://git-lfs.github.com/spec/v1\noid sha256:{"0123456789abcdef" * 4}\nsize 46827520\n'
PAGE = '<!DOCTYPE html>\n<html lang="en"><head><title>Sign in\n to continue</title></head><body>…</body></html>'
OTHERS = {
    'pointer': (POINTER, 'is a git-LFS pointer to a file of 46,827,520 bytes, not the file itself; run `git lfs pull`'),
    'page': (
        PAGE,
        "is a web page ('Sign in to continue'), not weights: the page of a login, of a proxy or of an error",
    ),
    'page in XML': (f'\ufeff<?xml version="1.0"?>{PAGE}', 'is a web page'),
    'long page': (PAGE.replace('…', 'é' * 9000), 'is a web page'),
    'error': ('{"error": "Rate limit reached"}', 'is a JSON document ({"error": "Rate limit reached"}), not weights'),
    'long error': (json.dumps({'error': 'x' * 9000}), 'is a JSON document ({"error": "xxx'),
    'text': ('Entry not found', 'is a text (Entry not found), not weights; download the file again'),
    'empty': ('', 'is empty: a download or a copy of it was cut off'),
    'hdf5': (b'\x89HDF\r\n\x1a\n' + bytes(99), 'is an HDF5 file, such as Keras writes, not a weight file that is read'),
    'gzip': (b'\x1f\x8b' + bytes(99), 'is compressed by gzip, not a weight file that is read here; decompress it'),
    'gguf': (b'GGUF' + bytes(99), 'is a GGUF file of quantised weights'),
    'array': (b'\x93NUMPY' + bytes(99), 'is a single array of numpy without a name'),
}


@pytest.mark.parametrize('name', ['weights.safetensors', 'weights.pth', 'pytorch_model.bin', 'weights.NPZ'])
@pytest.mark.parametrize('what', OTHERS)
def test_what_it_is_is_said(tmp_path: Path, what: str, name: str):
    content, told = OTHERS[what]
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    for source in (path, tmp_path):
        with pytest.raises(UserError) as caught:
            backbones.load_weights('resnet_micro', source)
        assert str(caught.value).startswith(f'{path} {told}')
        assert 'pickle' not in str(caught.value)
        assert 'weights_only' not in str(caught.value)


@pytest.mark.parametrize('start', range(4))
def test_a_long_text_may_end_within_a_character(tmp_path: Path, start: int):
    path = tmp_path / 'weights.bin'
    path.write_bytes(b'x' * start + 'é€😀'.encode() * 999)
    with pytest.raises(UserError, match=r'is a text \(x*é€😀é'):
        kind_of(path)


def test_bytes_that_no_text_has_are_no_text(tmp_path: Path):
    """Most of them are above 127, and what is left without them could be read."""
    path = tmp_path / 'weights.bin'
    path.write_bytes(b'\xfe\xffread me' * 999)
    assert kind_of(path) == 'torch'


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, flushed = tmp_path / 'weights.safetensors', []
    monkeypatch.setattr('backbones.pretrained.checksums.os.fsync', lambda _: flushed.append(path.exists()))
    backbones.save_weights(path, {'params': {'kernel': np.ones(3, np.float32)}})
    assert flushed == [False]
    assert path.exists()


def test_an_archive_of_something_else(tmp_path: Path, arrays):
    path = tmp_path / 'weights.pth'
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('inside/model.safetensors', save(arrays))
    with pytest.raises(UserError, match=r'is a zip archive that holds inside/model\.safetensors; unpack it'):
        loaded(path)


def test_an_array_of_objects_gives_no_advice_to_unpickle_it(tmp_path: Path):
    path = tmp_path / 'weights.npz'
    np.savez(path, weight=np.array([{}], object))
    with pytest.raises(UserError) as caught:
        loaded(path)
    assert 'allow_pickle' not in str(caught.value)


def test_a_file_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def denied(*_, **__):
        raise PermissionError(13, 'Permission denied')

    path = tmp_path / 'weights.safetensors'
    path.touch()
    monkeypatch.setattr(Path, 'open', denied)
    with pytest.raises(UserError, match=r'weights\.safetensors cannot be read: Permission denied'):
        loaded(path)


# --- Other suffixes. --------------------------------------------------------------------------------------------------


def write(path: Path, kind: str, arrays: Arrays) -> Path:
    if kind == 'safetensors':
        save_file(arrays, path)
    elif kind == 'npz':
        with path.open('wb') as stream:
            np.savez(stream, **arrays)
    elif kind == 'legacy':
        storages = {str(number): array.ravel() for number, array in enumerate(arrays.values())}
        entries = {
            key: tensor(storage(str(number), array, legacy=True), array.shape)
            for number, (key, array) in enumerate(arrays.items())
        }
        write_legacy(path, dictionary(entries), storages)
    else:
        checkpoint(path, arrays)
    return path


@pytest.mark.parametrize(
    ('name', 'kind'),
    [
        ('model_best.pth.tar', 'torch'),
        ('model_best.pth.tar', 'legacy'),
        ('last.ckpt', 'torch'),
        ('MODEL.PTH', 'torch'),
        ('Model.SafeTensors', 'safetensors'),
        ('MODEL.NPZ', 'npz'),
        ('model.safetensors', 'torch'),
        ('model.pth', 'safetensors'),
        ('model.bin', 'npz'),
    ],
)
def test_a_suffix_is_only_a_name(tmp_path: Path, arrays, expected, name: str, kind: str):
    path = write(tmp_path / name, kind, arrays)
    assert same_arrays(loaded(path), expected)
    assert same_arrays(loaded(tmp_path), expected)


@pytest.mark.parametrize('kind', ['torch', 'legacy', 'npz', 'safetensors'])
def test_an_unknown_suffix_is_read_by_its_content(tmp_path: Path, arrays, expected, kind: str):
    assert same_arrays(loaded(write(tmp_path / 'model.weights', kind, arrays)), expected)


def test_an_unknown_suffix_with_unknown_content_offers_the_nearest(tmp_path: Path):
    path = tmp_path / 'model.ckpd'
    path.write_bytes(bytes(100))
    with pytest.raises(UserError, match=r"unknown kind of weight file '\.ckpd'; did you mean '\.ckpt'"):
        loaded(path)


# --- Names in front of the keys. --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'prefix',
    [
        '_orig_mod.module.',
        'module._orig_mod.',
        'module.module._orig_mod.module.',
        'model.',
        'backbone.',
        'encoder.',
        'module.encoder_q.',
        'backbone._orig_mod.',
        'net.module.body.backbone.',
    ],
)
def test_whatever_is_in_front_of_every_key_is_taken_off(tmp_path: Path, arrays, expected, prefix: str):
    save_file({prefix + key: array for key, array in arrays.items()}, tmp_path / 'weights.safetensors')
    assert same_arrays(loaded(tmp_path), expected)
    variables, _ = backbones.load_weights('resnet_micro', tmp_path, classifier=True)
    np.testing.assert_array_equal(variables['params']['head']['bias'], arrays['fc.bias'])


@pytest.mark.parametrize('prefix', ['backbone.', 'module.encoder_q.', 'model.'])
def test_the_only_network_is_taken_and_the_rest_is_reported(tmp_path: Path, arrays, expected, prefix: str):
    beside = {
        'n_averaged': np.array(3, np.int64),
        'classifier.weight': np.ones((3, 8), np.float32),
        'module.queue': np.ones((8, 4), np.float32),
        'criterion.conv1.weight': arrays['conv1.weight'],
    }
    save_file({prefix + key: array for key, array in arrays.items()} | beside, tmp_path / 'weights.safetensors')
    assert same_arrays(loaded(tmp_path), expected)
    _, report = backbones.load_weights('resnet_micro', tmp_path)
    assert set(beside) <= set(report.dropped)
    assert f'{len(report.dropped)} dropped' in str(report)


def test_a_file_without_the_backbone_lists_what_it_holds(tmp_path: Path):
    keys = [*(f'generator.{n}.weight' for n in range(3)), *(f'critic.{n}.weight' for n in range(2))]
    save_file({key: np.ones(3, np.float32) for key in keys}, tmp_path / 'weights.safetensors')
    message = r"it holds 'critic' \(2 arrays\), 'generator' \(3 arrays\), one of which is read with #NAME"
    with pytest.raises(UserError, match=message):
        loaded(tmp_path)


# --- Checkpoints of a training. ---------------------------------------------------------------------------------------


def optimizer(arrays: Arrays) -> dict:
    """The state of an optimizer, with moments that have the keys and shapes of the weights."""
    return {'param_groups': list_of(integer(1)), 'momentum': arrays}


@pytest.mark.parametrize('name', ['net', 'ema', 'teacher', 'student', 'model_ema', 'state_dict_ema', 'weights'])
def test_the_only_dictionary_with_the_network_is_taken(tmp_path: Path, arrays, expected, name: str):
    tree = {'epoch': integer(90), 'optimizer': optimizer(arrays), name: arrays, 'best': b'G' + bytes(8)}
    path = checkpoint(tmp_path / 'checkpoint.pth', tree)
    assert same_arrays(loaded(path), expected)
    assert same_arrays(loaded(f'{path}#{name}'), expected)
    assert same_arrays(loaded(path, prefix=f'{name}.'), expected)


PAIRS = {
    'model and its average': ({'model': 'model', 'model_ema': 'model_ema'}, '', ''),
    'teacher and student': ({'student': 'student.module', 'teacher': 'teacher'}, 'module.', ''),
    'DINO': ({'student': 'student.module.backbone', 'teacher': 'teacher.backbone'}, 'module.backbone.', 'backbone.'),
    'timm': ({'state_dict': 'state_dict', 'state_dict_ema': 'state_dict_ema'}, '', ''),
}


@pytest.mark.parametrize('pair', PAIRS)
def test_of_several_networks_the_user_chooses(tmp_path: Path, arrays, expected, pair: str):
    names, *prefixes = PAIRS[pair]
    networks = (doubled(arrays), arrays)
    tree: dict = {
        name: {prefix + key: array for key, array in network.items()}
        for name, prefix, network in zip(names, prefixes, networks, strict=True)
    }
    tree['optimizer'] = optimizer(arrays)
    path = checkpoint(tmp_path / 'checkpoint.pth', tree)
    shown = ', '.join(f'{name!r} ({len(arrays)} arrays)' for name in names.values())
    first, second = names.values()
    with pytest.raises(UserError) as caught:
        loaded(path)
    assert str(caught.value) == (
        f'{path} holds several networks that could be resnet_micro: {shown}; say which one: {path}#{first}, '
        f'or prefix={first!r}'
    )
    for chosen in (second, *list(names)[1:]):
        assert same_arrays(loaded(f'{path}#{chosen}'), expected)
        assert same_arrays(loaded(path, prefix=chosen), expected)
    assert not same_arrays(loaded(f'{path}#{first}'), expected)
    with pytest.raises(UserError, match='names a part of the file already; leave out prefix='):
        loaded(f'{path}#{first}', prefix=first)


def test_query_and_key_encoders(tmp_path: Path, arrays, expected):
    tree = {f'module.encoder_q.{key}': array for key, array in arrays.items()}
    tree |= {f'module.encoder_k.{key}': array for key, array in doubled(arrays).items()}
    save_file(tree, file := tmp_path / 'weights.safetensors')
    with pytest.raises(UserError, match=r"'encoder_k' \(\d+ arrays\), 'encoder_q' \(\d+ arrays\); say which one"):
        loaded(file)
    for chosen in ('encoder_q', 'module.encoder_q', 'module.encoder_q.'):
        assert same_arrays(loaded(f'{file}#{chosen}'), expected)


def test_several_networks_inside_the_chosen_part(tmp_path: Path, arrays, expected):
    path = checkpoint(tmp_path / 'a.pth', {'state_dict': {'online': arrays, 'target': doubled(arrays)}, 'ema': arrays})
    with pytest.raises(UserError, match=rf"could be resnet_micro: .*: {path}#state_dict\.online, or prefix='state_d"):
        loaded(f'{path}#state_dict')
    assert same_arrays(loaded(f'{path}#state_dict.online'), expected)


def test_a_part_that_is_not_there_lists_those_that_are(tmp_path: Path, arrays):
    path = checkpoint(tmp_path / 'checkpoint.pth', {'teacher': arrays, 'student': arrays})
    count = len(arrays)
    with pytest.raises(UserError) as caught:
        loaded(f'{path}#techer')
    assert str(caught.value) == (
        f"unknown part of {path}#techer 'techer'; did you mean 'teacher'? "
        f"(it holds 'student' ({count} arrays), 'teacher' ({count} arrays))"
    )


def test_a_source_with_a_part_is_the_same_file(tmp_path: Path, arrays):
    path = checkpoint(tmp_path / 'checkpoint.pth', {'teacher': arrays})
    assert resolve(f'{path}#teacher') == path
    assert read(f'{path}#teacher').prefix == 'teacher'
    assert resolve('bundled:resnet_micro#x') == resolve('bundled:resnet_micro')
    assert backbones.preprocess(f'{path}#teacher', 'resnet_micro') == backbones.preprocess('resnet_micro')
    # A name with a # in it that exists is a name.
    odd = path.rename(tmp_path / 'run#3.pth')
    assert resolve(str(odd)) == odd
    assert read(f'{odd}#teacher').prefix == 'teacher'
    with pytest.raises(UserError, match='there are no weights at'):
        resolve(f'{tmp_path}/run#4.pth')


def test_every_layout_is_taken_as_it_is():
    """Whole models of the references, heads, necks and towers for text included: nothing is taken off their keys."""
    for case in (*weights.CASES, *weights.KEYS_ONLY):
        shapes, _ = stored_of(case)
        arrays = dict.fromkeys(shapes, np.zeros(()))
        module = backbones.create(case.backbone, **dict(case.options))
        kept, apart = select(module, arrays, '', case.backbone, str(case))
        assert kept.keys() == arrays.keys(), case
        assert not apart
