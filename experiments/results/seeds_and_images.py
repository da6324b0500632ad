"""The uncertainty of a score that other seeds and other test images would have changed, and tests of differences.

The score of seed s is modelled as mean + seed effect + effect of the test images, where all seeds see the same images.
What images do has a part that is common to all seeds (a hard image is hard for each) and a part of each seed, which is
like a seed effect in that it averages out over seeds. So the variance of a mean over S seeds is

    (variance between the scores of the seeds) / S + (covariance over images between two different seeds),

and no part is counted twice: this is the variance in a crossed design of two random factors (Searle, Casella and
McCulloch, Variance Components, 1992, ch. 4). The first term is known from a few seeds, the second from all images.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

CONFIDENCE = 0.95
# p-values are not computed beyond this.
SMALLEST_P = 1e-12


def critical_value(
    level: Float[np.ndarray, '...'] | float, share: Float[np.ndarray, '...'], freedom: Float[np.ndarray, '...'] | float
) -> Float[np.ndarray, '...']:
    """How many standard errors a mean may deviate at a two-sided level, if a share of its variance is known badly.

    The share has an estimate with few degrees of freedom, the rest is known: Welch's problem with one known variance,
    which has no exact solution (Linnik 1968). Without the share this is the normal quantile z, with nothing else the t
    quantile, and in between the mean of their cubes, weighted by the squared share. With these exponents the rate of
    false positives at 5 % is between 3.9 and 5.3 % for 2 degrees of freedom, and nearer for more, whatever the true
    share (``test_seeds_and_images.py`` integrates it); by Welch and Satterthwaite's approximation it reaches 7.8 %, by
    Cochran and Cox's it falls to 2.9 %.

    Args:
        level: of the test; one minus the confidence.
        share: of the estimated variance, from 0 to 1.
        freedom: degrees of freedom of that share.
    """
    from scipy import special  # imported late: it takes a second

    normal = -special.ndtri(level / 2)
    student = -special.stdtrit(freedom, level / 2)
    weight = np.square(share)
    return np.cbrt((1 - weight) * normal**3 + weight * student**3)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean and its variance.

    Attributes:
        mean: the estimate.
        between_seeds: part of its variance that is estimated from a few seeds.
        freedom: degrees of freedom of that part.
        over_images: the rest of the variance.
    """

    mean: Float[np.ndarray, '*tables']
    between_seeds: Float[np.ndarray, '*tables']
    freedom: Float[np.ndarray, '*tables']
    over_images: Float[np.ndarray, '*tables']

    @property
    def variance(self) -> Float[np.ndarray, '*tables']:
        """The whole variance of the mean."""
        return self.between_seeds + self.over_images

    def critical_value(self, level: Float[np.ndarray, '*tables'] | float) -> Float[np.ndarray, '*tables']:
        """See the function of that name."""
        share = np.divide(
            self.between_seeds, self.variance, out=np.zeros_like(self.variance), where=np.asarray(self.variance > 0)
        )
        return critical_value(level, share, self.freedom)

    def p_value(self) -> Float[np.ndarray, '*tables']:
        """Two-sided, of a true mean of 0: the level at which ``critical_value`` is what was found."""
        found = np.abs(self.mean)
        low, high = np.full_like(found, np.log(SMALLEST_P)), np.zeros_like(found)
        for _ in range(40):  # bisection, to a relative error of 3e-11
            middle = (low + high) / 2
            beyond = found > self.critical_value(np.exp(middle)) * np.sqrt(self.variance)
            low, high = np.where(beyond, low, middle), np.where(beyond, middle, high)
        return np.exp(high)


@dataclasses.dataclass(frozen=True)
class Repeated:
    """A metric between 0 and 1 of one system, trained with several seeds and tested on the same images.

    Leading axes, if any, are independent tables (of a simulation).

    Attributes:
        scores: of each seed.
        deviations: of each seed over images, such that the sum of the products of two seeds' is the covariance of their
            scores.
        images: number of test images.
        seeds: which seeds, so that two systems can be paired.
        depends_on_seed: whether another seed could give another score. If not, the first one stands for all.
    """

    scores: Float[np.ndarray, '*tables seeds']
    deviations: Float[np.ndarray, '*tables seeds draws']
    images: int
    seeds: tuple[int, ...]
    depends_on_seed: bool = True

    def __post_init__(self) -> None:
        if not self.depends_on_seed and len(self.seeds) > 1:
            for name in ('scores', 'deviations', 'seeds'):
                object.__setattr__(self, name, getattr(self.of(self.seeds[:1], depends_on_seed=True), name))

    @staticmethod
    def of_examples(
        correct: Bool[np.ndarray, '*tables seeds images'], seeds: Sequence[int], depends_on_seed: bool = True
    ) -> 'Repeated':
        """The share of images that are right (or the mean of another value per image)."""
        scores = np.asarray(np.mean(correct, -1, dtype=np.float64))
        images = correct.shape[-1]
        return Repeated(scores, (correct - scores[..., None]) / images, images, tuple(seeds), depends_on_seed)

    @staticmethod
    def of_samples(
        scores: Sequence[float],
        resampled: Float[np.ndarray, 'seeds samples'],
        images: int,
        seeds: Sequence[int],
        depends_on_seed: bool = True,
    ) -> 'Repeated':
        """A metric that is no mean over images, computed in bootstrap samples of them.

        Args:
            scores: of each seed, on the test images as they are.
            resampled: of each seed, in the same samples for all; NaN where a sample has no such metric.
            images: number of test images.
            seeds: which seeds.
            depends_on_seed: see the class.
        """
        samples = np.asarray(resampled, np.float64)
        known = ~np.isnan(samples).any(0)
        mean = samples[:, known].mean(-1, keepdims=True)
        # Samples that have no such metric stay in place, so that those of another system are paired with them.
        deviations = np.where(known, samples - mean, 0) / np.sqrt(max(1, np.count_nonzero(known) - 1))
        return Repeated(np.asarray(scores, np.float64), deviations, images, tuple(seeds), depends_on_seed)

    def of(self, seeds: Sequence[int], depends_on_seed: bool | None = None) -> 'Repeated':
        """The same for some of the seeds."""
        places = [self.seeds.index(seed) for seed in seeds]
        return Repeated(
            self.scores[..., places],
            self.deviations[..., places, :],
            self.images,
            tuple(seeds),
            self.depends_on_seed if depends_on_seed is None else depends_on_seed,
        )

    @property
    def estimate(self) -> Estimate:
        """The mean over seeds. With one seed it is that of this seed, and its variance is over images alone."""
        count = len(self.seeds)
        mean = self.scores.mean(-1)
        common, total = _covariance(self.deviations)
        if count == 1:
            return Estimate(mean, np.zeros_like(mean), np.ones_like(mean), total)
        between = self.scores.var(-1, ddof=1) / count
        # Seeds that agree exactly show no effect of theirs; then what images do to each averages out over them.
        over_images = np.where(between < _NO_DIFFERENCE, total, common)
        return Estimate(mean, between, np.full_like(mean, count - 1), over_images)

    def interval(self, confidence: float = CONFIDENCE) -> tuple[np.ndarray, np.ndarray]:
        """Interval of the mean over other seeds and images of the same kind; of one seed, over images alone.

        It is Wilson's interval for the effective number of images, of which an independent proportion would have this
        variance (as in surveys: Franco et al. 2019, doi:10.1093/jssam/smy019), so it stays between 0 and 1, and for one
        seed and a metric of single images it is Wilson's. Where every image is right, all of them count.

        Returns:
            Lower and upper bound.
        """
        found = self.estimate
        mean, variance = found.mean, found.variance
        spread = mean * (1 - mean)
        known = (spread > 0) & (variance > 0)
        size = np.where(known, spread / np.where(known, variance, 1), self.images)
        factor = found.critical_value(1 - confidence)
        pull = factor**2 / size
        middle = (mean + pull / 2) / (1 + pull)
        half = factor * np.sqrt(spread / size + pull / (4 * size)) / (1 + pull)
        return np.maximum(middle - half, 0), np.minimum(middle + half, 1)


# A variance of scores below this is rounding: scores of 10⁸ images differ by more.
_NO_DIFFERENCE = 1e-18


def _covariance(
    deviations: Float[np.ndarray, '*tables seeds draws'],
) -> tuple[Float[np.ndarray, '*tables'], Float[np.ndarray, '*tables']]:
    """Variances over images: of what is common to all seeds (their mean covariance), and of their mean."""
    count = deviations.shape[-2]
    total = np.square(deviations.mean(-2)).sum(-1)
    if count == 1:
        return total, total
    single = np.square(deviations).sum((-1, -2)) / count
    return np.maximum((count * total - single) / (count - 1), 0), total


def difference(one: Repeated, other: Repeated) -> Estimate | None:
    """The difference of two systems that were tested on the same images.

    Where the seeds of one contain those of the other, they are compared seed by seed on those: the same seed drew the
    same training labels for both. Otherwise the seeds count as independent, with Welch and Satterthwaite's degrees of
    freedom. One that does not depend on the seed is compared with each seed of the other.

    The variance over images is that of a true difference of 0, so that two systems without seeds are compared by
    McNemar's test.

    Args:
        one: tested on the same images, or in the same bootstrap samples, as the other.
        other: subtracted.

    Returns:
        ``None`` if a system depends on the seed and has only one: nothing is known about other seeds.
    """
    if any(each.depends_on_seed and len(each.seeds) == 1 for each in (one, other)):
        return None
    shared = tuple(seed for seed in one.seeds if seed in other.seeds)
    if len(shared) == min(len(one.seeds), len(other.seeds)) > 1:
        one, other = one.of(shared), other.of(shared)
    elif one.depends_on_seed and other.depends_on_seed:
        return _of_independent_seeds(one, other)
    longer = one if len(one.seeds) > 1 else other
    paired = dataclasses.replace(
        longer, scores=one.scores - other.scores, deviations=one.deviations - other.deviations
    ).estimate
    return _as_if_equal(paired, one.images)


def _of_independent_seeds(one: Repeated, other: Repeated) -> Estimate:
    first, second = one.estimate, other.estimate
    between = first.between_seeds + second.between_seeds
    parts = first.between_seeds**2 / first.freedom + second.between_seeds**2 / second.freedom
    least = np.minimum(first.freedom, second.freedom)
    freedom = np.where(parts > 0, between**2 / np.where(parts > 0, parts, 1), least)
    joint = np.sum(one.deviations.mean(-2) * other.deviations.mean(-2), -1)
    over_images = np.maximum(first.over_images + second.over_images - 2 * joint, 0)
    return _as_if_equal(Estimate(first.mean - second.mean, between, freedom, over_images), one.images)


def _as_if_equal(found: Estimate, images: int) -> Estimate:
    """The variance over images about 0 instead of about the mean, as in a score test."""
    return dataclasses.replace(found, over_images=found.over_images + found.mean**2 / images)


def p_value(one: Repeated, other: Repeated) -> Float[np.ndarray, '*tables'] | None:
    """Two-sided p-value of the difference over other seeds and images; ``None`` where it is unknown."""
    found = difference(one, other)
    return None if found is None else found.p_value()
