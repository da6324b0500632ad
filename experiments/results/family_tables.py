"""The tables across data sets, as texts, with the notes that explain them; and as a section of ``table.md``."""

import dataclasses
import itertools
import math
from collections.abc import Sequence

from experiments.results import markdown_text, tables
from experiments.results.aggregates import LEVEL, Aggregate
from experiments.results.axes import settings_in_words
from experiments.results.families import AcrossDatasets, Comparison, Ranking, across_datasets
from experiments.results.markdown_text import escaped
from experiments.results.statistics import least_sign_flip_p

# What is left out is named, up to this number.
_MOST_NAMES = 8
ABOUT_LINES = (
    'Ranks are among all lines of a regime, and 1 is the best. "Leave one out": the lowest and the highest average '
    'rank with any one data set left out. "Mean score": mean of the log odds, half an example being added to the right '
    'and to the wrong ones, turned back into per cent.'
)


@dataclasses.dataclass(frozen=True)
class TextTable:
    """A table whose last columns are numbers.

    Attributes:
        title: what it shows.
        labels: titles of its text columns.
        numbers: titles of the others.
        rows: their texts.
    """

    title: str
    labels: list[str]
    numbers: list[str]
    rows: list[list[str]]


def lines(ranking: Ranking) -> TextTable:
    """The lines of a regime: ranks, mean on the logit scale, and spread over data sets."""
    known = [line.results[0] for line in ranking.lines]
    labels = ['backbone', 'weights', *tables.differing_settings(known)]
    return TextTable(
        f'lines of {ranking.name} over {len(ranking.datasets)} data sets',
        [*labels, 'family'],
        ['average rank', 'leave one out', 'mean score', 'min ← median → max'],
        [
            [
                *tables.label_texts(each, labels),
                line.family or '–',
                f'{line.rank:.2f}',
                f'{line.lowest:.2f}–{line.highest:.2f}',
                f'{100 * line.score:.1f}',
                line.spread.text(),
            ]
            for each, line in zip(known, ranking.lines, strict=True)
        ],
    )


def comparisons(found: Sequence[Comparison]) -> TextTable:
    """Family against family: a row per kind of lines and pair of families."""
    return TextTable(
        'families of backbones over data sets',
        ['regime', 'weights', 'families'],
        ['lines', 'scores', 'difference of logits', 'odds', 'better on', 'data sets', 'p', 'p, adjusted'],
        [
            [
                each.kind.method,
                each.kind.weights,
                versus(each),
                ' / '.join(map(str, each.lines)),
                ' / '.join(f'{100 * score:.1f}' for score in each.scores),
                signed(each.difference),
                f'× {math.exp(each.difference):.2f}',
                ' / '.join(map(str, each.wins)),
                str(len(each.datasets)),
                p_text(each.p_value),
                p_text(each.p_adjusted),
            ]
            for each in found
        ],
    )


def differences(found: Sequence[Comparison]) -> TextTable:
    """The differences that are tested: a row per data set, a column per comparison."""
    datasets = list(dict.fromkeys(name for each in found for name in each.datasets))
    values = [dict(zip(each.datasets, map(float, each.differences), strict=True)) for each in found]
    several = len({each.families for each in found}) > 1
    return TextTable(
        'difference of logits on each data set',
        ['data set'],
        [f'{each.kind.text}, {versus(each)}' if several else each.kind.text for each in found],
        [[name, *(signed(of[name]) if name in of else '–' for of in values)] for name in datasets],
    )


def versus(comparison: Comparison) -> str:
    """The two families, the second of which is subtracted."""
    return ' − '.join(comparison.families)


def signed(value: float) -> str:
    """A difference with its sign, to two decimals."""
    hundredths = round(100 * value)
    return f'{hundredths / 100:+.2f}'.replace('-', '−') if hundredths else '0.00'


def p_text(value: float) -> str:
    """A p-value with two digits."""
    return '< 0.001' if value < 0.001 else f'{value:.2g}'


def note_on_lines(ranking: Ranking) -> str:
    """With which labels the scores of a regime are, and which of its lines are left out."""
    share = (
        ranking.labels[0]
        if len({*ranking.labels}) == 1
        else '; '.join(f'{name}: {labels}' for name, labels in zip(ranking.datasets, ranking.labels, strict=True))
    )
    text = f'Test scores with the most labels that the regime has on each data set ({share}).'
    if ranking.left_out:
        names = [f'{_name(each)} (not on {_some(missing)})' for each, missing in ranking.left_out]
        text += f' Left out, because not all data sets have them: {_some(names)}.'
    return text


def note_on_comparisons(found: Sequence[Comparison]) -> str:
    """How families were compared, and what that cannot show."""
    adjusted = f', adjusted by Holm’s method for the {len(found)} comparisons' if len(found) > 1 else ''
    return (
        'The score of a family on a data set is the mean over its lines, taken of their log odds; "odds" is how many '
        'times those of the first family are those of the second. Pretrained are compared with pretrained, random '
        'weights with random ones. p is that of a permutation test over data sets, in which chance gives each '
        f'difference its sign{adjusted}. It says something of other data sets with these backbones, not of other '
        'backbones.'
    )


def too_few(found: Sequence[Comparison]) -> str:
    """The sentence that says where no difference could be significant, however large; empty if it could everywhere."""
    hopeless = [each for each in found if not each.can_be_significant]
    if not hopeless:
        return ''
    counts = sorted({len(each.datasets) for each in hopeless})
    least = ' and '.join(f'{p_text(least_sign_flip_p(count))} with {count} data sets' for count in counts)
    adjusted = f', before it is adjusted for {len(found)} comparisons' if len(found) > 1 else ''
    names = '' if len(hopeless) == len(found) else f' of {_some([each.kind.text for each in hopeless])}'
    enough = next(count for count in itertools.count(1) if len(found) * least_sign_flip_p(count) < LEVEL)
    return (
        f'There are too few data sets for a significant difference{names}, however large it is: p is at least '
        f'{least}{adjusted}. With {enough} data sets it could be below 0.05.'
    )


def left_out(found: AcrossDatasets) -> str:
    """What is not among the families, and why; empty if everything is."""
    sentences = []
    if found.one_sided:
        names = [f'{kind.text} (only {family})' for kind, family in found.one_sided]
        sentences.append(f'Not compared, because no other family has such lines: {_some(names)}.')
    if found.unknown:
        sentences.append(f'In no family that this version knows: {_some(found.unknown)}.')
    if found.single:
        sentences.append(f'Left out, because there is only one data set: {_some(found.single)}.')
    return ' '.join(sentences)


def _name(aggregate: Aggregate) -> str:
    return ' · '.join([aggregate.variant.label, *settings_in_words(aggregate.settings)])


def _some(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMES
    return ', '.join(names[:_MOST_NAMES]) + (f' and {more} more' if more > 0 else '')


def markdown(aggregates: Sequence[Aggregate]) -> str:
    """A section of ``table.md``; empty if no regime has several data sets."""
    found = across_datasets(aggregates)
    if found is None:
        return ''
    parts = ['', '### Across data sets', '']
    if found.comparisons:
        parts += [*_table(comparisons(found.comparisons)), *_table(differences(found.comparisons))]
        parts += [note_on_comparisons(found.comparisons), '']
    for sentences in (too_few(found.comparisons), left_out(found)):
        parts += [escaped(sentences), ''] if sentences else []
    for ranking in found.rankings:
        parts += _table(lines(ranking)) if ranking.lines else [f'{escaped(ranking.name)}:', '']
        parts += [escaped(note_on_lines(ranking)), '']
    parts += [ABOUT_LINES, '']
    return '\n'.join(parts)


def _table(table: TextTable) -> list[str]:
    lines = markdown_text.table([*table.labels, *table.numbers], table.rows, len(table.labels))
    return [f'{escaped(table.title[0].upper() + table.title[1:])}:', '', *lines, '']
