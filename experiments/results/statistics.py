"""Intervals, tests and summaries behind the tables; those over seeds and images together: ``seeds_and_images``.

scipy is imported late: it takes a second.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from backbones.errors import UserError
from experiments.results.seeds_and_images import CONFIDENCE

# With fewer values a bootstrap's interval is too narrow, whichever it is.
LEAST_FOR_BOOTSTRAP = 8
# With more data sets than this the signs are sampled, not enumerated.
_ENUMERATED = 16
_SIGN_SAMPLES = 9_999


def mean_interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and half-width of its 95 % t interval; the half-width is ``None`` for a single value."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, None
    from scipy import special

    factor = special.stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2)
    return mean, float(factor * np.std(values, ddof=1) / math.sqrt(len(values)))


def bootstrap_interval(
    values: Float[np.ndarray, '*tables values'] | Sequence[float], samples: int = 9_999, seed: int = 0
) -> tuple[Float[np.ndarray, '*tables'], Float[np.ndarray, '*tables']]:
    """95 % interval of the mean of at least eight values, without an assumption on their distribution.

    The percentiles are widened as much as a t interval is wider than a normal one of the same values (Hesterberg 2015,
    doi:10.1080/00031305.2015.1089789, "expanded percentile"): those of 2.5 and 97.5 % cover 88 % with eight values.

    Returns:
        Lower and upper bound.

    Raises:
        UserError: there are fewer values, for which ``mean_interval`` is the better one.
    """
    from scipy import special

    values = np.asarray(values, np.float64)
    count = values.shape[-1]
    if count < LEAST_FOR_BOOTSTRAP:
        raise UserError(
            f'a bootstrap interval of {count} values would be too narrow; expected at least {LEAST_FOR_BOOTSTRAP} '
            'values, and with fewer the t interval (mean_interval)'
        )
    means = values @ resamples(count, samples, seed).T / count
    tail = special.ndtr(math.sqrt(count / (count - 1)) * special.stdtrit(count - 1, (1 - CONFIDENCE) / 2))
    low, high = np.quantile(means, [tail, 1 - tail], axis=-1)
    return low, high


def resamples(examples: int, samples: int, seed: int) -> Int[np.ndarray, 'samples examples']:
    """How often each example occurs in random samples with replacement, each as large as the whole (a bootstrap)."""
    generator = np.random.Generator(np.random.Philox(key=seed))
    return np.stack(
        [np.bincount(generator.integers(0, examples, examples), minlength=examples) for _ in range(samples)]
    )


def percentile_interval(values: Float[np.ndarray, ' samples']) -> tuple[float, float] | None:
    """The middle 95 % of a metric over samples; ``None`` if no sample has the metric (all are NaN)."""
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def resampled_accuracy(
    correct: Bool[np.ndarray, 'seeds examples'], samples: int = 1000, seed: int = 0
) -> Float[np.ndarray, 'seeds samples']:
    """The accuracy in bootstrap samples of the examples, the same as of the metrics that are no mean over examples."""
    examples = correct.shape[-1]
    return np.asarray(correct, np.float64) @ resamples(examples, samples, seed).T / examples


class PairedBootstrap(NamedTuple):
    """A difference of two cells.

    Attributes:
        low: lower bound of its 95 % interval over test images.
        high: upper bound.
        p_value: two-sided, of a difference of 0; at least 2 / (samples + 1).
    """

    low: float
    high: float
    p_value: float


def paired_bootstrap(
    one: Float[np.ndarray, 'seeds samples'], other: Float[np.ndarray, 'other_seeds samples']
) -> PairedBootstrap | None:
    """Compare two cells on the same test images, as these trainings of them (other seeds are not considered).

    Percentiles of the difference of the means over seeds (Efron and Tibshirani 1993, ch. 13 and 16).

    Args:
        one: the metric of each seed in bootstrap samples of the images (``Aggregate.resampled``; of an accuracy,
            ``resampled_accuracy``).
        other: in the same samples; it is subtracted.

    Returns:
        ``None`` if no sample has the metric.
    """
    differences = one.mean(0) - other.mean(0)
    bounds = percentile_interval(differences)
    if bounds is None:
        return None
    known = differences[~np.isnan(differences)]
    rarer = min(np.count_nonzero(known <= 0), np.count_nonzero(known >= 0))
    return PairedBootstrap(*bounds, min(1.0, 2 * (rarer + 1) / (len(known) + 1)))


def sign_flip_test(differences: Sequence[float], seed: int = 0) -> float:
    """Two-sided p-value of family against family: one difference per data set, whose sign chance may have given.

    Fisher's permutation test of a mean of paired differences (The Design of Experiments, 1935, § 21): exact with up to
    16 data sets, otherwise from 9,999 random signs. With fewer than six data sets nothing is significant at 5 %.
    """
    values = np.asarray(differences, np.float64)
    count = len(values)
    exact = count <= _ENUMERATED
    if exact:
        signs = 1 - 2 * (np.arange(2**count)[:, None] >> np.arange(count) & 1)
    else:
        signs = np.random.Generator(np.random.Philox(key=seed)).choice([-1, 1], (_SIGN_SAMPLES, count))
    # Sums that are equal may be rounded differently.
    least = abs(values.sum()) - 1e-12 * np.abs(values).sum()
    as_high = np.count_nonzero(np.abs(signs @ values) >= least)
    return as_high / len(signs) if exact else (as_high + 1) / (len(signs) + 1)


def least_sign_flip_p(count: int) -> float:
    """The smallest p-value that ``sign_flip_test`` can have with a number of data sets."""
    return 2 / 2**count if count <= _ENUMERATED else 1 / (_SIGN_SAMPLES + 1)


def logits(
    shares: Float[np.ndarray, '*lines datasets'] | Sequence[float], examples: Sequence[int]
) -> Float[np.ndarray, '*lines datasets']:
    """Log odds of shares, such as accuracies: between 98 and 99 % they differ as much as between 50 and 67 %.

    Half an example is added to the right and to the wrong ones (Haldane 1955, Anscombe 1956), so that a share of 0 or 1
    has a logit too.

    Args:
        shares: of each data set.
        examples: number of test examples of each.
    """
    sizes = np.asarray(examples, np.float64)
    right = np.asarray(shares, np.float64) * sizes
    return np.log((right + 0.5) / (sizes - right + 0.5))


def share_of_logit(logit: float) -> float:
    """The share between 0 and 1 that has a logit."""
    return float(1 / (1 + np.exp(-logit)))


def logit_mean(shares: Sequence[float], examples: Sequence[int]) -> float:
    """Mean over data sets on the scale of ``logits``, whose arguments it has; a share again."""
    return share_of_logit(float(np.mean(logits(shares, examples))))


class AverageRanks(NamedTuple):
    """Average ranks of methods over data sets; 1 is the best, and equal scores share their ranks.

    Attributes:
        ranks: over all data sets.
        lowest: the lowest average that a method has if one data set, whichever, is left out.
        highest: the highest one.
    """

    ranks: Float[np.ndarray, ' methods']
    lowest: Float[np.ndarray, ' methods']
    highest: Float[np.ndarray, ' methods']


def average_ranks(scores: Float[np.ndarray, 'datasets methods']) -> AverageRanks:
    """Rank methods on each data set and average (Demšar 2006, JMLR 7, § 3.2.2), with what one data set decides."""
    from scipy import stats

    ranks = stats.rankdata(-np.asarray(scores, np.float64), axis=1)
    count = len(ranks)
    without = (ranks.sum(0) - ranks) / (count - 1) if count > 1 else ranks
    return AverageRanks(ranks.mean(0), without.min(0), without.max(0))


def holm(p_values: Sequence[float]) -> Float[np.ndarray, ' tests']:
    """p-values of a family of tests, adjusted so that one below 5 % occurs by chance in 5 % of families at most.

    Valid for tests that depend on each other (Holm 1979, Scandinavian Journal of Statistics 6).
    """
    values = np.asarray(p_values, np.float64)
    order = np.argsort(values)
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted


class Spread(NamedTuple):
    """The lowest, the median and the highest of some values; as text ``min ← median → max``."""

    low: float
    median: float
    high: float

    def text(self, digits: int = 1) -> str:
        """Percentages of shares."""
        low, median, high = (f'{100 * value:.{digits}f}' for value in self)
        return f'{low} ← {median} → {high}'


def spread(values: Sequence[float]) -> Spread:
    """How far values reach, such as those of all backbones of a family."""
    return Spread(float(np.min(values)), float(np.median(values)), float(np.max(values)))
