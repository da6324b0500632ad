"""Tensors of a whole model that was pickled, read from its tree of modules as plain data.

A module of torch is pickled as the name of its class and a dictionary of its attributes, among them the dictionaries
``_parameters``, ``_buffers`` and ``_modules``. The class is never looked up: in its place stands a ``ModuleRecord``,
which keeps these dictionaries and does nothing. What ultralytics' trainings save (``best.pt``, ``last.pt``) is of this
kind.

Source for the attributes: torch/nn/modules/module.py; for what a training saves: ultralytics/engine/trainer.py.
"""

import re
from collections.abc import Iterator
from typing import ClassVar

# Classes of modules, and of the settings and losses that ultralytics' models hold; no name that is nested or private.
_MODULE, _CLASS = re.compile(r'(ultralytics|torch\.nn)(\.[a-z]\w*)*'), re.compile(r'[A-Za-z]\w*')
# What may stand beside the modules in a file: numbers and their types, paths, times, settings.
_BESIDE = re.compile(
    r'torch\.(device|Size|bfloat16|u?int\d+|float\d+|bool)|numpy\.[\w.]+|_codecs\.encode|pathlib\.\w+|datetime\.\w+|'
    r'collections\.(deque|defaultdict|Counter)|(builtins|__builtin__)\.(int|float|bool|str|bytes|complex|slice|range)|'
    r'(argparse|types)\.(Simple)?Namespace'
)
# No model nests deeper, or has more modules; a malicious file's may hold themselves.
_DEPTH = 64
_MODULES = 100_000


class Absent:
    """Something that is not looked up: it can be called, filled and changed, and keeps nothing of it."""

    name = ''

    def __new__(cls, *_arguments: object, **_keywords: object):  # noqa: D102
        return super().__new__(cls)

    def __init__(self, *_arguments: object, **_keywords: object):
        pass

    def __call__(self, *_arguments: object) -> 'Absent':  # noqa: D102
        return self

    def __setstate__(self, state: object):
        pass

    def __setitem__(self, _key: object, _value: object):
        pass

    def append(self, _item: object):  # noqa: D102
        pass

    def extend(self, _items: object):  # noqa: D102
        pass

    def add(self, _item: object):  # noqa: D102
        pass


class ModuleRecord(Absent):
    """An object whose class is not looked up, and what it holds of parameters, buffers and modules."""

    # Names that were called with arguments, which no module needs when it is read from a file.
    called: ClassVar[list[str]] = []

    def __new__(cls, *arguments: object, **keywords: object):  # noqa: D102
        if arguments or keywords:
            cls.called.append(cls.name)
        return super().__new__(cls)

    def __init__(self, *_arguments: object, **_keywords: object):
        pass

    def __call__(self, *_arguments: object) -> 'ModuleRecord':  # noqa: D102
        self.called.append(self.name)
        return self

    def __setstate__(self, state: object):
        self.state = state if isinstance(state, dict) else {}

    def held(self, name: str) -> dict[str, object]:
        """The dictionary of this name among the attributes.

        Raises:
            ValueError: it is something else.
        """
        held = vars(self).get('state', {}).get(name, {})
        if not isinstance(held, dict) or not all(isinstance(key, str) for key in held):
            raise ValueError(f'{name} of a {self.name} is no dictionary of names')
        return held

    def temporary(self) -> frozenset[str]:
        """Names of the buffers that are no part of a state dictionary."""
        found = vars(self).get('state', {}).get('_non_persistent_buffers_set')
        return frozenset(found) if isinstance(found, set | frozenset) else frozenset()


def is_record(module: str, name: str) -> bool:
    """Whether this is a class whose objects are kept as records."""
    return _MODULE.fullmatch(module) is not None and _CLASS.fullmatch(name) is not None


def names(items: object = ()) -> frozenset[str]:
    """The set that a pickle makes of a list of names."""
    return (
        frozenset(item for item in items if isinstance(item, str)) if isinstance(items, list | tuple) else frozenset()
    )


def suspicious(asked: list[str]) -> str | None:
    """The first of the names that a file with a whole model has no need for."""
    return next((name for name in asked if _BESIDE.fullmatch(name) is None), None)


def records(content: object) -> dict[str, ModuleRecord]:
    """Prefix of keys → model, of a file that holds one or some: ``{'model.': …}``.

    The moving average of a model takes its place, as ultralytics' own reader has it.
    """
    if isinstance(content, ModuleRecord):
        return {'': content}
    if not isinstance(content, dict):
        return {}
    found = {
        f'{key}.': each for key, each in content.items() if isinstance(key, str) and isinstance(each, ModuleRecord)
    }
    if 'ema.' in found:
        found.pop('model.', None)
    return found


def class_names(record: ModuleRecord) -> tuple[str, ...] | None:
    """The names of classes that a model of ultralytics carries, by their numbers; ``None`` where it carries none."""
    held = vars(record).get('state', {}).get('names')
    numbered = dict(enumerate(held)) if isinstance(held, list | tuple) else held
    if not isinstance(numbered, dict) or not numbered or set(numbered) != set(range(len(numbered))):
        return None
    found = tuple(numbered[index] for index in range(len(numbered)))
    return found if all(isinstance(name, str) for name in found) else None


def entries(record: ModuleRecord, prefix: str = '') -> Iterator[tuple[str, object]]:
    """Key and entry of all parameters and buffers, as in ``state_dict()`` of the model, and of modules that are none.

    Raises:
        ValueError: the modules nest without end, or an attribute of one is not what it is called.
    """
    count = 0
    stack: list[tuple[str, object, int]] = [(prefix, record, 0)]
    while stack:
        path, module, depth = stack.pop()
        if not isinstance(module, ModuleRecord):
            yield path.removesuffix('.'), module
            continue
        count += 1
        if depth > _DEPTH or count > _MODULES:
            raise ValueError('its modules nest without end')
        for name, left_out in (('_parameters', ()), ('_buffers', module.temporary())):
            for key, each in module.held(name).items():
                if each is not None and key not in left_out:
                    yield f'{path}{key}', each
        inner = [
            (f'{path}{key}.', each, depth + 1) for key, each in module.held('_modules').items() if each is not None
        ]
        stack += reversed(inner)
