"""Intervals, tests and summaries: textbook examples, and their rates in simulated tables."""

import numpy as np
import pytest
from scipy import stats

from backbones.errors import UserError
from experiments.results import statistics

TABLES = 2_000

# Differences in height of 15 pairs of maize plants, crossed less self-fertilised, in eighths of an inch (Darwin 1876).
# Fisher (The Design of Experiments, § 21) counts 863 of the 32,768 ways to give signs whose sum is as high.
MAIZE = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]

# Areas under the curve of four classifiers on 14 data sets (Demšar 2006, JMLR 7, table 6). On "voting", the last
# but one, 0.975 of the third is ranked before 0.975 of the fourth: they differ in a digit that is not printed.
DEMSAR = np.array([
    [0.763, 0.768, 0.771, 0.798], [0.599, 0.591, 0.590, 0.569], [0.954, 0.971, 0.968, 0.967],
    [0.628, 0.661, 0.654, 0.657], [0.882, 0.888, 0.886, 0.898], [0.936, 0.931, 0.916, 0.931],
    [0.661, 0.668, 0.609, 0.685], [0.583, 0.583, 0.563, 0.625], [0.775, 0.838, 0.866, 0.875],
    [1.000, 1.000, 1.000, 1.000], [0.940, 0.962, 0.965, 0.962], [0.619, 0.666, 0.614, 0.669],
    [0.972, 0.981, 0.9751, 0.9749], [0.957, 0.978, 0.946, 0.970],
])  # fmt: skip


class TestTextbook:
    def test_holm(self):
        """The figures of statsmodels 0.15 (``multipletests(…, method='holm')``), on two published examples."""
        assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
        # Benjamini and Hochberg 1995, section 4.1.
        given = [
            0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528,
            0.7590, 1.0,
        ]  # fmt: skip
        expected = [0.0015, 0.0056, 0.0247, 0.114, 0.2211, 0.278, 0.278, 0.278, 0.3213, 1, 1, 1, 1, 1, 1]
        assert statistics.holm(given) == pytest.approx(expected)
        assert statistics.holm([]).shape == (0,)

    def test_sign_flips_of_darwins_maize(self):
        assert statistics.sign_flip_test(MAIZE) == 2 * 863 / 2**15
        repeated = MAIZE[:9] + MAIZE[:9]  # 18, too many to enumerate here
        expected = stats.permutation_test(
            (repeated,), np.mean, permutation_type='samples', n_resamples=9_999, rng=np.random.default_rng(0)
        )
        assert statistics.sign_flip_test(repeated) == pytest.approx(expected.pvalue, abs=0.015)

    def test_five_data_sets_cannot_be_significant(self):
        assert statistics.sign_flip_test([1, 2, 3, 4, 5]) == 2 / 2**5
        assert statistics.sign_flip_test([1, 2, 3, 4, 5, 6]) == 2 / 2**6
        assert statistics.sign_flip_test([1]) == 1
        assert statistics.sign_flip_test([0.1 + 0.2, -0.3]) == 1  # rounding

    def test_average_ranks(self):
        found = statistics.average_ranks(DEMSAR)
        np.testing.assert_allclose(found.ranks, [3.143, 2.000, 2.893, 1.964], atol=5e-4)
        without = [statistics.average_ranks(np.delete(DEMSAR, row, 0)).ranks for row in range(len(DEMSAR))]
        np.testing.assert_allclose(found.lowest, np.min(without, 0))
        np.testing.assert_allclose(found.highest, np.max(without, 0))

    def test_the_t_interval(self):
        values = [0.91, 0.93, 0.9, 0.94, 0.92]
        mean, half = statistics.mean_interval(values)
        low, high = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
        assert (mean - half, mean + half) == pytest.approx((low, high))
        assert statistics.mean_interval(values[:1]) == (0.91, None)

    def test_logit_means_count_odds(self):
        assert statistics.logit_mean([0.5, 0.9], [10**9, 10**9]) == pytest.approx(0.75)  # odds of 1 and 9: 3
        assert statistics.logit_mean([1.0], [10]) == pytest.approx(10.5 / 11)
        assert statistics.logit_mean([0.0], [10]) == pytest.approx(0.5 / 11)

    def test_spread(self):
        assert statistics.spread([0.9, 0.7, 0.75, 0.8]).text() == '70.0 ← 77.5 → 90.0'


class TestBootstrap:
    def test_paired_samples_agree_with_scipy(self):
        generator = np.random.default_rng(0)
        one, other = generator.random((2, 400)) < np.array([[0.9], [0.85]])
        differences = one.astype(float) - other
        found = statistics.paired_bootstrap(
            *(statistics.resampled_accuracy(each[None], 5_000) for each in (one, other))
        )
        expected = stats.bootstrap(
            (differences,), np.mean, n_resamples=5_000, method='percentile', rng=generator
        ).confidence_interval
        np.testing.assert_allclose(found[:2], expected, atol=2.5e-3)  # an image of 400
        # The test of a mean that is normal, up to half an image, as far as differences are whole images.
        errors = np.abs(differences.mean() + np.array([-0.5, 0.5]) / 400) / stats.sem(differences)
        assert 2 * stats.norm.sf(errors.max()) - 0.02 < found.p_value < 2 * stats.norm.sf(errors.min()) + 0.02

    def test_a_metric_that_no_sample_has(self):
        nothing = np.full((2, 100), np.nan)
        assert statistics.paired_bootstrap(nothing, nothing) is None
        assert statistics.percentile_interval(nothing[0]) is None

    def test_equal_cells_do_not_differ(self):
        same = statistics.resampled_accuracy(np.arange(50)[None] < 40)
        assert statistics.paired_bootstrap(same, same) == (0, 0, 1)

    def test_the_same_samples_for_all_cells(self):
        found = statistics.resamples(10, 3, seed=0)
        assert found.sum(1).tolist() == [10] * 3
        np.testing.assert_array_equal(found, statistics.resamples(10, 3, seed=0))

    def test_few_values_are_refused(self):
        with pytest.raises(UserError, match='of 5 values would be too narrow; expected at least 8'):
            statistics.bootstrap_interval([0.9] * 5)


def within_bounds(low, high, truth=0.0):
    return 0.93 <= np.mean((np.array(low) <= truth) & (truth <= np.array(high))) <= 0.97


@pytest.mark.slow
class TestRates:
    """2,000 tables each: intervals cover between 93 and 97 %, tests reject a true null in 3 to 7 %."""

    @pytest.mark.parametrize('seeds', [3, 5])
    def test_the_t_interval(self, seeds):
        values = np.random.default_rng(seeds).normal(0, 1, (TABLES, seeds))
        found = [statistics.mean_interval(each) for each in values]
        assert within_bounds([mean - half for mean, half in found], [mean + half for mean, half in found])

    @pytest.mark.parametrize('count', [8, 20])
    def test_the_bootstrap_interval(self, count):
        values = np.random.default_rng(count).normal(0, 1, (TABLES, count))
        assert within_bounds(*statistics.bootstrap_interval(values, samples=2_000))

    @pytest.mark.parametrize('images', [200, 1000])
    def test_the_paired_bootstrap(self, images):
        """As these trainings of two systems of 3 and 5 seeds: another table has other images only."""
        generator = np.random.default_rng(images)
        counts = statistics.resamples(images, 1000, seed=0).T / images
        difficulty = generator.beta(2, 0.2, (TABLES, 1, images))
        one, other = ((generator.random((TABLES, seeds, images)) < difficulty).mean(1) @ counts for seeds in (3, 5))
        found = [statistics.paired_bootstrap(*pair) for pair in zip(one[:, None], other[:, None], strict=True)]
        assert within_bounds([each.low for each in found], [each.high for each in found])
        assert 0.03 <= np.mean([each.p_value < 0.05 for each in found]) <= 0.07

    @pytest.mark.parametrize('images', [200, 1000])
    def test_percentiles_of_an_accuracy(self, images):
        correct = np.random.default_rng(images).random((TABLES, images)) < 0.8
        found = [statistics.percentile_interval(each) for each in statistics.resampled_accuracy(correct)]
        assert within_bounds(*zip(*found, strict=True), 0.8)

    @pytest.mark.parametrize('datasets', [7, 9])
    def test_sign_flips(self, datasets):
        values = np.random.default_rng(datasets).standard_t(3, (TABLES, datasets))
        assert 0.03 <= np.mean([statistics.sign_flip_test(each) < 0.05 for each in values]) <= 0.07

    def test_holm_keeps_the_level_of_a_family(self):
        """Of ten tests of equal means, one or more is below 5 % in no more than 5 % of tables."""
        values = np.random.default_rng(0).normal(0, 1, (TABLES, 10, 5))
        p_values = stats.ttest_1samp(values, 0, axis=-1).pvalue
        rate = np.mean([statistics.holm(each).min() < 0.05 for each in p_values])
        assert 0.03 <= rate <= 0.07
