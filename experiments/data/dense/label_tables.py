"""Which value of masks is which class: from a file beside them, the user's names, or the values that are found."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from backbones.errors import UserError
from experiments.data.dense.mask_files import COLOUR, colour_value, value_in_words
from experiments.data.dense.mask_source import LabelTable
from experiments.data.truth import IGNORE

# Files that name the classes of masks: of many tools (CVAT: labelmap.txt, labelme: class_names.txt, CamVid:
# label_colors.txt, its copies elsewhere: class_dict.csv and codes.txt).
NAME_FILES = (
    'classes.txt', 'classes.csv', 'classes.json', 'class_names.txt', 'labelmap.txt', 'label_colors.txt',
    'class_dict.csv', 'codes.txt',
)  # fmt: skip
_COLOUR = r'(\d{1,3})[\s,;]+(\d{1,3})[\s,;]+(\d{1,3})'
_NAME_FIRST = re.compile(rf'^(.*?)[\s,;:]+{_COLOUR}(?:\s*:.*|[\s,;]*)$')
_COLOUR_FIRST = re.compile(rf'^{_COLOUR}[\s,;:]+(.+)$')


class NamedClass(NamedTuple):
    """A class that a file names, with its value and perhaps its colour."""

    value: int
    name: str
    colour: tuple[int, int, int] | None = None


class ClassNames(NamedTuple):
    """The classes that are named, and where.

    Attributes:
        source: name of the file or config key; empty if there is none.
        classes: in the order of their values.
    """

    source: str = ''
    classes: tuple[NamedClass, ...] = ()

    @property
    def by_colour(self) -> bool:
        """Whether they have colours."""
        return any(each.colour is not None for each in self.classes)


def class_names(root: Path, given: str = '') -> ClassNames:
    """The names of the classes of masks.

    Args:
        root: the folder in which a file may name them.
        given: names separated by commas, which come first.

    Raises:
        UserError: a file that names them cannot be understood, or a name or colour occurs twice.
    """
    if given:
        names = [name.strip() for name in given.split(',')]
        if not all(names):
            raise UserError(f"config key 'class_names' is {given!r}; expected names between its commas")
        return _without_doubles('class_names', [NamedClass(value, name) for value, name in enumerate(names)])
    for name in NAME_FILES:
        file = root / name
        if file.is_file():
            try:
                text = file.read_text(encoding='utf-8-sig')
                found = _from_json(text) if file.suffix == '.json' else _from_lines(text)
            except (OSError, ValueError) as error:
                raise UserError(f'{str(file)!r} does not name the classes of the masks: {error}') from None
            if found:
                return _without_doubles(name, found)
    return ClassNames()


def _without_doubles(source: str, found: Sequence[NamedClass]) -> ClassNames:
    for what, each in (
        ('name', [one.name for one in found]),
        ('value', [one.value for one in found]),
        ('colour', [one.colour for one in found if one.colour is not None]),
    ):
        twice = [value for place, value in enumerate(each) if value in each[:place]]
        if twice:
            raise UserError(f'the {what} {twice[0]!r} is given twice among the classes of {source}')
    return ClassNames(source, tuple(sorted(found)))


def _from_json(text: str) -> list[NamedClass]:
    found = json.loads(text)
    if isinstance(found, list) and all(isinstance(each, str) for each in found):
        return [NamedClass(value, name) for value, name in enumerate(found)]
    if isinstance(found, dict) and all(isinstance(each, str) for each in found.values()):
        if all(re.fullmatch(r'\d+', key) for key in found):
            return [NamedClass(int(key), name) for key, name in found.items()]
    elif isinstance(found, dict) and all(type(each) is int for each in found.values()):
        return [NamedClass(value, name) for name, value in found.items()]
    raise ValueError('expected a list of names, or an object of values and names')


def _from_lines(text: str) -> list[NamedClass]:
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith('#')]
    coloured = [_coloured(line) for line in lines]
    if not any(coloured):
        return [NamedClass(value, line) for value, line in enumerate(lines)]
    if coloured[0] is None:  # the heading of a table
        coloured, lines = coloured[1:], lines[1:]
    found = []
    for value, (each, line) in enumerate(zip(coloured, lines, strict=True)):
        if each is None:
            raise ValueError(f'the line {line!r} has no colour, and others have')
        found.append(NamedClass(value, *each))
    return found


def _coloured(line: str) -> tuple[str, tuple[int, int, int]] | None:
    if match := _COLOUR_FIRST.match(line):
        colour, name = match.groups()[:3], match.group(4)
    elif match := _NAME_FIRST.match(line):
        name, colour = match.group(1), match.groups()[1:4]
    else:
        return None
    red, green, blue = map(int, colour)
    return (name.strip(), (red, green, blue)) if max(red, green, blue) <= 255 else None


def label_table(
    counts: Mapping[int, int], first: Mapping[int, str], names: ClassNames, ignore_label: int, where: str
) -> LabelTable:
    """The class of each value that masks hold.

    255 is ignored, and so is ``ignore_label``; all other values up to the last class are classes, in their order.

    Args:
        counts: value → number of pixels in all masks.
        first: value → the first image that has it.
        names: of the classes, if there are any.
        ignore_label: another value that counts for nothing; -1: none.
        where: the folder in which a file would name the classes.

    Raises:
        UserError: colours without a table of them, or nothing but 0 and 255.
    """
    if names.by_colour:
        return _table_of_colours(names, ignore_label)
    coloured = [value for value in first if value >= COLOUR]
    if coloured:
        raise UserError(
            f'the mask of {first[coloured[0]]!r} is an RGB image ({value_in_words(coloured[0])}), and no file says '
            f"which colour is which class; name them in {where}/classes.txt, in lines such as 'road 128,64,128', or "
            'save masks as grey or palette PNG, whose values are the classes'
        )
    values = {value for value in counts if value not in (IGNORE, ignore_label)}
    if IGNORE in counts and values <= {0}:
        raise UserError(
            f'the masks in {where} hold nothing but 0 and 255, and 255 is what counts for nothing; if white is a '
            f"class, say so in {where}/classes.txt: 'background 0,0,0' and 'object 255,255,255'"
        )
    guessed = []
    if names.classes:
        last = max(each.value for each in names.classes)
        known = {each.value: each.name for each in names.classes}
        if 0 <= ignore_label <= last and max(values, default=0) == last + 1 and len(known) == last + 1:
            # As many names as there are values without the ignored one.
            others = [value for value in range(last + 2) if value != ignore_label]
            known = dict(zip(others, known.values(), strict=True))
            guessed.append(f'{names.source} names the values of masks without the ignored {ignore_label}')
    else:
        known = {value: f'class {value}' for value in range(max(values, default=0) + 1)}
    known = {value: name for value, name in sorted(known.items()) if value not in (ignore_label, IGNORE)}
    _check_number(known, max(counts, default=0))
    labels = {value: label for label, value in enumerate(known)}
    return LabelTable(tuple(known.values()), _ignoring(labels, ignore_label), tuple(guessed))


def _check_number(known: Mapping[int, str], largest: int) -> None:
    if len(known) > IGNORE:
        raise UserError(
            f'masks have {len(known):,} classes (their largest value is {largest:,}); at most {IGNORE} are possible'
        )


def _ignoring(labels: dict[int, int], ignore_label: int) -> dict[int, int]:
    ignored = {value: IGNORE for value in (IGNORE, ignore_label) if value >= 0 and value not in labels}
    return {**labels, **ignored}


def _table_of_colours(names: ClassNames, ignore_label: int) -> LabelTable:
    kept = [each for each in names.classes if each.value not in (ignore_label, IGNORE)]
    _check_number({each.value: each.name for each in kept}, len(names.classes))
    by_colour: dict[int, int] = {}
    # Grey images hold either the colours themselves, if all are grey, or the numbers of the lines.
    all_grey = all(each.colour is not None and len(set(each.colour)) == 1 for each in names.classes)
    for each in names.classes:
        assert each.colour is not None
        label = kept.index(each) if each in kept else IGNORE
        by_colour[colour_value(*each.colour)] = label
        by_colour[each.colour[0] if all_grey else each.value] = label
    if not all_grey:
        by_colour.setdefault(IGNORE, IGNORE)
    return LabelTable(tuple(each.name for each in kept), by_colour)
