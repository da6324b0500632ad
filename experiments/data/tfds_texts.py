"""``tfds:NAME`` for texts: prepared TensorFlow Datasets with features of text and of a class."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from backbones.errors import UserError, listed
from experiments.cli import display
from experiments.data import text_rows, text_tables, tfds, unreadable
from experiments.data.dataset import Dataset
from experiments.data.options import ReadingOptions
from experiments.data.text_rows import Row
from experiments.data.texts import OtherInputs

# Features that are one text, a heading and what is below it, in this order.
_JOINED = (('title', 'description'), ('title', 'content'), ('title', 'text'))
_LABEL = 'label'


def load(name: str, directory: Path, options: ReadingOptions) -> Dataset:
    """Read a prepared data set of texts.

    Args:
        name: TFDS's name, such as ``ag_news_subset`` or ``glue/sst2``.
        directory: the directory of prepared data sets.
        options: ``text_column``, ``label_column`` and ``bad_files_limit``.

    Raises:
        OtherInputs: it has images.
        UserError: no such data set, it is not prepared and cannot be prepared here, it has no texts with classes or
            several of them (the features are named), or too many records are unreadable (named).
    """
    builder = tfds.prepared_builder(name, directory)
    features = builder.info.features
    texts = text_columns(name, builder.info, options.text_column)
    label = _label_column(name, features, options.label_column, builder.info.supervised_keys)
    if 'train' not in builder.info.splits:
        raise UserError(f'tfds:{name} has no split named train but {", ".join(builder.info.splits)}')
    splits = [split for split in ('train', 'validation', 'test') if split in builder.info.splits]
    sources = {split: builder.as_data_source(split) for split in splits}
    rows = []
    with display.progress() as bar:
        task = bar.add_task('reading texts', total=sum(map(len, sources.values())), note='', brief=True)
        for split, source in sources.items():
            for position, found in enumerate(tfds.read_all(source, _reader(texts, label))):
                rows.append(_row(tfds.record_id(split, position), split, found))
                bar.advance(task)
    others = sorted({*tfds.features_of(features, 'Text')} - {*texts})
    guessed = f'the features {" and ".join(texts)} are joined by a space' if len(texts) > 1 else ''
    if others and not guessed:
        guessed = f'the feature {texts[0]} is the text, as TFDS says, not {listed(others)}'
    return text_rows.dataset_of(
        f'tfds:{name}',
        rows,
        f'TFDS {builder.info.full_name}, {" + ".join(texts)}',
        options,
        classes=tuple(features[label].names),
        by_text=False,
        guessed=(guessed,) if guessed and not options.text_column else (),
    )


def _reader(texts: Sequence[str], label: str) -> Callable[[Any], tuple[list[str], int]]:
    return lambda record: (texts_of(record, texts), int(record[label]))


def texts_of(record: Any, columns: Sequence[str]) -> list[str]:
    """The texts of a record."""
    values = [record[column] for column in columns]
    return [each.decode() if isinstance(each, bytes) else each for each in values]


def _row(example: str, split: str, found: tuple[list[str], int] | Exception) -> Row:
    if isinstance(found, Exception):
        return Row(example, split, problem=unreadable.reason(found))
    texts, label = found
    return Row(example, split, text_tables.joined(texts), label)


def text_columns(name: str, info: Any, wanted: str) -> tuple[str, ...]:
    """The features of text that are read.

    Args:
        name: of the data set.
        info: TFDS's, whose ``supervised_keys`` may say which of several is the input.
        wanted: config key ``text_column``.

    Raises:
        OtherInputs, UserError: see ``load``.
    """
    features = info.features
    there = tfds.features_of(features, 'Text')
    if not there or not tfds.features_of(features, 'ClassLabel'):
        if tfds.features_of(features, 'Image'):
            raise OtherInputs(f'tfds:{name} has images')
        raise UserError(f'tfds:{name} has no texts with a class; its features are {", ".join(features)}')
    if wanted:
        return text_tables.columns_of(wanted, 'text_column', there, f'tfds:{name}')
    if len(there) == 1:
        return (there[0],)
    known = next((pair for pair in _JOINED if {*pair} == {*there}), None)
    if known is None:
        known = next(((each,) for each in (info.supervised_keys or ())[:1] if each in there), None)
    if known is None:
        raise UserError(
            f'tfds:{name} has several features of text ({", ".join(there)}); choose with --config.text_column='
            f'{there[0]}, or several with commas between, which are joined by spaces'
        )
    return known


def _label_column(name: str, features: Mapping[str, Any], wanted: str, supervised_keys: Sequence[str] | None) -> str:
    there = tfds.features_of(features, 'ClassLabel')
    if wanted:
        return text_tables.column_of(wanted, 'label_column', there, f'tfds:{name}')
    for choice in (*(supervised_keys or ())[1:2], _LABEL):
        if choice in there:
            return choice
    if len(there) > 1:
        raise UserError(f'tfds:{name} has several classes ({", ".join(there)}); choose with --config.label_column')
    return there[0]
