"""What was compared, on which data, and with which command."""

from collections.abc import Sequence

from experiments.data import record
from experiments.results.aggregates import Aggregate
from experiments.results.page import markup
from experiments.results.page.content import Report
from experiments.results.page.markup import Child, Markup, element


def section(report: Report) -> Markup:
    """Numbers of what was compared, the data sets with their account, what was trained, and failed cells."""
    facts = element(
        'dl',
        [element('div', element('dt', name), element('dd', value)) for name, value in _facts(report)],
        class_='facts',
    )
    parts = [facts, element('h3', 'Data sets'), _datasets(report)]
    if report.failures:
        rows = [[markup.name(each.label), each.error] for each in report.failures]
        parts += [element('h3', 'Cells that failed'), markup.table(['cell', 'error'], rows)]
    return markup.escaped([*parts, element('h3', 'Commands'), _commands(report)])


def _commands(report: Report) -> Markup:
    """Those that computed the results, and the one that writes the page again."""
    lines = dict.fromkeys(line for workdir in report.workdirs for line in report.commands.get(workdir, ()))
    computed = [element('pre', element('code', line), class_='command') for line in lines]
    again = element('p', 'This page is written again by ', element('code', report.command), '.', class_='note')
    return markup.escaped([computed, again])


def _facts(report: Report) -> list[tuple[str, Child]]:
    cells = [row.cell for _, row in report.rows]
    seeds = sorted({cell.seed for cell in cells})
    counted = [
        ('results', len(cells)),
        ('failed', len(report.failures)),
        ('not finished', report.missing.cells),
        ('lines of the table', len(report.aggregates)),
        ('data sets', len(report.datasets)),
        ('backbones', len({cell.variant for cell in cells})),
        ('regimes', len({cell.regime for cell in cells})),
        ('seeds', len(seeds)),
    ]
    return [(name, f'{count:,}') for name, count in counted if count]


def _datasets(report: Report) -> Markup:
    rows = []
    for name in report.datasets:
        members = [aggregate for aggregate in report.aggregates if aggregate.dataset == name]
        data = max((each.data for each in members), key=lambda data: data['train_examples'] or 0)
        account = _account(members, data['provenance'])
        # Of a share or of shots, a row counts what it was given; the record counts the data set.
        recorded = [record.training_examples(workdir, row.cell.dataset) for workdir, row in members[0].members]
        counts = [
            max((each for each in recorded if each), default=data['train_examples']),
            data['validation_examples'],
            data['test_examples'],
            data['skipped'],
        ]
        numbers = ['–' if count is None else f'{count:,}' for count in counts]
        rows.append([markup.name(name, 32), members[0].metric, account, data['fingerprint'], *numbers])
    header = ['data set', 'metric', 'account', 'fingerprint', 'train', 'validation', 'test', 'left out']
    return markup.table(header, rows, numbers=4, class_='fluid')


def _account(members: Sequence[Aggregate], provenance: str) -> Child:
    """What the commands said of a data set; the provenance of the results alone where nothing else is kept.

    Args:
        members: the lines of the data set.
        provenance: that of the rows, which know what a pass could not read.
    """
    inputs = f'{members[0].noun}s'
    places = dict.fromkeys((workdir, row.cell.dataset) for each in members for workdir, row in each.members)
    found = dict.fromkeys(line for place in places for line in record.account_lines(*place, inputs))
    if not found:
        return provenance
    kinds: dict[str, dict[str, None]] = {}
    for line in found:
        kinds.setdefault(line.kind, {})[provenance if line.kind == 'splits' else line.text] = None
    lines = [(kind, text) for kind, texts in kinds.items() for text in texts]
    return element(
        'ul', [element('li', element('span', kind, ': ', class_='quiet'), text) for kind, text in lines], class_='plain'
    )
