"""The account of a data set: what was read, what was left out and why, and what was guessed.

Every command prints it before it computes, and keeps it with its results.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from rich.console import Group
from rich.markup import escape
from rich.table import Table

from backbones.errors import listed
from experiments.cli import display
from experiments.data import contents, texts
from experiments.data.truth import Boxes, Masks

if TYPE_CHECKING:
    from experiments.data.dataset import Dataset

_SPLITS = ('train', 'validation', 'test')
_MOST_CLASSES = 12
# Names of what was left out that files of results keep.
_MOST_NAMES = 100


@dataclasses.dataclass(frozen=True)
class Account:
    """What was met while a data set was read.

    Attributes:
        sizes: the sizes of the images, or the number and lengths of the texts, in words.
        kinds: kind of image (``'RGB'``, ``'16-bit grey'``, …) → number.
        stored: how images are brought to the size in which they are stored, in words; empty for texts.
        rules: what was decided for files that leave a choice, such as the scale of deep grey images, or what is kept of
            texts.
        left_out: kind of what is not used → names, with a reason where each has its own.
        guessed: how something was understood that could have meant something else.
        noticed: what may need attention, such as duplicates.
    """

    sizes: str
    kinds: Mapping[str, int]
    stored: str
    rules: tuple[str, ...] = ()
    left_out: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    guessed: tuple[str, ...] = ()
    noticed: tuple[str, ...] = ()


def sizes_in_words(sizes: Mapping[tuple[int, int], int]) -> str:
    """Sizes ``(width, height)`` and their numbers as a sentence."""
    if len(sizes) == 1:
        ((width, height),) = sizes
        return f'all {width}x{height}'
    ordered = sorted(sizes, key=lambda size: size[0] * size[1])
    (common, count), total = Counter(sizes).most_common(1)[0], sum(sizes.values())
    text = f'{len(sizes):,} sizes, from {_size(ordered[0])} to {_size(ordered[-1])}'
    return f'{text}, most often {_size(common)} ({count:,} of {total:,})' if count > 1 else text


def _size(size: tuple[int, int]) -> str:
    return f'{size[0]}x{size[1]}'


def counts(dataset: 'Dataset') -> dict[str, list[int]]:
    """Split → number of examples of each class; for a dense task see ``contents``."""
    return {
        split: np.bincount(dataset.targets[dataset.splits[split]], minlength=len(dataset.classes)).tolist()
        for split in _SPLITS
        if split in dataset.splits
    }


def as_json(dataset: 'Dataset') -> dict[str, Any]:
    """Everything that ``table`` shows, for the files of a result; long lists of names are cut."""
    examples = {'examples': counts(dataset)} if dataset.truth is None else contents.as_json(dataset)
    return examples | _met(dataset)


def _met(dataset: 'Dataset') -> dict[str, Any]:
    """What ``lines`` takes."""
    account = dataset.account
    found = {'provenance': dataset.provenance}
    if account is None:
        return found
    return found | {
        'sizes': account.sizes,
        'kinds': dict(account.kinds),
        'stored': account.stored,
        'rules': list(account.rules),
        'left_out': {
            kind: {'count': len(names), 'names': list(names[:_MOST_NAMES])} for kind, names in account.left_out.items()
        },
        'guessed': list(account.guessed),
        'noticed': list(account.noticed),
    }


class Line(NamedTuple):
    """A line of the account under the table of classes.

    Attributes:
        kind: what it is about, such as ``'left out'``.
        text: what it says.
    """

    kind: str
    text: str

    @property
    def is_for_attention(self) -> bool:
        """Whether it may need somebody's attention."""
        return self.kind in ('left out', 'guessed', 'noticed')


def lines(document: Mapping[str, Any], inputs: str) -> list[Line]:
    """The account in lines.

    Args:
        document: what ``as_json`` gave.
        inputs: what the inputs of the data set are.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: it is something else.
    """
    found = []
    if 'sizes' in document:
        kinds = sorted(document['kinds'].items(), key=lambda each: -each[1])
        met = '; '.join(filter(None, (document['sizes'], ', '.join(f'{count:,} {kind}' for kind, count in kinds))))
        found.append(Line(inputs, met))
        if stored := '; '.join(filter(None, (document['stored'], *document['rules']))):
            found.append(Line('stored', stored))
    found.append(Line('splits', document['provenance']))
    for kind, names in document.get('left_out', {}).items():
        unnamed = [''] * (names['count'] - len(names['names']))
        found.append(Line('left out', f'{kind}: {names["count"]:,} ({listed([*names["names"], *unnamed])})'))
    for kind in ('guessed', 'noticed'):
        found += [Line(kind, text) for text in document.get(kind, ())]
    return found


def _lines(dataset: 'Dataset') -> list[Line]:
    return lines(_met(dataset), texts.inputs_of(dataset))


def show(dataset: 'Dataset', inputs: Sequence[str] = ()) -> None:
    """Print the account of a data set.

    Args:
        inputs: how images reach the input of each model, in words.
    """
    display.console.print(table(dataset, inputs))


def show_notes(dataset: 'Dataset') -> None:
    """Print the part of the account that metrics depend on: how it is split, what was left out, guessed and noticed."""
    of_results = [line for line in _lines(dataset) if line.kind == 'splits' or line.is_for_attention]
    display.console.print(_grid(of_results))


def table(dataset: 'Dataset', inputs: Sequence[str] = ()) -> Group:
    """The account as it is printed: classes and splits, then what was met."""
    found = _lines(dataset)
    place = next(place for place, line in enumerate(found) if line.kind == 'splits')
    found[place:place] = [Line('' if number else 'input', text) for number, text in enumerate(inputs)]
    return Group(_classes(dataset), _grid(found))


def _classes(dataset: 'Dataset') -> Table:
    """One row for each class: number of examples or objects, or share of the pixels, in each split."""
    truth = dataset.truth
    if isinstance(truth, Masks):
        shares = {split: contents.shares(each).tolist() for split, each in contents.per_class(dataset).items()}
        result = _rows(dataset, shares, lambda share: f'{share:.1%}' if share >= 0.001 or not share else '< 0.1%')
        of_splits = {split: contents.ignored(truth, dataset.splits[split]) for split in shares}
        result.add_row('of all: ignored', *(f'{share:.1%}' for share in of_splits.values()))
    elif isinstance(truth, Boxes):
        objects = {split: each.tolist() for split, each in contents.per_class(dataset).items()}
        result = _rows(dataset, objects, '{:,}'.format)
        result.add_row(_classes_in_words(dataset), *(f'{sum(each):,}' for each in objects.values()))
        sizes = [contents.object_sizes(truth, dataset.splits[split]) for split in objects]
        for size in ('small', 'medium', 'large'):
            result.add_row(size, *(f'{each[size]:,}' for each in sizes))
        result.add_section()
        empty = [contents.without_objects(truth, dataset.splits[split]) for split in objects]
        result.add_row('images without objects', *(f'{each:,}' for each in empty))
    else:
        examples = counts(dataset)
        result = _rows(dataset, examples, '{:,}'.format)
        result.add_row(_classes_in_words(dataset), *(f'{sum(each):,}' for each in examples.values()))
        return result
    result.add_row('images', *(f'{len(dataset.splits[split]):,}' for split in _SPLITS if split in dataset.splits))
    return result


def _classes_in_words(dataset: 'Dataset') -> str:
    return f'{len(dataset.classes):,} class{"es" if len(dataset.classes) != 1 else ""}'


def _rows(dataset: 'Dataset', found: Mapping[str, Sequence[Any]], in_words: Callable[[Any], str]) -> Table:
    """A table with one row for each class, or for most of them, and an open last section."""
    result = Table(title=escape(dataset.name), title_justify='left')
    result.add_column('class', overflow='fold')
    for split in found:
        result.add_column(split, justify='right')
    names = dataset.classes
    most = len(names) if len(names) <= _MOST_CLASSES else _MOST_CLASSES - 2
    # Where not all are shown, those that occur come first: of VOC's 20, a data set may have two.
    absent = [not any(each[index] for each in found.values()) for index in range(len(names))]
    ranked = sorted(range(len(names)), key=absent.__getitem__)
    shown, others = sorted(ranked[:most]), ranked[most:]
    for index in shown:
        # A class without examples in a split is seldom meant.
        row = (in_words(each[index]) if each[index] else '[yellow]0[/]' for each in found.values())
        result.add_row(escape(names[index]), *row)
    if others:
        rest = [(min(each[index] for index in others), max(each[index] for index in others)) for each in found.values()]
        ends = [(in_words(low), in_words(high)) for low, high in rest]
        result.add_row(
            f'{len(others):,} more',
            *(f'{low} each' if low == high else f'{low} to {high}' for low, high in ends),
        )
    result.add_section()
    return result


def _grid(found: Iterable[Line]) -> Table:
    result = Table.grid(padding=(0, 2))
    result.add_column(no_wrap=True)
    result.add_column(overflow='fold')
    for line in found:
        result.add_row(f'[yellow]{line.kind}[/]' if line.is_for_attention else line.kind, escape(line.text))
    return result


def number_of(count: int, what: str = 'image') -> str:
    """Such as ``'1 image'`` or ``'2 images'``."""
    return f'{count:,} {what}{"" if count == 1 else "s"}'
