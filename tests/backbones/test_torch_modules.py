"""Whole models that were pickled, as ultralytics saves them: assembled here instruction by instruction."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

import backbones
from backbones import UserError
from backbones.prediction import trained_model
from backbones.pretrained.torch_file import read_class_names, read_torch_file
from tests.backbones.test_torch_file import (
    CALLS,
    CONTAINERS,
    DATA,
    DATA_STORAGE,
    FALSE,
    NONE,
    ORDERED_DICTIONARY,
    call,
    dictionary,
    each_container,
    integer,
    list_of,
    look_up,
    storage,
    tensor,
    text,
    tuple_of,
    with_state,
    write_zip,
)
from tests.parity.yolo import cases

TRUE = b'\x88'
SETTINGS = with_state(call(look_up('ultralytics.utils', 'IterableSimpleNamespace')), dictionary({'box': integer(7)}))


def new(module: str, name: str) -> bytes:
    """An object without its attributes, as protocol 2 writes it."""
    return look_up(module, name) + b')\x81'


def names_of(*names: str) -> bytes:
    return call(look_up('__builtin__', 'set'), list_of(*map(text, names)))


def parameter(value: bytes) -> bytes:
    return call(look_up('torch._utils', '_rebuild_parameter'), value, TRUE, ORDERED_DICTIONARY)


def module(
    parameters: dict[str, bytes] | None = None,
    buffers: dict[str, bytes] | None = None,
    modules: dict[str, bytes] | None = None,
    kind: tuple[str, str] = ('torch.nn.modules.container', 'Sequential'),
    temporary: Sequence[str] = (),
    **attributes: bytes,
) -> bytes:
    """A module with its attributes, as torch writes it."""
    state = {
        'training': FALSE,
        '_parameters': dictionary(parameters or {}, ORDERED_DICTIONARY),
        '_buffers': dictionary(buffers or {}),
        '_non_persistent_buffers_set': names_of(*temporary),
        '_forward_hooks': ORDERED_DICTIONARY,
        '_modules': dictionary(modules or {}),
        **attributes,
    }
    return with_state(new(*kind), dictionary(state))


def model_of(keys: dict[str, bytes]) -> bytes:
    """The tree of modules whose state dictionary has these keys."""
    parameters, buffers, inner = {}, {}, {}
    for key, value in keys.items():
        first, dot, rest = key.partition('.')
        if dot:
            inner.setdefault(first, {})[rest] = value
        elif first.startswith(('running', 'num')):
            buffers[first] = value
        else:
            parameters[first] = parameter(value)
    kind = ('ultralytics.nn.modules.conv', 'Conv') if 'conv' in inner else ('torch.nn.modules.container', 'Sequential')
    return module(parameters, buffers, {name: model_of(each) for name, each in inner.items()}, kind, act=NONE)


def checkpoint(model: bytes = NONE, ema: bytes = NONE, **others: bytes) -> bytes:
    """What a trainer of ultralytics saves."""
    beside = {
        'epoch': integer(3),
        'train_args': dictionary({'lr': integer(1), 'model': text('yolo26n.yaml')}),
        'optimizer': dictionary({'state': dictionary({'exp_avg': tensor(DATA_STORAGE, [6])})}),
        'version': text('8.4.190'),
    }
    return dictionary({'model': model, 'ema': ema, **beside, **others})


WEIGHT = tensor(DATA_STORAGE, [6])
# A model of one module, as everything below is made of.
LINEAR = module({'weight': parameter(WEIGHT), 'bias': NONE}, kind=('torch.nn.modules.linear', 'Linear'))
DETECTOR = ('ultralytics.nn.tasks', 'DetectionModel')


def written(path: Path, content: bytes, container: str = 'zip') -> Path:
    return CONTAINERS[container](path, content, {'0': DATA})


def test_a_model_is_read_by_the_names_of_its_attributes(tmp_path: Path):
    inner = module(
        {'weight': parameter(WEIGHT), 'bias': NONE},
        {'running_mean': tensor(DATA_STORAGE, [2]), 'index': tensor(DATA_STORAGE, [3]), 'nothing': NONE},
        temporary=['index'],
    )
    model = module(
        modules={'model': module(modules={'0': inner, '1': NONE, '2': LINEAR})}, kind=DETECTOR, args=SETTINGS,
        criterion=with_state(new('ultralytics.utils.loss', 'v8DetectionLoss'), dictionary({'proj': WEIGHT})),
        stride=tensor(DATA_STORAGE, [3]),
    )  # fmt: skip
    read = read_torch_file(written(tmp_path / 'model.pt', checkpoint(model)))
    # What is not registered as a parameter or buffer is no part of a state dictionary.
    assert list(read) == ['model.model.0.weight', 'model.model.0.running_mean', 'model.model.2.weight']
    np.testing.assert_array_equal(read['model.model.0.weight'], DATA)
    # A model without anything around it.
    assert list(read_torch_file(written(tmp_path / 'model.pt', LINEAR))) == ['weight']


def test_the_moving_average_takes_the_place_of_the_model(tmp_path: Path):
    other = module({'other': parameter(WEIGHT)})
    for model, ema, expected in ((other, LINEAR, 'ema.weight'), (LINEAR, NONE, 'model.weight')):
        read = read_torch_file(written(tmp_path / 'last.pt', checkpoint(model, ema)))
        assert list(read) == [expected]
    # A state dictionary is what was meant, where there is one.
    content = dictionary({'ema': LINEAR, 'state_dict': dictionary({'kernel': WEIGHT})})
    assert list(read_torch_file(written(tmp_path / 'last.pt', content))) == ['state_dict.kernel']


@each_container
def test_what_may_stand_beside_a_model(tmp_path: Path, container: str):
    legacy = storage('0', DATA, legacy=container == 'legacy')
    model = module({'weight': parameter(tensor(legacy, [6]))})
    beside = {
        'device': call(look_up('torch', 'device'), text('cpu')),
        'path': call(look_up('pathlib', 'PosixPath'), text('runs')),
        'size': call(look_up('torch', 'Size'), tuple_of(integer(1))),
        'settings': SETTINGS,
    }
    path = written(tmp_path / 'last.pt', dictionary({'ema': model, **beside}), container)
    assert list(read_torch_file(path)) == ['ema.weight']


def test_a_whole_detector_is_loaded(tmp_path: Path):
    """What is read is what its state dictionary gives."""
    case = next(case for case in cases.CASES if case.kind == 'yolo26n')
    with np.load(case.path) as stored:
        arrays = cases.state_dict(case, json.loads(str(stored['shapes'])))
    arrays = {key: each if each.dtype == np.int64 else each.astype(np.float16) for key, each in arrays.items()}
    keys = {key: tensor(storage(key, each), each.shape) for key, each in arrays.items()}
    path = write_zip(tmp_path / 'last.pt', checkpoint(ema=model_of(keys)), {'0': DATA, **arrays})
    read = read_torch_file(path)
    assert set(read) == {f'ema.{key}' for key in arrays}
    assert all(np.array_equal(read[f'ema.{key}'], each) for key, each in arrays.items())
    variables, report = backbones.load_weights('yolo26n', path, model=backbones.create_published('yolo26n'))
    assert not report.problems()
    bias = variables['params']['head']['one_to_one3']['classes']['bias']
    np.testing.assert_array_equal(bias, arrays['model.23.one2one_cv3.0.2.bias'])


def test_a_whole_detector_says_what_its_classes_are_called(tmp_path: Path):
    """As a training of one's own saves it, with other classes than the published one."""
    names = ('cat', 'dog', 'newt')
    model = backbones.create_published('yolo11n', num_classes=3)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32))
    variables = jax.tree.map(lambda each: np.zeros(each.shape, each.dtype), shapes)
    backbones.save_weights(tmp_path / 'own.safetensors', variables, 'ultralytics', 'yolo11n', model=model)
    arrays = load_file(tmp_path / 'own.safetensors')
    keys = {key: tensor(storage(key, each), each.shape) for key, each in arrays.items()}
    numbered = b'(' + b''.join(integer(index) + text(name) for index, name in enumerate(names)) + b'd'
    tree = model_of(keys)
    for ema in (module(modules={'model': tree}, kind=DETECTOR, names=numbered), tree):
        path = write_zip(tmp_path / 'yolo11n_best.pt', checkpoint(ema=ema), {'0': DATA, **arrays})
        assert read_class_names(path) == (names if ema is not tree else None)
        if ema is tree:
            with pytest.raises(UserError, match=r'its head has 3 classes: .* name them: classes='):
                trained_model.read(path)
        for found in (trained_model.read(path, classes=names), *([] if ema is tree else [trained_model.read(path)])):
            assert found.names == names and found.model.num_classes == 3


# --- Files that ask for more. -----------------------------------------------------------------------------------------

# Names that look like a part of torch or ultralytics, and are none of their classes.
NESTED = [
    ('torch.nn', '__builtins__'),
    ('torch.nn', 'modules.module.__builtins__.eval'),
    ('torch.nn.__builtins__', 'eval'),
    ('ultralytics.utils', '__loader__'),
    ('ultralytics', 'utils.os.system'),
    ('torch.nn.modules.module', 'torch._utils.os.system'),
    ('torchvision.ops', 'nms'),
    ('torch.nn_', 'Module'),
    ('torch', 'load'),
    ('torch.hub', 'load'),
    ('torch.serialization', 'load'),
    ('builtins', 'getattr'),
    ('operator', 'attrgetter'),
    ('operator', 'methodcaller'),
    ('functools', 'partial'),
    ('types', 'FunctionType'),
    ('importlib', 'import_module'),
    ('pickle', 'loads'),
    ('copyreg', '_reconstructor'),
    ('backbones.pretrained.torch_modules', 'ModuleRecord'),
    ('models.yolo', 'Model'),
]


def places(value: bytes) -> dict[str, bytes]:
    """A checkpoint for every place where something may be hidden in it."""
    return {
        'beside': checkpoint(LINEAR, hidden=value),
        'ema': checkpoint(LINEAR, value) if value != NONE else checkpoint(LINEAR),
        'attribute': checkpoint(module({'weight': parameter(WEIGHT)}, hidden=value)),
        'parameter': checkpoint(module({'weight': parameter(WEIGHT), 'bias': value})),
        'buffer': checkpoint(module({'weight': parameter(WEIGHT)}, {'mean': value})),
        'module': checkpoint(module({'weight': parameter(WEIGHT)}, modules={'0': value})),
        'settings': checkpoint(LINEAR, train_args=dictionary({'lr': value})),
    }


@pytest.mark.parametrize(
    ('module_name', 'name', 'argument'), CALLS, ids=lambda value: value if isinstance(value, str) else ''
)
def test_code_in_a_model_is_refused_by_name_and_not_run(tmp_path: Path, module_name: str, name: str, argument):
    marker = tmp_path / 'executed'
    for content in places(call(look_up(module_name, name), argument(marker))).values():
        with pytest.raises(UserError, match=re.escape(f'asks for {module_name}.{name}, ')):
            read_torch_file(written(tmp_path / 'malicious.pt', content))
        assert not marker.exists()


@pytest.mark.parametrize(('module_name', 'name'), NESTED)
def test_names_that_are_no_classes_of_modules_are_refused(tmp_path: Path, module_name: str, name: str):
    for value in (look_up(module_name, name), call(look_up(module_name, name), text('os'), text('system'))):
        for content in places(value).values():
            with pytest.raises(UserError, match=re.escape(f'asks for {module_name}.{name}, ')) as refused:
                read_torch_file(written(tmp_path / 'malicious.pt', content))
    assert 'torch.save(model.state_dict(), …)' in str(refused.value)


def test_modules_are_not_called(tmp_path: Path):
    """Neither their classes with arguments, nor themselves."""
    kinds = (('torch.nn.modules.linear', 'Linear'), DETECTOR)
    for kind in kinds:
        for value in (
            call(look_up(*kind), text('touch executed')),
            look_up(*kind) + tuple_of(text('touch executed')) + b'\x81',
            new(*kind) + tuple_of(text('touch executed')) + b'R',
            call(call(look_up(*kind)), text('touch executed')),
        ):
            for content in places(value).values():
                with pytest.raises(UserError, match=re.escape('.'.join(kind))):
                    read_torch_file(written(tmp_path / 'calling.pt', content))


def test_a_chain_of_reductions_is_refused_by_its_first_name(tmp_path: Path):
    marker = tmp_path / 'executed'
    look = call(look_up('builtins', 'getattr'), look_up('torch.nn.modules.module', 'Module'), text('__init__'))
    chain = call(call(look, text('__globals__')), text(f'touch {marker}'))
    for content in places(chain).values():
        with pytest.raises(UserError, match=r'asks for builtins\.getattr'):
            read_torch_file(written(tmp_path / 'chain.pt', content))
    assert not marker.exists()


@pytest.mark.parametrize(
    'target',
    [
        look_up('torch.nn.modules.linear', 'Linear'),
        look_up('collections', 'OrderedDict'),
        look_up('torch._utils', '_rebuild_parameter'),
        look_up('__builtin__', 'set'),
        names_of('a'),
        WEIGHT,
        DATA_STORAGE,
    ],
    ids=['record', 'dictionary', 'function', 'set', 'names', 'tensor', 'storage'],
)
def test_attributes_are_set_on_records_of_modules_only(tmp_path: Path, target: bytes):
    """With a state as modules have it, and with one that would be written into the attributes of a real class."""
    for state in (
        dictionary({'_parameters': dictionary({'weight': WEIGHT}), 'name': text('x')}),
        tuple_of(NONE, dictionary({'called': list_of(), 'held': NONE, '__call__': NONE})),
    ):
        path = written(tmp_path / 'changing.pt', checkpoint(LINEAR, hidden=with_state(target, state)))
        with pytest.raises(UserError):
            read_torch_file(path)
        assert list(read_torch_file(written(tmp_path / 'intact.pt', checkpoint(LINEAR)))) == ['model.weight']


def test_what_a_record_is_given_changes_nothing_else(tmp_path: Path):
    states = [
        tuple_of(NONE, dictionary({'__class__': NONE, 'name': text('x')})),
        dictionary({'_modules': integer(1)}),
        dictionary({'_parameters': list_of(WEIGHT)}),
        dictionary({'_buffers': b'}(' + integer(1) + WEIGHT + b'u'}),
        text('state'),
    ]
    for state in states:
        record = with_state(new('torch.nn.modules.linear', 'Linear'), state)
        with pytest.raises(UserError):
            read_torch_file(written(tmp_path / 'odd.pt', checkpoint(record)))
    # An item or an attribute of that name is kept from whoever reads it.
    filled = LINEAR + b'(' + text('weight') + NONE + b'u'
    assert list(read_torch_file(written(tmp_path / 'filled.pt', checkpoint(filled)))) == ['model.weight']


@pytest.mark.parametrize(
    ('entry', 'message'),
    [
        (tensor(storage('0', DATA, count=7), [6]), 'storage 0 holds 24 bytes, not 28'),
        (tensor(storage('0', DATA, count=2**40), [6]), f'storage 0 holds 24 bytes, not {2**42}'),
        (tensor(storage('0', DATA.astype(np.float64)), [6]), 'storage 0 holds 24 bytes, not 48'),
        (tensor(DATA_STORAGE, [7]), 'reaches outside its storage'),
        (tensor(DATA_STORAGE, [10**6, 10**6], strides=[0, 0]), 'reaches outside its storage'),
        (text('weight'), 'model.weight is no tensor but a str'),
        (LINEAR, 'asks for torch.nn.modules.linear.Linear'),
    ],
    ids=['longer', 'huge', 'type', 'view', 'expanded', 'text', 'module'],
)
def test_a_tensor_of_a_module_that_lies(tmp_path: Path, entry: bytes, message: str):
    with pytest.raises(UserError, match=re.escape(message)):
        read_torch_file(written(tmp_path / 'lying.pt', checkpoint(module({'weight': entry}))))


def test_modules_that_hold_themselves(tmp_path: Path):
    itself = (
        new('torch.nn.modules.container', 'Sequential')
        + b'q\x01'
        + dictionary({'_modules': dictionary({'0': b'h\x01'})})
        + b'b'
    )
    # Sixty modules, each of which holds the next twice: 2**60 of them.
    doubled = LINEAR
    for _ in range(60):
        doubled = b'0'.join([doubled + b'q\x02', module(modules={'0': b'h\x02', '1': b'h\x02'})])
    for content in (itself, doubled):
        with pytest.raises(UserError, match='its modules nest without end'):
            read_torch_file(written(tmp_path / 'nested.pt', checkpoint(content)))
