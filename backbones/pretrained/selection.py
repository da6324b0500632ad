"""Which of a file's arrays are the backbone: without the prefixes of wrappers, and one of the networks it may hold.

A checkpoint of a training often holds more than one network (a model and its moving average, a teacher and a student, a
query and a key encoder), and every framework puts its own names in front of the keys. The network is the group of keys,
with whatever is in front of them taken off, that has parameters in every stage of the backbone.
"""

import collections
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import flax.linen as nn
import numpy as np

from backbones.errors import UserError, listed, unknown
from backbones.pretrained import keymaps
from backbones.pretrained.keymaps.native import native_keymap
from backbones.pretrained.keymaps.rules import KeyMap, Line, Rule, fill

# Prefixes that torch's wrappers put before every key: DataParallel, DistributedDataParallel; torch.compile.
_WRAPPERS = ('module.', '_orig_mod.')


def select(
    module: nn.Module,
    arrays: Mapping[str, np.ndarray],
    prefix: str,
    name: str,
    source: str,
    layouts: Iterable[Sequence[Line]] | None = None,
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """The arrays of the backbone, and of the head and neck beside it, by the keys of a layout.

    Args:
        module: the backbone that is to take them.
        arrays: a file's arrays, by its own keys.
        prefix: what is in front of the keys of the network that is wanted, such as ``'teacher'``; empty where the file
            holds only one.
        name: the registered name of the module, for messages.
        source: where the arrays come from, for messages.
        layouts: key maps that the keys may follow beside our own; ``None``: those of the backbone alone.

    Returns:
        The arrays, and the keys of the others. Where no group of keys is the backbone's, these are all arrays, without
        what is in front of every key.

    Raises:
        UserError: nothing in the file has this prefix, or several groups of keys are the backbone's; both times the
            message lists what there is.
    """
    start = _start(arrays, prefix) if prefix else ''
    if start is None:
        groups = _groups(arrays)
        raise UserError(f'{unknown(f"part of {source}", prefix, groups)} (it holds {_counted(groups)})')
    start += _wrappers(_under(arrays, start))
    inside = _under(arrays, start)
    known = [KeyMap(lines) for lines in (keymaps.layouts(module).values() if layouts is None else layouts)]
    stages = {f'stage{number}' for number in range(1, len(module.stage_channels()) + 1)}
    found = _networks(inside, known, stages)
    if len(found) > 1:
        counts = {each.rstrip('.'): len(_under(inside, each)) for each in found}
        chosen = '.'.join([*([prefix.rstrip('.')] if prefix else []), next(iter(counts))])
        place = source.removesuffix(f'#{prefix}') if prefix else source
        raise UserError(
            f'{source} holds several networks that could be {name}: {_counted(counts)}; say which one: '
            f'{place}#{chosen}, or prefix={chosen!r}'
        )
    start += found[0] if found else _common(inside)
    kept = {key.removeprefix(start): array for key, array in arrays.items() if key.startswith(start)}
    return kept, tuple(key for key in arrays if not key.startswith(start))


def described(keys: Collection[str]) -> str:
    """``'; it holds …'``: what is in front of the keys, or an empty string where that says nothing."""
    groups = _groups(keys)
    if not 1 < len(groups) < len(keys):
        return ''
    return f'; it holds {_counted(groups)}, one of which is read with #NAME after the file'


def _start(keys: Collection[str], prefix: str) -> str | None:
    """What is in front of the keys of a prefix that a user wrote, with its separator; ``None`` where there are none."""
    wrappers = _wrappers(keys)
    for start in (prefix,) if prefix.endswith(('.', '/')) else (f'{prefix}.', f'{prefix}/'):
        for each in (start, wrappers + start):
            if any(key.startswith(each) for key in keys):
                return each
    return None


def _under(keys: Iterable[str], start: str) -> list[str]:
    """The keys that begin with ``start``, without it."""
    return [key.removeprefix(start) for key in keys if key.startswith(start)]


def _wrappers(keys: Collection[str]) -> str:
    """The prefixes that wrappers of torch put before every key, in whatever order they were put."""
    start = ''
    while keys and (common := [each for each in _WRAPPERS if all(key.startswith(start + each) for key in keys)]):
        start += common[0]
    return start


def _networks(keys: Sequence[str], layouts: Iterable[KeyMap], stages: set[str]) -> list[str]:
    """The prefixes under which there is a whole backbone; only the empty one where that is one of them."""
    if _is_network(keys, layouts, stages):
        return ['']
    groups: dict[str, list[str]] = collections.defaultdict(list)
    for key in keys:
        for prefix in _prefixes(key):
            groups[prefix].append(key.removeprefix(prefix))
    found: list[str] = []
    for prefix in sorted(groups, key=len):
        # Where a layout itself knows a prefix, the keys fit with and without it.
        if not any(prefix.startswith(shorter) for shorter in found) and _is_network(groups[prefix], layouts, stages):
            found.append(prefix)
    return sorted(found)  # the order of keys in a safetensors file is not always the same


def _prefixes(key: str) -> Iterator[str]:
    """What may be in front of a key: all its parts but the last, one more each time."""
    position = key.find('.')
    while position >= 0:
        yield key[: position + 1]
        position = key.find('.', position + 1)


def _is_network(keys: Sequence[str], layouts: Iterable[KeyMap], stages: set[str]) -> bool:
    """Whether one layout finds parameters of every stage among these keys."""
    if len(keys) < len(stages):
        return False
    for keymap in (native_keymap(keys), *layouts):
        left = set(stages)
        for key in keys:
            known = keymap.find(key)
            if known is not None and isinstance(known[0], Rule):
                left.discard(fill(known[0].path, known[1]).split('/')[2])
            if not left:
                return True
    return False


def _common(keys: Sequence[str]) -> str:
    """The parts that are in front of every key."""
    start = ''
    while len(keys) > 1 and len(parts := {key[len(start) :].partition('.')[:2] for key in keys}) == 1:
        first, dot = parts.pop()
        if not dot:
            break
        start += first + dot
    return start


def _groups(keys: Iterable[str]) -> dict[str, int]:
    """First part of the keys → how many keys have it."""
    return collections.Counter(sorted(key.partition('.')[0].partition('/')[0] for key in keys))


def _counted(groups: Mapping[str, int], most: int = 8) -> str:
    shown = [f'{name!r} ({count} arrays)' for name, count in groups.items()]
    return listed(shown, most)
