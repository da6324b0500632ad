"""Which parameters trained, and which were frozen."""

from experiments.results.page import markup
from experiments.results.page.content import Phases, Report
from experiments.results.page.markup import Child, Markup, element


def section(report: Report) -> Markup:
    """A line per backbone and regime: numbers of parameters, and the freezing rules of each phase."""
    lines: dict[tuple[str, str, str, bool], list[Child]] = {}
    for _, row in report.rows:
        backbone, regime, head = row.cell.variant.backbone, row.cell.regime, row.cell.head
        # A head on stored features has its own values under its regime's name, and no rules.
        on_features = regime in row.config
        if (backbone, regime, head, on_features) in lines:
            continue
        trained, all_of_it = row.costs['trainable_parameters'], row.costs['parameters']
        phases = () if on_features else report.rules.get((backbone, regime), ())
        lines[backbone, regime, head, on_features] = [
            markup.name(backbone, 60),
            markup.name(' · '.join(filter(None, (head, regime))), 60),
            _words(phases) if phases else 'a head on stored features; the backbone is frozen' if on_features else '–',
            '–' if trained is None else f'{trained:,}',
            '–' if all_of_it is None else f'{all_of_it:,}',
        ]
    header = ['backbone', 'regime', 'freezing rules, the first that matches a parameter', 'trained', 'in the backbone']
    table = markup.table(header, [lines[key] for key in sorted(lines)], numbers=2)
    note = element(
        'p', 'Numbers of parameters; those that trained include neck and head. The running statistics of a frozen '
        'BatchNorm are frozen with it.', class_='note',
    )  # fmt: skip
    return markup.escaped([element('div', table, class_='limited'), note])


def _words(phases: Phases) -> Markup:
    """Each phase with its rules in their order."""
    return element(
        'ul',
        [
            element(
                'li',
                f'{phase.get("phase", "")}: ' if len(phases) > 1 else None,
                [
                    [
                        ', ' if index else None,
                        element('code', rule['pattern']),
                        f' {rule["state"]} ({rule["parameters"]:,})',
                    ]
                    for index, rule in enumerate(phase['rules'])
                ],
            )
            for phase in phases
        ],
        class_='plain',
    )
