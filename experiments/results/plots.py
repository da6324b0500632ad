"""Scores against cost."""

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from experiments.results.aggregates import Aggregate, datasets, tokens_in_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LINES = ('--', ':', '-.')
_MARKERS = ('o', 's', '^', 'D', 'v', 'P', 'X', '*', 'p', 'h')


def _scale_decently(axis: 'Axes', gigaflops: Sequence[float]) -> None:
    """Show at least a decade of costs, so that equal ones look equal, and ticks without exponents."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter  # only a report needs it

    positive = [value for value in gigaflops if value > 0] or [1.0]
    low, high = min(positive), max(positive)
    margin = max(1.5, (10 * low / high) ** 0.5)
    axis.set_xlim(low / margin, high * margin)
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:g}'))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.margins(y=0.08)


def _short(text: str, most: int = 40) -> str:
    """A text, without its beginning if it is too long for a plot."""
    return text if len(text) <= most else f'…{text[1 - most :]}'


def score_against_cost(aggregates: Sequence[Aggregate]) -> 'Figure':
    """Plot test scores with all training labels against GFLOP per image or text, one panel per data set.

    Each variant has a colour, and each regime with its settings a marker. Bars are the intervals of the table. A hollow
    marker means that a selected hyper-parameter lies at an edge of its grid. Raw pixels, which cost no FLOPs, are a
    line at their score, with a style for each marker. Entries of unknown cost (training runs of older versions) are
    omitted.
    """
    from matplotlib.figure import Figure  # only a report needs it

    names = datasets(aggregates)
    variants = list(dict.fromkeys(aggregate.variant for aggregate in aggregates))
    regimes = list(dict.fromkeys(aggregate.method for aggregate in aggregates))
    free = dict.fromkeys(each.method for each in aggregates if each.costs['flops_per_image'] == 0)
    styles = dict(zip(free, itertools.cycle(_LINES), strict=False))
    shown: list[Aggregate] = []
    figure = Figure(figsize=(4.6 * len(names) + 2.6, 4.0), layout='constrained')
    axes = figure.subplots(1, len(names), squeeze=False)[0]
    for axis, name in zip(axes, names, strict=True):
        mine = [aggregate for aggregate in aggregates if aggregate.dataset == name]
        most = max(mine, key=lambda each: each.share)
        for aggregate in mine:
            if aggregate.share != most.share:
                continue
            colour = f'C{variants.index(aggregate.variant) % 10}'
            mean = 100 * aggregate.mean
            if aggregate.costs['flops_per_image'] is None:
                continue
            shown.append(aggregate)
            gigaflops = aggregate.costs['flops_per_image'] / 1e9
            if gigaflops == 0:
                axis.axhline(mean, color=colour, linestyle=styles[aggregate.method], linewidth=1)
                continue
            # Regimes of one variant cost the same: a small shift keeps their bars apart on the logarithmic axis.
            place = gigaflops * 1.06 ** (regimes.index(aggregate.method) - (len(regimes) - 1) / 2)
            marker = _MARKERS[regimes.index(aggregate.method) % len(_MARKERS)]
            face = 'none' if aggregate.at_edge else colour
            low, high = (mean if bound is None else 100 * bound for bound in (aggregate.low, aggregate.high))
            bars = [[mean - low], [high - mean]]
            axis.errorbar(place, mean, bars, fmt=marker, color=colour, markerfacecolor=face, capsize=3, markersize=6)
        axis.set_xscale('log')
        _scale_decently(axis, [(aggregate.costs['flops_per_image'] or 0) / 1e9 for aggregate in mine])
        axis.set_xlabel(f'GFLOP per {most.noun}{tokens_in_words(mine)} (a multiply-add is two, traced program)')
        labels = f'{100 * most.fraction:g} % of the training labels' if not most.shots else f'{most.share_in_words}'
        axis.set_title(f'{_short(name)}, {labels}')
        axis.grid(alpha=0.3)
    axes[0].set_ylabel(f'test {" or ".join(dict.fromkeys(aggregate.metric for aggregate in aggregates))} in %')
    handles = []
    marked = [each for each in shown if each.costs['flops_per_image']]
    for index, variant in enumerate(variants):
        lines = dict.fromkeys(
            each.method for each in shown if each.variant == variant and not each.costs['flops_per_image']
        )
        for regime in lines:
            style = {'linestyle': styles[regime], 'linewidth': 1}
            handles += axes[0].plot([], [], color=f'C{index % 10}', label=f'{variant.label} · {regime}', **style)
        if not lines:
            handles += axes[0].plot([], [], color=f'C{index % 10}', linewidth=4, label=_short(variant.label, 48))
    handles += [
        axes[0].plot([], [], _MARKERS[index % len(_MARKERS)], color='0.4', label=regime)[0]
        for index, regime in enumerate(regimes)
        if any(each.method == regime for each in marked)
    ]
    if any(each.at_edge for each in marked):
        hollow = {'color': '0.4', 'markerfacecolor': 'none', 'label': 'at an edge of its grid'}
        handles.append(axes[0].plot([], [], 'o', **hollow)[0])
    figure.legend(handles=handles, loc='outside right center', frameon=False)
    return figure
