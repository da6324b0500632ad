"""The layout of a file's arrays, recognised by their keys, and the arrays in our paths and axes."""

from collections.abc import Mapping, Sequence

import flax.linen as nn
import numpy as np

from backbones.errors import UserError
from backbones.pretrained import advice, keymaps
from backbones.pretrained.keymaps.native import NATIVE, native_keymap
from backbones.pretrained.keymaps.rules import (
    ForeignFileError,
    KeyMap,
    Line,
    Translation,
    UnreadableArrayError,
    translate,
)
from backbones.pretrained.selection import described

# Name of each layout, and its key map; a name may stand for several.
Layouts = Sequence[tuple[str, list[Line]]]


def recognise(
    module: nn.Module, arrays: Mapping[str, np.ndarray], name: str, source: str, layouts: Layouts | None = None
) -> tuple[str, Translation]:
    """Recognise the layout (the one that knows most of the keys) and bring the arrays to our paths and axes.

    Args:
        module: the backbone.
        arrays: by the file's keys.
        name, source: for messages.
        layouts: the layouts to choose from, beside our own; ``None``: those of the backbone.
    """
    others = keymaps.layouts(module).items() if layouts is None else layouts
    candidates = [(NATIVE, native_keymap(arrays)), *((layout, KeyMap(lines)) for layout, lines in others)]
    counts = [keymap.known(arrays) for _, keymap in candidates]
    layout, keymap = candidates[counts.index(max(counts))]
    if not max(counts):
        names = ', '.join(dict.fromkeys(each for each, _ in candidates))
        example = next(iter(arrays), 'nothing')
        raise UserError(
            f'{source} holds no weights of {name} in a known layout ({names}): its keys look like '
            f'{example!r}{advice.suggestion(arrays, name) or described(arrays)}'
        )
    try:
        return layout, translate(arrays, keymap)
    except ForeignFileError as error:
        raise UserError(f'{source} does not fit {name}: {error}') from None
    except UnreadableArrayError as error:
        raise UserError(f'{source}: {error}') from None
    except ValueError as error:
        key, path, shape = error.args
        raise UserError(f'{source}: {key} has {len(shape)} axes {list(shape)}, which {path} cannot have') from None
