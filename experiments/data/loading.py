"""Data sets by name, such as ``digits``, ``tfds:NAME`` and ``folder:PATH``. A new data set is one function here.

A task says what it needs to know about an image: its class, boxes or a mask. ``TRUTHS`` is the table of what each kind
of data set has. A backbone reads images or texts, and ``INPUTS`` is the table of which of them a kind has.
"""

import contextlib
import hashlib
from collections.abc import Callable
from pathlib import Path

from backbones.errors import UserError, unknown
from experiments.data import (
    docstrings,
    embedded,
    folder,
    folder_tree,
    likely_kinds,
    shapes,
    text_files,
    tfds,
    tfds_dense,
    tfds_texts,
)
from experiments.data.dataset import Dataset
from experiments.data.dense import coco, coco_files, mask_folders, voc, yolo
from experiments.data.options import ReadingOptions, check_kind
from experiments.data.texts import Inputs, OtherInputs
from experiments.data.truth import IN_WORDS, TruthKind

# Embedded data sets, and kinds of others (what precedes the colon) → what they say about images.
TRUTHS: dict[str, tuple[TruthKind, ...]] = {
    'mnist5k': ('class',),
    'digits': ('class',),
    'shapes': ('class', 'boxes', 'masks'),
    'docstrings': ('class',),
    'tfds': ('class', 'boxes', 'masks'),
    'folder': ('class',),
    'voc': ('boxes', 'masks'),
    'coco': ('boxes', 'masks'),
    'yolo': ('boxes',),
    'masks': ('masks',),
    'csv': ('class',),
    'jsonl': ('class',),
}

# The same names → what the inputs are. Of ``tfds:NAME`` only its files tell.
INPUTS: dict[str, tuple[Inputs, ...]] = {
    'mnist5k': ('images',),
    'digits': ('images',),
    'shapes': ('images',),
    'docstrings': ('texts',),
    'tfds': ('images', 'texts'),
    'folder': ('images',),
    'voc': ('images',),
    'coco': ('images',),
    'yolo': ('images',),
    'masks': ('images',),
    'csv': ('texts',),
    'jsonl': ('texts',),
}

# Kinds of data sets that are read from a path: each takes the path, how it is read, and what of each image.
PATHS: dict[str, Callable[[str, ReadingOptions, TruthKind], Dataset]] = {
    'folder': lambda path, options, truth: folder.load(path, options),
    'voc': lambda path, options, truth: voc.load(path, options, truth == 'masks'),
    'coco': lambda path, options, truth: coco.load(path, options, truth == 'masks'),
    'yolo': lambda path, options, truth: yolo.load(path, options),
    'masks': lambda path, options, truth: mask_folders.load(path, options),
    'csv': lambda path, options, truth: text_files.load('csv', path, options),
    'jsonl': lambda path, options, truth: text_files.load('jsonl', path, options),
}

# Embedded data sets: each takes what is read of each image.
EMBEDDED: dict[str, Callable[[TruthKind], Dataset]] = {
    'mnist5k': lambda truth: embedded.load_mnist5k(),
    'digits': lambda truth: embedded.load_digits(),
    'shapes': shapes.load_shapes,
    'docstrings': lambda truth: docstrings.load(),
}


def check_name(
    name: str,
    truth: TruthKind = 'class',
    of_model: bool = False,
    inputs: Inputs = 'images',
    reader: str = 'the backbone',
) -> None:
    """Check the name of a data set without reading anything.

    Args:
        name: as for ``load``.
        truth: what it must say about images.
        of_model: whether a model needs this, so that no other task can be chosen.
        inputs: what is read.
        reader: what reads it, such as ``'the backbone resnet18'``.

    Raises:
        UserError: no such name (the nearest ones are suggested), a path that cannot be one, a data set of other inputs,
            or one that says something else about them.
    """
    kind, colon, rest = name.partition(':')
    if name not in EMBEDDED and not (colon and kind in TRUTHS and kind not in EMBEDDED and rest):
        with contextlib.suppress(_NoPath):
            place = _place(name) if name else None
            if place and place.is_dir():
                kind, what = next(iter(likely_kinds.recognise(place)), ('folder', 'images'))
                raise UserError(f"unknown data set {name!r}; a folder of {what} is named '{kind}:{name}'")
            if place and place.is_file() and (of_texts := text_files.kind_of(place)):
                raise UserError(f"unknown data set {name!r}; a file of texts is named '{of_texts}:{name}'")
        raise unknown('data set', name, map(_as_written, TRUTHS))
    if kind in PATHS:
        _place(rest)
    if inputs not in INPUTS[kind]:
        raise other_inputs(name, truth, inputs, reader)
    if truth not in TRUTHS[kind]:
        there = ' and '.join(IN_WORDS[each] for each in TRUTHS[kind])
        who, choice = ('model', 'name') if of_model else ('task', 'choose another config key task, or')
        error = UserError(
            f'{name!r} has {there}, but the {who} needs {IN_WORDS[truth]}; {choice} a data set with {IN_WORDS[truth]} '
            f'({_fitting(truth, inputs)})'
        )
        raise likely_kinds.with_hint(error, kind, rest, TRUTHS, truth) if kind in PATHS else error


def _as_written(kind: str) -> str:
    return kind if kind in EMBEDDED else f'{kind}:{"NAME" if kind == "tfds" else "PATH"}'


def _fitting(truth: TruthKind, inputs: Inputs) -> str:
    """The names of the data sets that have these inputs and say this about them."""
    return ', '.join(_as_written(kind) for kind, has in INPUTS.items() if inputs in has and truth in TRUTHS[kind])


class _NoPath(UserError):
    """Nothing can be where a path leads."""


def _place(path: str) -> Path:
    """Where a path leads, whether or not something is there.

    Raises:
        _NoPath: it is too long, leads through what cannot be entered, or begins with the home of nobody.
    """
    try:
        place = Path(path).expanduser()
        place.exists()  # raises where the system cannot look
    except RuntimeError:
        raise _NoPath(f'there is no home directory {path.split("/")[0]!r}; say ./{path}') from None
    except OSError as error:
        raise _NoPath(f'{path!r} cannot be read: {error.strerror or error}') from None
    return place


def other_inputs(name: str, truth: TruthKind, inputs: Inputs, reader: str = 'the backbone') -> UserError:
    """The error for a data set that has images where texts are read, or texts where images are."""
    there = 'images' if inputs == 'texts' else 'texts'
    return UserError(
        f'{name!r} has {there}, but {reader} reads {inputs}; choose a data set of {inputs} '
        f'({_fitting(truth, inputs)}), or a backbone that reads {there}'
    )


def load(
    name: str,
    data_directory: Path | None = None,
    options: ReadingOptions | None = None,
    truth: TruthKind = 'class',
    whole: bool = False,
    inputs: Inputs = 'images',
    **values,
) -> Dataset:
    """Load a data set.

    Args:
        name: one of the embedded ones, or a kind and a name or path, such as ``tfds:NAME`` or ``folder:PATH``.
        data_directory: directory of prepared TFDS data sets; ``None``: TFDS's own default.
        options: how it is read.
        truth: what is read about each image, as the task needs it (``Task.truth``).
        whole: whether the examples are taken together, so that a split may be empty.
        inputs: whether its images or its texts are read, as the backbone needs them.
        **values: or some of the options by name.

    Raises:
        UserError: no such data set (the nearest names are suggested), not one of these inputs or that says this about
            them, too much of it cannot be read, or ``stored_size`` is not positive, or (but for ``whole``) an empty
            split.
    """
    dataset = _read(name, data_directory, options, truth, inputs, **values)
    if not whole:
        dataset.check_splits()
    return dataset


def _read(
    name: str,
    data_directory: Path | None,
    options: ReadingOptions | None,
    truth: TruthKind,
    inputs: Inputs,
    **values,
) -> Dataset:
    check_name(name, truth, inputs=inputs)
    if options is not None and values:
        raise ValueError('options are given as a whole or by name, not both')
    options = options or ReadingOptions(**values)
    kind, _, rest = name.partition(':')
    check_kind(kind, name, options, inputs)
    if name in EMBEDDED:
        return EMBEDDED[name](truth)
    if kind == 'tfds':
        return _read_tfds(rest, data_directory or tfds.default_directory(), options, truth, inputs)
    try:
        dataset = PATHS[kind](rest, options, truth)
        if kind == 'folder' and set(dataset.classes) == {'images', 'masks'}:
            raise UserError(f"the classes of {name!r} would be 'images' and 'masks'")
    except UserError as error:
        if inputs == 'texts':
            raise
        raise likely_kinds.with_hint(error, kind, rest, TRUTHS, truth) from None
    return dataset


def _read_tfds(name: str, directory: Path, options: ReadingOptions, truth: TruthKind, inputs: Inputs) -> Dataset:
    if truth != 'class':
        return tfds_dense.load(name, directory, options, truth == 'masks')
    try:
        return (tfds_texts if inputs == 'texts' else tfds).load(name, directory, options)
    except OtherInputs:
        raise other_inputs(f'tfds:{name}', truth, inputs) from None


def stamp(name: str, data_directory: Path | None = None, options: ReadingOptions | None = None) -> str | None:
    """A hash of the names, sizes and times of a data set's files, and of how they are read.

    Where it is equal, the data are taken to be the same without reading them. ``None``: they must be read.
    """
    kind, _, rest = name.partition(':')
    directory = data_directory or tfds.default_directory()
    if kind in text_files.SUFFIXES:
        files = text_files.stamp(kind, rest)
        return None if files is None else hashlib.sha256(f'{files} {options}'.encode()).hexdigest()
    if kind == 'yolo':  # its images may lie anywhere
        roots = yolo.folders(rest)
    elif kind in PATHS:
        roots = [coco_files.root_of(rest) if kind == 'coco' else Path(rest).expanduser()]
    elif kind == 'tfds':
        roots = [directory / rest.partition('/')[0].partition(':')[0]]
    elif name == 'docstrings':
        return docstrings.stamp()
    else:
        return name if name in EMBEDDED else None
    if not roots or not all(root.is_dir() for root in roots):
        return None
    excluded = options.excluded if options is not None and kind in PATHS else ()
    trees = [folder_tree.stamp(root, excluded) for root in roots]
    return None if None in trees else hashlib.sha256(f'{" ".join(map(str, trees))} {options}'.encode()).hexdigest()


def check_place(workdir: Path, name: str) -> None:
    """Check that a work directory is not the folder of the data itself, in which it would be taken for a part of them.

    Raises:
        UserError: it is, or the name has a path that cannot be one.
    """
    kind, _, rest = name.partition(':')
    if kind not in PATHS:
        return
    place = _place(rest).resolve()
    if kind == 'yolo' and place.is_file():
        place = place.parent
    if kind == 'coco':
        place = coco_files.root_of(rest).resolve()
    if place == workdir.expanduser().resolve():
        raise UserError(
            f'the work directory {str(workdir)!r} is the folder of {INPUTS[kind][0]} itself; choose another --workdir, '
            f'such as {str(workdir / "runs" / "x")!r}'
        )
