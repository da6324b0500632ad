"""Our own layout: a key is the path of a variable, in a ``Model`` or in a backbone alone."""

from collections.abc import Iterable

from backbones.pretrained.keymaps.rules import KeyMap, Rule

NATIVE = 'native'

# What a model consists of, in the order in which images run through it.
PARTS = ('backbone', 'neck', 'head')
_COLLECTIONS = ('params', 'batch_stats')


def part_of(path: str) -> str:
    """The part of a model that a path such as ``'params/backbone/norm/scale'`` belongs to."""
    return path.split('/')[1]


def in_a_model(path: str) -> str:
    """The path that a variable has in a model; a backbone's own gets ``backbone/`` in front."""
    kind, _, rest = path.partition('/')
    return path if rest.startswith(tuple(f'{part}/' for part in PARTS)) else f'{kind}/backbone/{rest}'


def native_keymap(keys: Iterable[str]) -> KeyMap:
    """The key map of one of our files, a model or some of its parts; its stages tell it from other files of flax.

    A key map without lines means that the file is not ours.
    """
    paths = [(key, in_a_model(key)) for key in keys if key.partition('/')[0] in _COLLECTIONS and '/' in key]
    if not any('/stage1/' in key for key, _ in paths) and any(part_of(path) == 'backbone' for _, path in paths):
        return KeyMap([])
    return KeyMap([Rule(key, path, optional=part_of(path) != 'backbone') for key, path in paths])
