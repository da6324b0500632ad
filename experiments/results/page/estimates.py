"""What the page says of a line: its name, its score with an interval, and how it compares with others.

The only module of the page that asks ``Aggregate`` for statistics.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence

from experiments.results.aggregates import Aggregate, p_value
from experiments.results.axes import Cell, setting_in_words
from experiments.results.page.content import Report
from experiments.results.statistics import holm


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A score and its 95 % interval, as shares of 1; the bounds are ``None`` where there is no interval."""

    mean: float
    low: float | None
    high: float | None

    @property
    def bounds(self) -> tuple[float, float]:
        """The interval, or the mean twice."""
        return (self.mean if self.low is None else self.low), (self.mean if self.high is None else self.high)

    def text(self) -> str:
        """The score in per cent, and its interval."""
        if self.low is None or self.high is None:
            return percent(self.mean)
        return f'{percent(self.mean)} (95 %: {percent(self.low)} to {percent(self.high)})'


def estimate(aggregate: Aggregate) -> Estimate:
    """The score of an aggregate."""
    return Estimate(aggregate.mean, aggregate.low, aggregate.high)


def adjusted_p_values(aggregates: Sequence[Aggregate]) -> dict[tuple[int, int], float]:
    """p of the difference between each two aggregates, adjusted for all of them (Holm 1979).

    Returns:
        (index of one, index of the other), ascending → p; pairs that cannot be compared are left out.
    """
    found = {}
    for one, other in itertools.combinations(range(len(aggregates)), 2):
        value = p_value(aggregates[one], aggregates[other])
        if value is not None:
            found[one, other] = value
    return dict(zip(found, map(float, holm(list(found.values()))), strict=True))


def axes(aggregate: Aggregate | Cell) -> dict[str, str]:
    """What tells an aggregate, or a cell, from others of its data set and label fraction, by title of the column."""
    return {
        'backbone': aggregate.variant.backbone,
        'weights': aggregate.variant.weights or '–',
        **({'head': aggregate.head} if aggregate.head else {}),
        'regime': aggregate.regime,
        **{key: value_in_words(key, value) for key, value in aggregate.settings},
    }


def value_in_words(key: str, value: object) -> str:
    """The value of a setting; an image size of 0 is that of the backbone."""
    return 'default' if key == 'image_size' and value == 0 else setting_in_words(value)


def with_key(key: str, text: str) -> str:
    """The value of an axis, after its key where it is a number or a default, which says nothing alone."""
    return f'{key} {text}' if text == 'default' or text.replace('.', '', 1).isdigit() else text


def names(aggregates: Sequence[Aggregate]) -> list[str]:
    """A name for each of several aggregates, made of what they do not have in common."""
    labels = [axes(each) for each in aggregates]
    keys = list(dict.fromkeys(key for label in labels for key in label))
    differing = [key for key in keys if len({label.get(key) for label in labels}) > 1] or keys[:1]
    if 'weights' in differing and _follows(labels, 'weights', 'backbone'):
        differing.remove('weights')
        differing = ['backbone', *(key for key in differing if key != 'backbone')]
    return [
        ' · '.join(_short(key, label) for key in differing if label.get(key, '–') != '–') or label[keys[0]]
        for label in labels
    ]


def _short(key: str, label: Mapping[str, str]) -> str:
    """The value of an axis; of weights that are named after their backbone, where they come from."""
    for separator in (':', '/'):
        if key == 'weights' and label[key].endswith(separator + label['backbone']):
            return label[key].removesuffix(separator + label['backbone'])
    return with_key(key, label[key])


def _follows(labels: Sequence[Mapping[str, str]], one: str, other: str) -> bool:
    """Whether the value of one axis follows from that of the other."""
    return len({(label.get(one), label.get(other)) for label in labels}) == len({label.get(other) for label in labels})


def labelled(aggregate: Aggregate) -> str:
    """How many labels it was given."""
    images = aggregate.data['train_examples']
    share = aggregate.share_in_words if aggregate.shots else f'{100 * aggregate.fraction:g} %'
    return f'{share} of the labels' if images is None else f'{images:,} labels ({share})'


def anchors(report: Report) -> Callable[[Aggregate], str]:
    """What gives the id of an aggregate's line in the table."""
    places = {id(each): index for index, each in enumerate(report.aggregates)}
    return lambda aggregate: f'line-{places[id(aggregate)]}'


def percent(share: float | None) -> str:
    """A share in per cent, to a tenth."""
    return '–' if share is None else f'{100 * share:.1f}'


def columns(aggregates: Sequence[Aggregate], dataset: str) -> list[list[Aggregate]]:
    """The aggregates of a data set, one list per label fraction, most labels first, and best first within each."""
    mine = [each for each in aggregates if each.dataset == dataset]
    shares = sorted({each.share for each in mine}, reverse=True)
    return [
        sorted((each for each in mine if each.share == share), key=lambda each: -estimate(each).mean)
        for share in shares
    ]
