"""What several data sets say together: which line has the best ranks, and whether one family of backbones wins.

One regime at a time. Of each data set the results with the most labels count, and of the lines (backbone, weights and
settings) those that every data set of the regime has.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from experiments.results import aggregates as results
from experiments.results import statistics
from experiments.results.aggregates import LEVEL, Aggregate
from experiments.results.axes import BASELINES, RANDOM, Settings, Variant, settings_in_words
from experiments.results.statistics import Spread

# Scores that are equal may be rounded differently; decimals that count for ranks.
_DECIMALS = 12


@dataclasses.dataclass(frozen=True)
class RankedLine:
    """A line of one regime on all of its data sets.

    Attributes:
        results: of each data set.
        family: name of the backbone's family; empty for pixels and for backbones that this version does not know.
        rank: average over the data sets; 1 is the best.
        lowest: the lowest average rank with one data set left out, whichever.
        highest: the highest one.
    """

    results: tuple[Aggregate, ...]
    family: str
    rank: float
    lowest: float
    highest: float

    @property
    def logits(self) -> Float[np.ndarray, ' datasets']:
        """The score of each data set (``statistics.logits``)."""
        return statistics.logits(*self._scores)

    @property
    def score(self) -> float:
        """Mean over the data sets on the logit scale, as a share."""
        return statistics.logit_mean(*self._scores)

    @property
    def spread(self) -> Spread:
        """How far the scores of the data sets reach."""
        return statistics.spread(self._scores[0])

    @property
    def is_random(self) -> bool:
        """Whether the weights are random: a control, or the start of a training."""
        return self.results[0].variant.weights == RANDOM

    @property
    def _scores(self) -> tuple[list[float], list[int]]:
        return [each.mean for each in self.results], [each.data['test_examples'] for each in self.results]


@dataclasses.dataclass(frozen=True)
class Ranking:
    """The lines of one regime (of a dense task: and one head), best first.

    Attributes:
        name: head and regime.
        datasets: those that any of its lines has.
        labels: the most labels of each, in words.
        lines: those that all data sets have.
        left_out: an aggregate of each other line, and the data sets that lack it.
    """

    name: str
    datasets: tuple[str, ...]
    labels: tuple[str, ...]
    lines: tuple[RankedLine, ...]
    left_out: tuple[tuple[Aggregate, tuple[str, ...]], ...] = ()


@dataclasses.dataclass(frozen=True)
class Kind:
    """Lines that are alike except for their backbones: of one regime and settings, all with random weights or none."""

    regime: str
    settings: Settings
    is_random: bool

    @property
    def method(self) -> str:
        """Regime and settings, as short text."""
        return ' · '.join([self.regime, *settings_in_words(self.settings)])

    @property
    def weights(self) -> str:
        """In a word."""
        return 'random' if self.is_random else 'pretrained'

    @property
    def text(self) -> str:
        """All of it, as short text."""
        return f'{self.method}, {self.weights}'


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One family against another over data sets, with lines of one kind.

    Attributes:
        families: their names; the second is subtracted.
        kind: of the lines.
        datasets: on which all lines are.
        lines: how many each family has.
        logits: of each family and data set, the mean of the logits of its lines.
        p_value: two-sided, of the permutation test over data sets (``sign_flip_test``).
        p_adjusted: for all comparisons that are shown, by Holm's method.
        least_p: the smallest that ``p_adjusted`` could be, with these numbers of data sets.
    """

    families: tuple[str, str]
    kind: Kind
    datasets: tuple[str, ...]
    lines: tuple[int, int]
    logits: Float[np.ndarray, 'families datasets']
    p_value: float
    p_adjusted: float = 1.0
    least_p: float = 1.0

    @property
    def differences(self) -> Float[np.ndarray, ' datasets']:
        """The first family less the second, on the logit scale."""
        return self.logits[0] - self.logits[1]

    @property
    def difference(self) -> float:
        """Mean of the differences."""
        return float(np.mean(self.differences))

    @property
    def scores(self) -> tuple[float, float]:
        """The mean of each family over lines and data sets, taken on the logit scale, as a share."""
        one, other = (statistics.share_of_logit(float(each)) for each in self.logits.mean(1))
        return one, other

    @property
    def wins(self) -> tuple[int, int]:
        """Number of data sets on which each family is better."""
        return int(np.count_nonzero(self.differences > 0)), int(np.count_nonzero(self.differences < 0))

    @property
    def can_be_significant(self) -> bool:
        """Whether there are enough data sets for an adjusted p below 5 %."""
        return self.least_p < LEVEL


class AcrossDatasets(NamedTuple):
    """What is shown across data sets.

    Attributes:
        rankings: per regime.
        comparisons: of families.
        one_sided: kinds of lines that only one family has, and which; empty where there is no other family at all.
        single: names of the regimes that have only one data set.
        unknown: backbones whose family this version does not know.
    """

    rankings: tuple[Ranking, ...]
    comparisons: tuple[Comparison, ...]
    one_sided: tuple[tuple[Kind, str], ...]
    single: tuple[str, ...]
    unknown: tuple[str, ...]


def across_datasets(aggregates: Sequence[Aggregate]) -> AcrossDatasets | None:
    """Sum up the results of several data sets; ``None`` if no regime has several."""
    regimes: dict[str, list[Aggregate]] = {}
    for each in aggregates:
        regimes.setdefault(' · '.join(filter(None, [each.head, each.regime])), []).append(each)
    several = {name: found for name, found in regimes.items() if len(results.datasets(found)) > 1}
    if not several:
        return None
    names = _families({each.variant.backbone for found in several.values() for each in found})
    rankings = tuple(_ranking(name, found, names) for name, found in several.items())
    comparisons, one_sided = _comparisons(rankings, list(dict.fromkeys(names.values())))
    single = tuple(name for name in regimes if name not in several)
    unknown = {each.variant.backbone for found in several.values() for each in found} - {*BASELINES, *names}
    return AcrossDatasets(rankings, comparisons, one_sided, single, tuple(sorted(unknown)))


def _families(backbones: set[str]) -> dict[str, str]:
    """Backbone → name of its family, in the order of the families; without those that are not registered."""
    from backbones import registry  # imported late: it brings JAX, which no other result needs

    found = {name: registry.TABLE[name].family for name in sorted(backbones) if name in registry.TABLE}
    ordered = sorted(found.items(), key=lambda item: registry.FAMILIES.index(item[1]))
    return {name: registry.FAMILY_NAMES[family] for name, family in ordered}


def _ranking(name: str, found: Sequence[Aggregate], families: dict[str, str]) -> Ranking:
    datasets = results.datasets(found)
    most = {dataset: max(each.share for each in found if each.dataset == dataset) for dataset in datasets}
    by_line: dict[tuple[Variant, Settings], dict[str, Aggregate]] = {}
    first: dict[tuple[Variant, Settings], Aggregate] = {}
    words = {}
    for each in found:
        line = (each.variant, each.settings)
        first.setdefault(line, each)
        of_line = by_line.setdefault(line, {})
        if each.share == most[each.dataset]:
            of_line[each.dataset] = each
            words[each.dataset] = each.share_in_words if each.shots else f'{100 * each.fraction:g} %'
    left_out = tuple(
        (first[line], tuple(dataset for dataset in datasets if dataset not in have))
        for line, have in by_line.items()
        if len(have) < len(datasets)
    )
    complete = [tuple(have[each] for each in datasets) for have in by_line.values() if len(have) == len(datasets)]
    lines = []
    if complete:
        scores = np.round([[each.mean for each in line] for line in complete], _DECIMALS)
        ranks = zip(complete, *statistics.average_ranks(scores.T), strict=True)
        lines = [
            RankedLine(line, families.get(line[0].variant.backbone, ''), *map(float, numbers))
            for line, *numbers in ranks
        ]
        lines.sort(key=lambda line: (line.rank, -line.score))
    return Ranking(name, tuple(datasets), tuple(words[each] for each in datasets), tuple(lines), left_out)


def _comparisons(
    rankings: Sequence[Ranking], families: Sequence[str]
) -> tuple[tuple[Comparison, ...], tuple[tuple[Kind, str], ...]]:
    """Each family against each other one that has lines of the same kind; and the kinds of which only one has any."""
    found, one_sided = [], []
    for ranking in rankings:
        kinds: dict[Kind, dict[str, list[RankedLine]]] = {}
        for line in ranking.lines:
            if line.family:
                kind = Kind(ranking.name, line.results[0].settings, line.is_random)
                kinds.setdefault(kind, {}).setdefault(line.family, []).append(line)
        for kind, members in sorted(kinds.items(), key=lambda item: item[0].is_random):
            present = [family for family in families if family in members]
            if len(present) == 1 < len(families):
                one_sided.append((kind, present[0]))
            for pair in itertools.combinations(present, 2):
                logits = np.array([np.mean([line.logits for line in members[family]], axis=0) for family in pair])
                one, other = pair
                found.append(
                    Comparison(
                        families=(one, other),
                        kind=kind,
                        datasets=ranking.datasets,
                        lines=(len(members[one]), len(members[other])),
                        logits=logits,
                        p_value=statistics.sign_flip_test(logits[0] - logits[1]),
                    )
                )
    adjusted = statistics.holm([each.p_value for each in found])
    # Holm's values grow with each p, so that the least ones come from the least ones.
    least = statistics.holm([statistics.least_sign_flip_p(len(each.datasets)) for each in found])
    return (
        tuple(
            dataclasses.replace(each, p_adjusted=float(value), least_p=float(lowest))
            for each, value, lowest in zip(found, adjusted, least, strict=True)
        ),
        tuple(one_sided),
    )
