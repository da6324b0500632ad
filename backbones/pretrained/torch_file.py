"""Reading torch's .pth files without torch, tensors only.

A .pth file is a pickle, and unpickling runs whatever the file asks for. Here the only things a file gets are ordered
dictionaries, sets of names and the rebuilding of tensors from storages. Whatever else it asks for (the ``Namespace``
with the arguments of a training, numbers of numpy) is never looked up: in its place stands an object of ours that holds
nothing and does nothing, or, for a module of a model, only its tensors (``torch_modules``). A file that gives no
tensors without such things is refused, and what it asked for is named.

What a file gets are stand-ins from this module, which a pickle can pass on but not change: its BUILD instruction could
otherwise write into the attributes of functions and of numpy's shared types.

Both containers are read: the zip archive (torch ≥ 1.6) and the older sequence of pickles.

Source for the formats: torch/serialization.py and torch/_utils.py.
"""

import collections
import dataclasses
import io
import pickle
import pickletools
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

import ml_dtypes
import numpy as np

from backbones.errors import UserError, listed
from backbones.pretrained import torch_modules
from backbones.pretrained.torch_modules import Absent, ModuleRecord

_STORAGES = {
    'DoubleStorage': np.dtype('<f8'),
    'FloatStorage': np.dtype('<f4'),
    'HalfStorage': np.dtype('<f2'),
    'BFloat16Storage': np.dtype(ml_dtypes.bfloat16),
    'LongStorage': np.dtype('<i8'),
    'IntStorage': np.dtype('<i4'),
    'ShortStorage': np.dtype('<i2'),
    'CharStorage': np.dtype('i1'),
    'ByteStorage': np.dtype('u1'),
    'BoolStorage': np.dtype('?'),
}
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001

# A training's checkpoint nests dictionaries; deeper ones hold no weights, and a malicious file's may hold themselves.
_DEPTH = 4
# What a checkpoint holds beside the weights: moments of an optimizer, which have the shapes of weights.
_BESIDE = re.compile(
    r'(.*_)?(optim|optimi[sz]ers?|(lr_?)?sched(ulers?)?|(grad_?)?scalers?)(_states?|_state_dicts?)?', re.I
)


class _Sealed:
    """Anything that a pickle gets to hold; the instruction that sets attributes is refused."""

    def __setstate__(self, _state: object):
        raise pickle.UnpicklingError(f'it tries to change a {type(self).__name__}')


class _Dictionary(collections.OrderedDict):
    """An ordered dictionary without attributes: torch sets ``_metadata``, which is not needed here."""

    def __setstate__(self, _state: object):
        pass


class _StorageType(_Sealed):
    """The type of a storage's values."""

    def __init__(self, dtype: np.dtype):
        self.dtype = dtype


class _Function(_Sealed):
    """A function that a pickle may call."""

    def __init__(self, call: Callable[..., object]):
        self._call = call

    def __call__(self, *arguments: object) -> object:
        return self._call(*arguments)


class _Storage(_Sealed):
    """A storage that a tensor refers to; its bytes may be known only after the pickle is read."""

    def __init__(self, dtype: np.dtype, count: int):
        self.dtype = dtype
        self.count = count
        self.data: np.ndarray | None = None


class _Tensor(_Sealed):
    """A view of a storage, resolved once the storage's bytes are there."""

    def __init__(self, storage: _Storage, offset: int, shape: tuple, strides: tuple):
        self.storage, self.offset, self.shape, self.strides = storage, offset, tuple(shape), tuple(strides)

    def array(self) -> np.ndarray:
        """A contiguous copy.

        Raises:
            ValueError: the view reaches outside its storage.
        """
        data = self.storage.data
        if data is None:
            raise ValueError('a tensor refers to a storage that the file does not hold')
        numbers = (self.offset, *self.shape, *self.strides)
        if len(self.shape) != len(self.strides) or any(not isinstance(n, int) or n < 0 for n in numbers):
            raise ValueError('a tensor has an impossible shape')
        if 0 in self.shape:
            return np.zeros(self.shape, data.dtype)
        last = self.offset + sum((n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True))
        # An expanded view (stride 0) could describe a huge array with few bytes; weights have as many values as bytes.
        if last >= data.size or int(np.prod(self.shape, dtype=object)) > data.size:
            raise ValueError('a tensor reaches outside its storage')
        strides = tuple(stride * data.itemsize for stride in self.strides)
        return np.lib.stride_tricks.as_strided(data[self.offset :], self.shape, strides, writeable=False).copy()


def _rebuild_tensor(storage, offset, shape, strides, *_) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise pickle.UnpicklingError('a tensor is not built from a storage')
    return _Tensor(storage, offset, shape, strides)


def _rebuild_parameter(tensor, *_) -> _Tensor:
    if not isinstance(tensor, _Tensor):
        raise pickle.UnpicklingError('a parameter is not built from a tensor')
    return tensor


_ALLOWED: dict[tuple[str, str], object] = {
    ('collections', 'OrderedDict'): _Dictionary,
    ('torch._utils', '_rebuild_tensor_v2'): _Function(_rebuild_tensor),
    ('torch._utils', '_rebuild_parameter'): _Function(_rebuild_parameter),
    # With the names of buffers that are no part of a state dictionary; protocol 2 knows no sets.
    **{(module, 'set'): _Function(torch_modules.names) for module in ('builtins', '__builtin__')},
    **{('torch', name): _StorageType(dtype) for name, dtype in _STORAGES.items()},
}


class _Refused(Exception):
    """The pickle asks for something that is not on the list and cannot be done without."""


@dataclasses.dataclass
class _Asked:
    """What pickles asked for in vain.

    Attributes:
        absent: names that were not looked up.
        called: those of modules that were called with arguments.
    """

    absent: list[str] = dataclasses.field(default_factory=list)
    called: list[str] = dataclasses.field(default_factory=list)

    def first(self) -> str | None:
        """The first name, if there is any."""
        return next(iter((*self.called, *self.absent)), None)


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: IO[bytes], find_storage: Callable[[np.dtype, str, int], _Storage], asked: _Asked):
        super().__init__(stream, encoding='utf-8')
        self._find_storage = find_storage
        self._asked = asked

    def find_class(self, module: str, name: str) -> object:
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        asked = f'{module}.{name}'
        # A tensor of another kind (quantised, sparse, a subclass) is a weight that would be missing.
        if asked.startswith(('torch._utils._rebuild', 'torch._tensor.', '__torch__')):
            raise _Refused(asked)
        # A class of its own each time: a pickle makes some objects only from classes, and could change one it got.
        if torch_modules.is_record(module, name):
            return type('ModuleRecord', (ModuleRecord,), {'name': asked, 'called': self._asked.called})
        self._asked.absent.append(asked)
        return type('Absent', (Absent,), {'name': asked})

    def persistent_load(self, identifier: object) -> _Storage:
        match identifier:
            case ('storage', type() as kind, *_) if issubclass(kind, Absent):
                raise _Refused(kind.name)
            # The legacy container adds which part of a shared storage is meant; only files from 2017 use that.
            case ('storage', _StorageType(dtype=dtype), str() as key, _, int() as count) | (
                'storage',
                _StorageType(dtype=dtype),
                str() as key,
                _,
                int() as count,
                None,
            ):
                return self._find_storage(dtype, key, count)
        raise pickle.UnpicklingError('it refers to something that is not a storage')


def _unpickle(stream: IO[bytes], find_storage: Callable[[np.dtype, str, int], _Storage], asked: _Asked) -> object:
    """Read one pickle and leave the stream after it; what it asked for in vain is added to ``asked``.

    Raises:
        ValueError: the memo is numbered in a way that would make the unpickler allocate gigabytes.
        Exception: nearly any, on damaged input, as the documentation of ``pickle`` says.
    """
    start = stream.tell()
    for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if opcode.name in ('PUT', 'BINPUT', 'LONG_BINPUT') and (argument or 0) > count:
            raise ValueError(f'its pickle numbers object {argument} after {count} instructions')
    stream.seek(start)
    return _Unpickler(stream, find_storage, asked).load()


def _read_entry(archive: zipfile.ZipFile, name: str) -> bytes:
    """The bytes of an entry; torch stores without compression, so an entry is never larger than the file."""
    entry = archive.getinfo(name)
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
        raise ValueError(f'{name} is compressed')
    return archive.read(entry)


def _read_zip(path: Path, asked: _Asked, with_data: bool = True) -> object:
    with zipfile.ZipFile(path) as archive:
        pickles = [name for name in archive.namelist() if name.endswith('/data.pkl') or name == 'data.pkl']
        if len(pickles) != 1:
            raise ValueError('the archive holds no data.pkl')
        prefix = pickles[0].removesuffix('data.pkl')
        if f'{prefix}byteorder' in archive.namelist() and _read_entry(archive, f'{prefix}byteorder') != b'little':
            raise ValueError('the file was written on a big-endian machine')
        storages: dict[str, _Storage] = {}

        def find_storage(dtype: np.dtype, key: str, count: int) -> _Storage:
            if key not in storages:
                storage = storages[key] = _Storage(dtype, count)
                if not with_data:
                    return storage
                data = _read_entry(archive, f'{prefix}data/{key}')
                if len(data) != count * dtype.itemsize:
                    raise ValueError(f'storage {key} holds {len(data)} bytes, not {count * dtype.itemsize}')
                storage.data = np.frombuffer(data, dtype)
            return storages[key]

        return _unpickle(io.BytesIO(_read_entry(archive, pickles[0])), find_storage, asked)


def _read_legacy(path: Path, asked: _Asked) -> object:
    storages: dict[str, _Storage] = {}

    def find_storage(dtype: np.dtype, key: str, count: int) -> _Storage:
        return storages.setdefault(key, _Storage(dtype, count))

    with path.open('rb') as stream:
        magic = _unpickle(stream, find_storage, asked)
        if magic != _LEGACY_MAGIC and asked.first():
            raise _Refused(asked.first())
        protocol, _system = (_unpickle(stream, find_storage, asked) for _ in range(2))
        if magic != _LEGACY_MAGIC or protocol != _LEGACY_PROTOCOL:
            raise ValueError('it is not a torch file')
        content = _unpickle(stream, find_storage, asked)
        keys = _unpickle(stream, find_storage, asked)
        if not isinstance(keys, list):
            raise ValueError('it lists no storages')
        for key in keys:
            storage = storages[key]
            (count,) = struct.unpack('<q', stream.read(8))
            if count != storage.count:
                raise ValueError(f'storage {key} holds {count} values, not {storage.count}')
            data = stream.read(count * storage.dtype.itemsize)
            storage.data = np.frombuffer(data, storage.dtype)
            if storage.data.size != count:
                raise ValueError('it ends too early')
    return content


def read_torch_file(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a .pth or .pt file: in its dictionary and those nested in it, or in the modules of a whole model.

    Returns:
        Key → array, in the file's own types (bfloat16 as ``ml_dtypes.bfloat16``). The key of a tensor in a nested
        dictionary is joined from all their keys by dots, ``state_dict.conv1.weight``. States of optimizers and whatever
        is no tensor are left out. A whole model of ultralytics or of torch's own modules is read if there is no such
        dictionary (``torch_modules``): ``model.model.0.conv.weight``.

    Raises:
        UserError: the file holds no tensors but those in something else that it asks for (named), is truncated, or
            holds no state dictionary.
    """
    asked = _Asked()
    try:
        with path.open('rb') as stream:
            is_zip = stream.read(4) == b'PK\x03\x04'
        content = _read_zip(path, asked) if is_zip else _read_legacy(path, asked)
        tensors = _tensors(content) or _tensors_of_modules(content, asked)
        if tensors:
            return {key: value.array() for key, value in tensors.items()}
        if asked.first():
            raise _Refused(asked.first())
    except _Refused as refused:
        raise UserError(
            f'{path} was refused: its pickle asks for {refused}, which is not a tensor and could run code; '
            'save the state dictionary alone (torch.save(model.state_dict(), …)) or as safetensors'
        ) from None
    # A damaged pickle or archive raises nearly anything; whatever it is, it is the file's fault.
    except Exception as error:
        reason = str(error) or type(error).__name__
        named = f' (it also asks for {asked.first()}, which is not looked up)' if asked.first() else ''
        raise UserError(f'{path} is truncated, damaged or not a torch file: {reason}{named}') from None
    held = f'a dictionary of {_listed(content)}' if isinstance(content, dict) else f'a {type(content).__name__}'
    raise UserError(f'{path} holds no state dictionary but {held}')


def read_class_names(path: Path) -> tuple[str, ...] | None:
    """What a whole model of ultralytics in a .pt file calls its classes; ``None`` where it does not say.

    No tensor is read, and nothing that ``read_torch_file`` would refuse.
    """
    asked = _Asked()
    try:
        if not zipfile.is_zipfile(path):
            return None
        models = torch_modules.records(_read_zip(path, asked, with_data=False))
        if asked.called or torch_modules.suspicious(asked.absent):
            return None
        return next(filter(None, (torch_modules.class_names(model) for model in models.values())), None)
    except Exception:  # whatever it is, reading the weights will say it
        return None


def _tensors(content: object, prefix: str = '', depth: int = 0) -> dict[str, _Tensor]:
    """Key → tensor of a dictionary and of those nested in it."""
    found: dict[str, _Tensor] = {}
    if not isinstance(content, dict) or depth == _DEPTH:
        return found
    for key, value in content.items():
        if not isinstance(key, str):
            continue
        if isinstance(value, _Tensor):
            found[prefix + key] = value
        elif not _BESIDE.fullmatch(key):
            found |= _tensors(value, f'{prefix}{key}.', depth + 1)
    return found


def _tensors_of_modules(content: object, asked: _Asked) -> dict[str, _Tensor]:
    """Key → tensor of the models in a file; empty where there is none.

    Raises:
        _Refused: beside modules the file asks for something that no model has, or calls something.
        ValueError: the modules hold something other than tensors and modules, or nest without end.
    """
    found: dict[str, _Tensor] = {}
    models = torch_modules.records(content)
    if models and (name := next(iter(asked.called), None) or torch_modules.suspicious(asked.absent)):
        raise _Refused(name)
    for prefix, record in models.items():
        for key, value in torch_modules.entries(record, prefix):
            if isinstance(value, Absent):
                raise _Refused(value.name)
            if not isinstance(value, _Tensor):
                raise ValueError(f'{key} is no tensor but a {type(value).__name__}')
            found[key] = value
    return found


def _listed(content: dict, most: int = 8) -> str:
    """The keys of a dictionary with the types of their values."""
    held = [f'{key!r} ({type(value).__name__})' for key, value in content.items()]
    return listed(held, most) or 'nothing'
