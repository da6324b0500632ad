"""The runs index: one HTML file with a line for every run below a directory, newest first."""

import datetime
import math
import os
import shlex
import urllib.parse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from experiments.results.best_settings import Best
from experiments.results.config_differences import Difference
from experiments.results.page import build, markup, sparkline
from experiments.results.page.markup import Child, Markup, element
from experiments.results.runs import Run

# Values that have a column of their own.
_SHOWN = frozenset({'task', 'dataset', 'datasets', 'backbone', 'backbones', 'regime', 'regimes'})
_CHIPS = 3
# Characters of an error: what stands in the lines that are always seen, and what is in the page at all.
_SHORT_REASON, _REASON = 100, 1000
_ORDER = ('under way', 'finished', 'interrupted', 'failed', 'not started', 'unreadable')


def html(runs: Sequence[Run], root: Path, output: Path, written: datetime.datetime) -> str:
    """The page.

    Args:
        runs: in their order.
        root: the directory that they lie in.
        output: the directory that the page will lie in; its links begin there.
        written: the present time.
    """
    command = f'python -m experiments.report --runs {shlex.quote(str(root))}'
    when = element('time', f'{written:%Y-%m-%d %H:%M %Z}'.strip(), datetime=written.isoformat('T', 'minutes'))
    under = markup.escaped(
        [f'{_count(len(runs), "run")} in ', markup.name(root), ' as of ', when, '. The same command writes it again: ',
         element('code', command)]
    )  # fmt: skip
    if runs:
        lines = [_line(run, output, written.timestamp()) for run in runs]
        head = element('thead', element('tr', [_heading(*column) for column in _COLUMNS]))
        table = element('table', head, element('tbody', lines), class_='runs')
        content = markup.escaped([_controls(runs), table, element('p', _RULES, class_='note')])
    else:
        content = element(
            'p', 'There is no work directory of experiments.ablate or experiments.train below this directory.'
        )
    title = f'Runs in {root.resolve().name}'
    return build.document(title, under, [('runs', '', content)], extra=('runs_index',))


_RULES = (
    'Under way: a process of this machine holds the lock of the work directory, or, on a file system that other '
    'machines may share, the last write is recent against the pauses between earlier ones. Best: the setting with the '
    'highest validation score, and what it has on the test split, both as means over its seeds. Curve: the validation '
    'score over the epochs; of an ablation, the test score of the best setting with each share of the labels. '
    'Differences: config values that most other runs of the same kind and task do not have. Duration: from the first '
    'file of the run to the last, pauses included. '
    'Pretraining: from random weights, or another run here starts from its weights.'
)
# Title, what it is sorted by first, and classes.
_COLUMNS = (
    ('run', 'name', ''),
    ('status', 'changed', ''),
    ('what', 'text', ''),
    ('best', 'score', ''),
    ('curve', '', ''),
    ('differences', 'differences', ''),
    ('duration', 'seconds', 'number'),
    ('size', 'bytes', 'number'),
)


def _heading(title: str, key: str, kind: str) -> Markup:
    inside = element('button', title, type='button', data_sort=key, class_='sort') if key else title
    return element('th', inside, scope='col', class_=kind or None, data_label=title)


def _controls(runs: Sequence[Run]) -> Markup:
    statuses, tasks = Counter(run.status for run in runs), Counter(run.task for run in runs if run.task)
    kinds = Counter(run.kind for run in runs)

    def choice(label: str, key: str, counts: Sequence[tuple[str, int]]) -> Markup:
        options = [element('option', f'all {len(runs):,}', value='')]
        options += [element('option', f'{name} ({count:,})', value=name) for name, count in counts]
        return element('label', element('span', label), element('select', options, data_filter=key))

    search = element('input', type='search', data_filter='text', placeholder='name, backbone, key=value …')
    return element(
        'div',
        element('label', element('span', 'search'), search),
        choice('status', 'status', [(name, statuses[name]) for name in _ORDER if statuses[name]]),
        choice('task', 'task', sorted(tasks.items())),
        choice('kind', 'kind', sorted(kinds.items())),
        element('output', aria_live='polite', class_='quiet'),
        class_='controls',
        hidden=True,
    )


def _line(run: Run, output: Path, now: float) -> Markup:
    chips = [each for each in run.differences if each.key not in _SHOWN]
    searched = ' '.join(
        (run.name, run.status, run.kind, run.task, *run.datasets, *run.backbones, *run.weights, *run.regimes,
         *(f'{each.key}={_value(each.value)}' for each in run.differences))
    )  # fmt: skip
    score = run.best[0].validation if run.best and run.best[0].validation is not None else None
    cells: tuple[tuple[str, Child], ...] = (
        ('run', _name(run, output)),
        ('status', _status(run, now)),
        ('what', _what(run)),
        ('best', [_best(best, run) for best in run.best] or _nothing()),
        ('curve', _curve(run)),
        ('differences', _differences(chips, run.differences)),
        ('duration', duration(run.seconds) if run.seconds else _nothing()),
        ('size', size(run.size)),
    )
    kinds = {title: kind for title, _, kind in _COLUMNS}
    return element(
        'tr',
        [
            element(
                'th' if title == 'run' else 'td', content, data_label=title, class_=kinds[title] or None,
                data_empty=content == _nothing(),
                scope='row' if title == 'run' else None,
            )
            for title, content in cells
        ],
        data_status=run.status, data_task=run.task, data_kind=run.kind, data_text=searched.lower(), data_name=run.name,
        data_changed=f'{run.changed or 0:.0f}', data_score='' if score is None else f'{score:.6f}',
        data_differences=len(run.differences), data_seconds=f'{run.seconds or 0:.0f}', data_bytes=run.size,
    )  # fmt: skip


def _name(run: Run, output: Path) -> Markup:
    *above, tail = run.name.split('/')
    # A long path breaks between its parts.
    parts = [part for name in above for part in (markup.name(name), '/', element('wbr'))]
    name = markup.escaped([element('span', parts, class_='quiet') if above else None, markup.name(tail)])
    if run.report is not None:
        return element('a', name, href=_address(run.report, output))
    if run.status in ('not started', 'unreadable') or not run.best or run.best[0].test is None:
        return name  # there are no results to report yet
    command = f'python -m experiments.report --workdir {shlex.quote(str(run.path))}'
    return markup.escaped([name, element('details', element('summary', 'no report yet'), element('code', command))])


def _address(file: Path, output: Path) -> str:
    relative = os.path.relpath(file.absolute(), output.absolute())
    # A first part with a colon would be taken for a scheme.
    return './' + urllib.parse.quote(os.fsencode(relative.replace(os.sep, '/')))


def _status(run: Run, now: float) -> Markup:
    parts: list[Child] = [
        element('span', run.status, class_=f'badge {run.status.replace(" ", "-")}', title=run.reason or None)
    ]
    if run.status == 'under way' or (run.status == 'interrupted' and run.kind == 'ablation'):
        parts.append(element('div', _progress(run), class_='progress'))
    elif run.cells_done is not None:
        planned = run.cells_planned
        of = '' if planned in (None, run.cells_done) else f' of {planned:,}'
        parts.append(element('div', f'{run.cells_done:,}{of} cells', class_='quiet'))
    elif run.epoch is not None:
        parts.append(element('div', _progress(run), class_='progress'))
    if run.changed is not None:
        when = datetime.datetime.fromtimestamp(run.changed).astimezone()
        ago = element('time', f'{duration(max(0.0, now - run.changed))} ago', datetime=when.isoformat('T', 'seconds'),
                      title=f'{when:%Y-%m-%d %H:%M:%S %Z}')  # fmt: skip
        parts.append(element('div', ago, class_='quiet'))
    if run.status in ('failed', 'unreadable') and run.reason:
        parts.append(_reason(run.reason))
    return markup.escaped(parts)


def _reason(text: str) -> Markup:
    """Its first lines, and the whole on demand."""
    shown = markup.shortened(text, _REASON)
    if len(shown) < _SHORT_REASON:
        return element('div', shown, class_='reason')
    return element('details', element('summary', element('span', shown)), class_='reason')


def _progress(run: Run) -> Markup:
    parts: list[Child] = []
    if run.cells_done is not None:
        if run.cells_planned:
            parts += [_bar(run.cells_done / run.cells_planned), f'{run.cells_done:,} of {run.cells_planned:,} cells']
        else:
            parts.append(f'{run.cells_done:,} cells')
        if run.step is not None and run.status == 'under way':
            parts.append(f', step {run.step:,}')
        return markup.escaped(parts)
    if run.step is None:
        return markup.escaped('before its first evaluation' if run.status == 'under way' else '')
    if run.epoch is not None and run.epochs and run.status != 'finished':
        parts.append(_bar(run.epoch / run.epochs))
    if run.epoch is not None:
        parts.append(f'epoch {run.epoch:.4g}' + (f' of {run.epochs:.4g}' if run.epochs else '') + ', ')
    parts.append(f'step {run.step:,}' + (f' of {run.steps:,}' if run.steps and run.status != 'finished' else ''))
    return markup.escaped(parts)


def _bar(share: float) -> Markup:
    width = f'{100 * min(max(share, 0.0), 1.0):.0f}%'
    return element('span', element('span', style=f'width:{width}'), class_='bar', aria_hidden='true')


def _what(run: Run) -> Markup:
    rows = [
        element('div', ' · '.join(filter(None, (run.kind, run.task)))),
        element('div', _few(run.datasets), class_='quiet') if run.datasets else None,
        element('div', _few(run.backbones), ' · ', _few(run.regimes), class_='quiet') if run.backbones else None,
    ]
    return markup.escaped(rows) if run.status != 'unreadable' or run.task else _nothing()


def _few(names: Sequence[str]) -> Markup:
    shown = [_path(name, 40) for name in names[:3]]
    inside = [part for name in shown for part in (', ', name)][1:]
    more = f' and {len(names) - 3} more' if len(names) > 3 else None
    return element('span', inside, more, title=', '.join(names) if len(names) > 3 else None)


def _path(text: str, most: int) -> Markup:
    """A name that may break after each slash; see ``markup.name``."""
    *above, tail = markup.shortened(text, most).split('/')
    parts = [part for name in above for part in (name, '/', element('wbr'))]
    return element('bdi', parts, tail, title=text if len(text) > most else None)


def _best(best: Best, run: Run) -> Markup:
    values = [
        element('span', element('b', f'{100 * value:.1f}'), f' {split}')
        for split, value in (('validation', best.validation), ('test', best.test))
        if value is not None
    ]
    several = len(run.best) > 1
    return element(
        'div',
        element('div', [markup.name(best.dataset, 24), ' '] if several else None, best.metric, class_='quiet'),
        element('div', [part for value in values for part in (value, ' ')], class_='values'),
        element('div', best.label, class_='quiet') if run.kind == 'ablation' and not several else None,
        element('div', f'mean over {best.seeds} seeds', class_='quiet') if best.seeds > 1 else None,
        class_='best',
        title=best.label,
    )


def _curve(run: Run) -> Child:
    if not run.curve:
        return _nothing()
    metric, points = run.best[0].metric if run.best else 'score', run.curve
    if run.kind == 'ablation':
        ends = [
            f'{100 * y:.1f} with {f"{x:g} labels per class" if run.over == "shots" else f"{x:.0%} of the labels"}'
            for x, y in (run.curve[0], run.curve[-1])
        ]
        points = [(math.log(x), y) for x, y in run.curve]
        title = f'test {metric} of the best setting: {ends[0]}, {ends[1]}'
    else:
        title = f'validation {metric} over {len(run.curve)} evaluations, the last {100 * run.curve[-1][1]:.1f}'
    return sparkline.sparkline(points, title)


def _differences(chips: Sequence[Difference], everything: Sequence[Difference]) -> Child:
    if not everything:
        return _nothing()
    shown = [
        element('code', f'{each.key.rpartition(".")[2]}={markup.shortened(_value(each.value), 28)}',
                title=f'{each.key} = {_value(each.value)}', class_='chip')
        for each in chips[:_CHIPS]
    ]  # fmt: skip
    items = [
        element(
            'li',
            element('code', each.key),
            f' {_value(each.value)} ',
            element('span', 'they all differ' if each.usual is None else f'most others: {_value(each.usual)}',
                    class_='quiet'),
        )
        for each in everything
    ]  # fmt: skip
    details = element('details', element('summary', _count(len(everything), 'difference')), element('ul', items))
    return markup.escaped([*shown, details])


def _value(text: str) -> str:
    """JSON as people read it."""
    return text.replace('"', '') or "''"


def _nothing() -> Markup:
    return element('span', '–', class_='quiet')


def _count(number: int, what: str) -> str:
    return f'{number:,} {what}{"" if number == 1 else "s"}'


def duration(seconds: float) -> str:
    """Such as ``'40 s'``, ``'3 min'``, ``'2.5 h'`` and ``'12 days'``."""
    if seconds < 90:
        return f'{seconds:.0f} s'
    if seconds < 90 * 60:
        return f'{seconds / 60:.0f} min'
    if seconds < 48 * 3600:
        return f'{seconds / 3600:.2g} h'
    return f'{seconds / 86_400:.0f} days'


def size(count: int) -> str:
    """Bytes such as ``'12 kB'`` and ``'3.4 MB'``."""
    value, unit = float(count), 'B'
    for larger in ('kB', 'MB', 'GB', 'TB'):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f'{value:.3g} {unit}' if value < 100 else f'{value:.0f} {unit}'
