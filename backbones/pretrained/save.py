"""Saving weights: in our own layout, or in the one that a reference implementation loads."""

import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from flax.traverse_util import flatten_dict
from safetensors import SafetensorError
from safetensors.numpy import save_file

from backbones import inputs, registry
from backbones.errors import UserError, listed, unknown
from backbones.model import Model
from backbones.pretrained import keymaps
from backbones.pretrained.checksums import flush
from backbones.pretrained.description import KEY, Description
from backbones.pretrained.keymaps.native import NATIVE, in_a_model, part_of
from backbones.pretrained.keymaps.rules import KeyMap, Rule, export
from backbones.pretrained.load import expected_shapes
from backbones.published_models import published_on


def save_weights(
    path: Path | str,
    variables: Mapping,
    layout: str = NATIVE,
    name: str | None = None,
    description: Description | None = None,
    model: Model | None = None,
    **overrides,
) -> None:
    """Write variables as safetensors.

    Args:
        path: a file name ending in ``.safetensors``; its directory is made if there is none.
        variables: those of a model, of some of its parts, or of a backbone alone.
        layout: ``'native'`` (our own paths, which ``load_weights`` reads back bit by bit), or the layout of a reference
            implementation (``'torchvision'``, ``'timm'``, …), which loads the file with ``strict=True``.
        name: the registered backbone that the variables belong to; found by their shapes if it is not given. Our own
            layout needs none.
        description: kept with the weights, and reported by ``load_weights`` (``Report.description``): what they were
            trained to see, and the names of their classes.
        model: the model that the variables belong to. A foreign layout of neck and head needs it, unless they are those
            of a published model (``published_models``), with whatever backbone and number of classes.
        **overrides: options that the backbone was created with.

    Raises:
        UserError: another suffix, a layout that this backbone does not have, variables that fit no registered backbone
            or have no place in the layout; or the file cannot be written (no space, no permission): what was written is
            removed, and an earlier file of that name is as it was.
    """
    path = Path(path)
    if path.suffix != '.safetensors':
        raise UserError(f'weights are saved as .safetensors, not {path.name!r}')
    flat = flatten_dict({kind: tree for kind, tree in variables.items() if tree}, sep='/')
    arrays = {path: np.asarray(leaf) for path, leaf in flat.items()}
    if layout != NATIVE:
        described = None if description is None else description.backbone
        arrays = to_layout(arrays, layout, name or described or identify(arrays), overrides, model)
    partial = path.with_name(f'.{path.name}.partial')
    # Safetensors writes the memory as it is laid out and ignores the strides.
    contiguous = {key: np.asarray(array, order='C') for key, array in arrays.items()}
    with _whole_or_nothing(path, partial):
        save_file(contiguous, partial, metadata=_metadata(layout, description))


@contextmanager
def _whole_or_nothing(path: Path, partial: Path) -> Generator[None]:
    """Give a file its name once it is written; if it cannot be, remove what there is of it.

    Raises:
        UserError: it cannot be written; from the error that says why.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
        flush(partial)  # else a power cut may leave the name with nothing behind it
        partial.chmod(0o644)
        partial.replace(path)
    except BaseException as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        # Safetensors reports what the operating system says in an error of its own.
        if not isinstance(error, OSError) and not (isinstance(error, SafetensorError) and 'I/O error' in str(error)):
            raise
        reason = getattr(error, 'strerror', None) or str(error).rpartition('I/O error: ')[2]
        raise UserError(
            f'the weights cannot be written to {str(path)!r}: {reason}; make room there, or choose another place'
        ) from error


def _metadata(layout: str, description: Description | None) -> dict[str, str] | None:
    """What goes into the header of the file; safetensors takes text only."""
    metadata = {} if layout == NATIVE else {'format': 'pt'}
    if description is not None:
        metadata[KEY] = json.dumps(description.as_json(), sort_keys=True)
    return metadata or None


def to_layout(
    arrays: Mapping[str, np.ndarray],
    layout: str,
    name: str,
    overrides: Mapping | None = None,
    model: Model | None = None,
) -> dict[str, np.ndarray]:
    """Our paths → the keys and axes of a layout.

    Raises:
        UserError: the backbone does not have this layout, or a variable has no place in it.
    """
    options = overrides or {}
    found = keymaps.model_layouts(model) if model else list(keymaps.layouts(registry.create(name, **options)).items())
    whole = {in_a_model(path): array for path, array in arrays.items()}
    if model is None and any(part_of(path) != 'backbone' for path in whole):
        found += [each for usual in published_on(name, **options) for each in keymaps.model_layouts(usual)]
    maps = [KeyMap(lines) for each, lines in found if each == layout]
    if not maps:
        raise unknown(f'layout for {name}', layout, {NATIVE, *(each for each, _ in found)})
    # Of several models, the one that has all these variables, and the fewest others.
    tried = [(*export(whole, each), _absent(each, whole)) for each in maps]
    exported, homeless, _ = min(tried, key=lambda result: (len(result[1]), result[2]))
    if homeless:
        raise UserError(f'the {layout} layout has no place for {listed(homeless)} of {name}')
    return exported


def _absent(keymap: KeyMap, leaves: Mapping[str, np.ndarray]) -> int:
    """How many of the paths that a key map spells out there are not."""
    return sum(isinstance(line, Rule) and '{' not in line.path and line.path not in leaves for line in keymap.lines)


def identify(arrays: Mapping[str, np.ndarray]) -> str:
    """The registered backbone whose parameters have these paths and shapes (the first, where several share them).

    Raises:
        UserError: none does.
    """
    paths = {in_a_model(path): array for path, array in arrays.items()}
    leaves = {path: array for path, array in paths.items() if path.startswith('params/backbone/')}
    size = sum(array.size for array in leaves.values())
    for name, row in registry.TABLE.items():
        if row.params == size:
            expected = expected_shapes(name, None, inputs.spec(row.preprocessing.size).shape, {})
            if leaves == {} or all(expected.get(path) == array.shape for path, array in leaves.items()):
                return name
    raise UserError(
        f'no registered backbone has these {len(leaves)} parameters with {size:,} values; '
        'name the one they belong to: save_weights(path, variables, layout, name=…)'
    )
