"""A few images or texts of a data set by the ids of their examples, without splitting it; nothing here imports JAX."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from backbones import images
from backbones.errors import UserError
from backbones.images import ImageReading
from experiments.data import docstrings, text_files, text_tables

Pixels = UInt8[np.ndarray, 'height width channels']
_TFDS = 'tfds:'


def read(
    name: str,
    ids: Sequence[str],
    reading: ImageReading | None = None,
    sizes: Mapping[str, tuple[int, int]] | None = None,
    dense: bool = False,
    data_directory: Path | None = None,
) -> dict[str, Pixels]:
    """The images of some examples, as their files have them: upright, in 8-bit RGB, at their own size.

    Args:
        name: of the data set, as ``loading.load`` takes it.
        ids: of the examples.
        reading: how files become 8-bit RGB.
        sizes: id → height and width, where annotations say them: an image that is annotated as its file has it, and
            not as a viewer turns it, is left so.
        dense: whether the task is one of boxes or masks, for which ``shapes`` has other images.
        data_directory: of prepared TFDS data sets.

    Returns:
        id → image, of those that can be read.

    Raises:
        UserError: none can be read; the reason is named. Or the data set has texts.
    """
    kind, colon, rest = name.partition(':')
    if kind in (*text_files.SUFFIXES, docstrings.NAME):
        raise UserError(f'{name!r} has texts, no images')
    if name.startswith(_TFDS):
        read_one = _of_tfds(rest, reading or ImageReading(), data_directory)
    elif colon:
        read_one = _of_folder(_root(rest), reading or ImageReading(), sizes or {})
    else:
        read_one = _embedded(kind, dense)
    found: dict[str, Pixels] = {}
    reason = ''
    for example in ids:
        try:
            found[example] = read_one(example)
        except Exception as error:  # readers raise all kinds of errors on what is damaged or not there
            reason = reason or (str(error) if isinstance(error, UserError) else images.why_unreadable(b'?', error))
    if ids and not found:
        raise UserError(f'the images of {name!r} cannot be read here: {reason}')
    return found


def read_texts(
    name: str, ids: Sequence[str], text_column: str = '', data_directory: Path | None = None
) -> dict[str, str]:
    """The texts of some examples, as the data set has them.

    Args:
        name: of the data set, as ``loading.load`` takes it.
        ids: of the examples.
        text_column: that of ``ReadingOptions``.
        data_directory: of prepared TFDS data sets.

    Returns:
        id → text, of those that can be read.

    Raises:
        UserError: none can be read; the reason is named. Or the data set has images.
    """
    kind, _, rest = name.partition(':')
    wanted = {*ids}
    if kind in text_files.SUFFIXES:
        there = text_files.texts(kind, rest, text_column)
    elif kind == docstrings.NAME:
        there = docstrings.texts()
    elif name.startswith(_TFDS):
        there = _texts_of_tfds(rest, ids, text_column, data_directory)
    else:
        raise UserError(f'{name!r} has images, no texts')
    found = {example: text for example, text in there.items() if example in wanted}
    if ids and not found:
        raise UserError(f'the texts of {name!r} cannot be read here: {ids[0]!r} is not there any more')
    return found


def _texts_of_tfds(name: str, ids: Sequence[str], text_column: str, directory: Path | None) -> dict[str, str]:
    from experiments.data import tfds_texts

    builder = _builder(name, directory)
    columns, sources, found = tfds_texts.text_columns(name, builder.info, text_column), {}, {}
    for example in ids:
        split, _, position = example.partition('/')
        try:
            if split not in sources:
                sources[split] = builder.as_data_source(split)
            found[example] = text_tables.joined(tfds_texts.texts_of(sources[split][int(position)], columns))
        except Exception:  # readers raise all kinds of errors on what is damaged or not there
            continue
    return found


def _root(path: str) -> Path:
    given = Path(path).expanduser()
    return given.parent if given.is_file() else given


def _of_folder(root: Path, reading: ImageReading, sizes: Mapping[str, tuple[int, int]]) -> Callable[[str], Pixels]:
    if not root.is_dir():
        raise UserError(f'there is no folder {str(root)!r}')

    def read_one(example: str) -> Pixels:
        file = root / example
        if not file.is_file():
            raise UserError(f'{example!r} is not there any more')
        upright = images.decode(file, reading)
        size = sizes.get(example)
        if size is not None and size != (upright.height, upright.width):
            upright = images.decode(file, reading, upright=False)
        return np.asarray(upright)

    return read_one


def _of_tfds(name: str, reading: ImageReading, directory: Path | None) -> Callable[[str], Pixels]:
    # Imported late: it takes seconds.
    import tensorflow_datasets as tfds

    builder = _builder(name, directory)
    keys = [key for key, feature in builder.info.features.items() if isinstance(feature, tfds.features.Image)]
    if not keys:
        raise UserError(f"'tfds:{name}' has no images")
    key, sources = keys[0], {}

    def read_one(example: str) -> Pixels:
        split, _, position = example.partition('/')
        if split not in sources:
            sources[split] = builder.as_data_source(split, decoders={key: tfds.decode.SkipDecoding()})
        return np.asarray(images.decode(sources[split][int(position)][key], reading))

    return read_one


def _builder(name: str, directory: Path | None) -> Any:
    """TFDS's builder of a prepared data set; nothing is prepared for a few examples."""
    import tensorflow_datasets as tfds

    from experiments.data.tfds import default_directory

    try:
        builder: Any = tfds.builder(name, data_dir=str(directory or default_directory()))
        if not builder.is_prepared():
            raise UserError(f'tfds:{name} is not prepared in {directory or default_directory()}')
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
        raise UserError(f'tfds:{name} is not there: {error}') from None
    return builder


def _embedded(name: str, dense: bool) -> Callable[[str], Pixels]:
    if name == 'shapes':
        from experiments.data import shapes

        return lambda example: shapes.draw_image(example, classified=not dense)
    from experiments.data import embedded

    known = {'mnist5k': embedded.load_mnist5k, 'digits': embedded.load_digits}
    if name not in known:
        raise UserError(f'there is no data set {name!r}')
    dataset = known[name]()
    places = {example: place for place, example in enumerate(dataset.ids)}

    def read_one(example: str) -> Pixels:
        if example not in places:
            raise UserError(f'{name!r} has no example {example!r}')
        return np.asarray(dataset.images[np.array([places[example]])])[0]

    return read_one
