"""Confusion matrices: of examples by their class, or of pixels."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from experiments.results.aggregates import Aggregate
from experiments.results.page import kept, markup
from experiments.results.page.content import Report
from experiments.results.page.markup import Child, Markup, element

# With more classes than this, a matrix is not legible, and the most confused pairs are listed.
MOST_CLASSES = 30
_PAIRS = 10
_MOST_LINES = 8
# Fields of all matrices together: a limit of the page's size.
_MOST_FIELDS = 12_000

Matrix = Int[np.ndarray, 'classes classes']


def section(report: Report) -> Markup | None:
    """The matrix of the best line of each data set, and of others to choose from; ``None`` if there is none."""
    options = []
    left = _MOST_FIELDS
    for place, dataset in enumerate(report.datasets):
        shown, note = kept.lines(report, dataset, _MOST_LINES)
        panels = []
        for name, line in zip(kept.names(shown), shown, strict=True):
            found = matrix(line)
            if found is None or (panels and left < found.size):
                continue
            left -= found.size if len(found) <= MOST_CLASSES else _PAIRS
            panels.append((name, _panel(line, found)))
        if panels:
            extra = element('p', note, class_='note') if note else None
            options.append((dataset, markup.escaped([markup.choice(f'confusion-{place}', 'line', panels), extra])))
    if not options:
        return None
    intro = element(
        'p',
        'Rows are the true class, columns the predicted one. A field says how many per cent of its row it has, and its '
        'tooltip how many those are. Counts of all seeds are added.',
    )
    return markup.escaped([intro, markup.choice('confusion-of', 'data set', options)])


def matrix(line: Aggregate) -> Matrix | None:
    """Examples or pixels by true class (rows) and predicted class (columns), of all seeds; ``None`` if not kept."""
    found = kept.classified(line)
    if found:
        count = max(int(max(each.targets.max(), each.predictions.max())) for each in found) + 1
        count = max(count, len(kept.classes(line)))
        pairs = np.concatenate([each.targets.astype(np.int64) * count + each.predictions for each in found])
        return np.bincount(pairs, minlength=count * count).reshape(count, count)
    matrices = [each['confusion'].sum(0, dtype=np.int64) for each in kept.arrays(line, ['confusion'])]
    return sum(matrices[1:], matrices[0]) if matrices else None


def confused(found: Matrix, most: int) -> list[tuple[int, int]]:
    """True and predicted class of the pairs that are confused most often, by the share of the true class."""
    shares = _shares(found)
    np.fill_diagonal(shares, 0)
    order = np.argsort(-shares, axis=None, kind='stable')[:most]
    pairs = [divmod(int(place), len(found)) for place in order]
    return [(true, predicted) for true, predicted in pairs if true != predicted and found[true, predicted]]


def _shares(found: Matrix) -> np.ndarray:
    return found / np.maximum(found.sum(1, keepdims=True), 1)


def _panel(line: Aggregate, found: Matrix) -> Markup:
    names = kept.classes(line, len(found))
    pairs = _pairs(found, names)
    if len(found) <= MOST_CLASSES:
        listed = element('div', element('p', 'The most confused pairs', class_='note'), pairs) if pairs else None
        return element('div', _table(found, names), listed, class_='beside')
    note = element('p', f'Of {len(found)} classes, the pairs that are confused most often.', class_='note')
    return markup.escaped([note, pairs or element('p', 'None is confused.')])


def _table(found: Matrix, names: Sequence[str]) -> Markup:
    shares = _shares(found)
    turned = 'turned' if max(map(len, names)) > 3 else None
    heads = [element('th', element('span', markup.name(name, 18), class_=turned), scope='col') for name in names]
    head = element('thead', element('tr', element('td', 'true ↓ predicted →', class_='corner'), heads))
    rows = []
    for true, name in enumerate(names):
        cells: list[Child] = [element('th', markup.name(name, 22), scope='row')]
        for predicted, other in enumerate(names):
            count, share = int(found[true, predicted]), float(shares[true, predicted])
            if not count:
                cells.append(Markup('<td></td>'))
                continue
            kinds = (
                ' '.join(['right'] * (true == predicted) + ['strong'] * (share > (0.5 if true == predicted else 0.25)))
                or None
            )
            cells.append(
                element(
                    'td',
                    f'{100 * share:.0f}' if share >= 0.005 else '·',
                    style=f'--s:{share:.2f}',
                    class_=kinds,
                    title=f'{count:,} of {found[true].sum():,} {markup.shortened(name, 30)} as '
                    f'{markup.shortened(other, 30)}',
                )
            )
        rows.append(element('tr', cells))
    return element(
        'div', element('table', head, element('tbody', rows), class_='matrix'), class_='scroll', tabindex=0,
        role='region', aria_label='Confusion matrix in per cent of each true class',
    )  # fmt: skip


def _pairs(found: Matrix, names: Sequence[str]) -> Markup | None:
    shares = _shares(found)
    rows = [
        [markup.name(names[true], 40), markup.name(names[predicted], 40), f'{found[true, predicted]:,}',
         f'{100 * shares[true, predicted]:.1f}']
        for true, predicted in confused(found, _PAIRS)
    ]  # fmt: skip
    return markup.table(['true class', 'predicted', 'count', '% of the true class'], rows, numbers=2) if rows else None
