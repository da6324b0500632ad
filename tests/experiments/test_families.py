"""What several data sets say together, against scipy and by hand, and how table.md and the page say it."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import special, stats

from backbones import registry
from experiments.commands import report
from experiments.results import families, family_tables, rows, statistics
from experiments.results.aggregates import Aggregate
from experiments.results.axes import Variant
from experiments.results.page import build, content
from experiments.results.page.sections import across_datasets
from tests.experiments import synthetic_results
from tests.experiments.test_page import Page, check

CNNS, VITS = ('resnet18', 'resnet50', 'convnext_tiny'), ('vit_tiny_patch16', 'swin_tiny', 'deit_small_patch16')
IMAGES = 200


def aggregate(backbone, dataset, scores, weights='hub', regime='linear', **changes) -> Aggregate:
    scores = scores if isinstance(scores, tuple) else (scores,)
    values = {
        'variant': Variant(backbone, weights), 'regime': regime, 'dataset': dataset, 'fraction': 1.0,
        'metric': 'accuracy', 'scores': scores, 'correct': None, 'examples': np.arange(IMAGES), 'costs': {},
        'data': {'test_examples': IMAGES},
    }  # fmt: skip
    return Aggregate(**{**values, **changes})


def table(backbones, scores, **changes) -> list[Aggregate]:
    """Aggregates of a score per data set and backbone."""
    return [
        aggregate(backbone, f'd{place}', float(score), **changes)
        for place, row in enumerate(scores)
        for backbone, score in zip(backbones, row, strict=True)
    ]


def logit(right):
    """Of shares of ``IMAGES``, written down another way than in the code."""
    return special.logit((np.asarray(right) * IMAGES + 0.5) / (IMAGES + 1))


counts = arrays.arrays(np.int64, st.tuples(st.integers(2, 7), st.just(6)), elements=st.integers(0, IMAGES))


class TestNumbers:
    @settings(max_examples=50, deadline=None)
    @given(counts)
    def test_agree_with_scipy(self, right):
        scores = right / IMAGES
        found = families.across_datasets(table((*CNNS, *VITS), scores))
        (ranking,), (comparison,) = found.rankings, found.comparisons
        ranks = np.array([stats.rankdata([-score for score in row]) for row in scores])
        for line in ranking.lines:
            column = (*CNNS, *VITS).index(line.results[0].variant.backbone)
            assert line.rank == pytest.approx(ranks[:, column].mean())
            without = [np.delete(ranks[:, column], row).mean() for row in range(len(ranks))]
            assert (line.lowest, line.highest) == pytest.approx((min(without), max(without)))
            assert line.score == pytest.approx(special.expit(logit(scores[:, column]).mean()))
            assert tuple(line.spread) == (
                scores[:, column].min(), np.median(scores[:, column]), scores[:, column].max()
            )  # fmt: skip
        assert [line.rank for line in ranking.lines] == sorted(line.rank for line in ranking.lines)
        one, other = logit(scores[:, :3]).mean(1), logit(scores[:, 3:]).mean(1)
        assert comparison.families == ('CNN', 'ViT')
        assert comparison.lines == (3, 3)
        np.testing.assert_allclose(comparison.differences, one - other, atol=1e-12)
        assert comparison.difference == pytest.approx((one - other).mean(), abs=1e-12)
        assert comparison.scores == pytest.approx((special.expit(one.mean()), special.expit(other.mean())))
        if not np.any(np.abs(one - other) < 1e-9):  # scipy does not see that rounded sums are equal
            expected = stats.permutation_test((one, other), lambda x, y: np.mean(x - y), permutation_type='samples')
            assert comparison.p_value == pytest.approx(expected.pvalue, abs=1e-12)
            assert comparison.wins == (np.sum(one > other), np.sum(one < other))
        assert comparison.p_adjusted == comparison.p_value >= comparison.least_p == 2 / 2 ** len(scores)

    def test_by_hand(self):
        """Three backbones on two data sets; the ViT is best on one and shares the best place on the other."""
        scores = [[0.5, 0.6, 0.8], [0.7, 0.9, 0.9]]
        found = families.across_datasets(table(('resnet18', 'pixels', 'vit_micro'), scores))
        (ranking,), (comparison,) = found.rankings, found.comparisons
        assert [(each.results[0].variant.backbone, each.rank, each.lowest, each.highest) for each in ranking.lines] == [
            ('vit_micro', 1.25, 1, 1.5), ('pixels', 1.75, 1.5, 2), ('resnet18', 3, 3, 3),
        ]  # fmt: skip
        assert [each.family for each in ranking.lines] == ['ViT', '', 'CNN']
        assert comparison.differences[0] == pytest.approx(-np.log(160.5 / 40.5))
        assert comparison.differences[1] == pytest.approx(np.log(140.5 / 60.5) - np.log(180.5 / 20.5))
        assert (comparison.wins, comparison.p_value) == ((0, 2), 0.5)
        assert found[2:] == ((), (), ())

    def test_all_right_and_all_wrong_have_a_logit(self):
        (line, *_) = families.across_datasets(table(('resnet18', 'vit_micro'), [[1.0, 0.0]] * 2)).rankings[0].lines
        np.testing.assert_allclose(line.logits, np.log(200.5 / 0.5))

    def test_seeds_are_averaged_and_their_order_breaks_no_tie(self):
        scores = (0.1, 0.2, 0.3), (0.3, 0.2, 0.1)
        assert np.mean(scores[0]) != np.mean(scores[1])
        entries = [
            aggregate(backbone, dataset, each)
            for dataset in 'ab'
            for backbone, each in zip(('resnet18', 'vit_micro'), scores, strict=True)
        ]
        found = families.across_datasets(entries)
        assert [line.rank for line in found.rankings[0].lines] == [1.5, 1.5]

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.integers(1, 20), min_size=1, max_size=5), st.integers(0, 2**32 - 1))
    def test_no_adjusted_p_is_below_the_least_one(self, sizes, seed):
        generator = np.random.default_rng(seed)
        differences = [np.abs(generator.normal(size=size)) + generator.choice([0, -1]) for size in sizes]
        least = statistics.holm([statistics.least_sign_flip_p(size) for size in sizes])
        found = statistics.holm([statistics.sign_flip_test(each) for each in differences])
        assert np.all(found >= least - 1e-15)
        one_sign = [statistics.sign_flip_test(np.ones(size)) for size in sizes if size <= 16]
        assert one_sign == [statistics.least_sign_flip_p(size) for size in sizes if size <= 16]

    @settings(max_examples=25, deadline=None)
    @given(counts, st.randoms(use_true_random=False))
    def test_the_order_of_the_results_changes_nothing(self, right, random):
        entries = table((*CNNS, *VITS), right / IMAGES)
        shuffled = random.sample(entries, len(entries))
        (one,), (other,) = (families.across_datasets(each).comparisons for each in (entries, shuffled))
        assert one.p_value == other.p_value
        assert one.difference == pytest.approx(other.difference, abs=1e-12)


class TestWhatIsCompared:
    def test_like_with_like(self):
        """Neither regimes, settings, heads nor random and other weights are mixed."""
        entries = []
        for changes in (
            {}, {'weights': 'random'}, {'regime': 'knn'}, {'settings': (('image_size', 64),)},
            {'settings': (('image_size', 64),), 'weights': 'random'}, {'head': 'fcos'},
        ):  # fmt: skip
            entries += table(('resnet18', 'vit_micro'), [[0.5, 0.6]] * 6, **changes)
        found = families.across_datasets(entries)
        assert [each.kind.text for each in found.comparisons] == [
            'linear, pretrained', 'linear · image_size 64, pretrained', 'linear, random',
            'linear · image_size 64, random', 'knn, pretrained', 'fcos · linear, pretrained',
        ]  # fmt: skip
        assert all(each.lines == (1, 1) for each in found.comparisons)
        assert [len(ranking.lines) for ranking in found.rankings] == [8, 2, 2]
        assert {each.p_value for each in found.comparisons} == {2 / 2**6}
        # Six data sets are enough for one comparison, but not for six.
        assert {each.p_adjusted for each in found.comparisons} == {6 * 2 / 2**6}
        assert not any(each.can_be_significant for each in found.comparisons)

    def test_the_most_labels_of_each_data_set_count(self):
        entries = table(('resnet18', 'vit_micro'), [[0.1, 0.2]] * 2, fraction=0.1)
        entries += table(('resnet18', 'vit_micro'), [[0.8, 0.7]] * 2)
        entries += [aggregate(each, 'd2', 0.5, shots=5) for each in ('resnet18', 'vit_micro')]
        (ranking,) = families.across_datasets(entries).rankings
        assert ranking.labels == ('100 %', '100 %', '5 per class')
        assert [each.mean for each in ranking.lines[0].results] == [0.8, 0.8, 0.5]
        assert '(d0: 100 %; d1: 100 %; d2: 5 per class)' in family_tables.note_on_lines(ranking)

    def test_what_is_left_out_is_said(self):
        entries = table(('resnet18', 'vit_micro', 'later_net', 'pixels'), [[0.5, 0.6, 0.7, 0.4]] * 3)
        entries += [aggregate('resnet50', 'd1', 0.5), aggregate('swin_tiny', 'd1', 0.5, fraction=0.1)]
        entries += table(('resnet18',), [[0.3]] * 3, weights='random')
        entries += [aggregate('resnet18', 'd0', 0.5, regime='knn')]
        found = families.across_datasets(entries)
        (ranking,) = found.rankings
        names = [line.results[0].variant.label for line in ranking.lines]
        assert names == ['later_net · hub', 'vit_micro · hub', 'resnet18 · hub', 'pixels · hub', 'resnet18 · random']
        assert 'resnet50 · hub (not on d0, d2), swin_tiny · hub (not on d0, d1, d2)' in family_tables.note_on_lines(
            ranking
        )
        assert family_tables.left_out(found) == (
            'Not compared, because no other family has such lines: linear, random (only CNN). '
            'In no family that this version knows: later_net. Left out, because there is only one data set: knn.'
        )

    def test_too_few_data_sets_are_said_and_enough_are_not(self):
        def said(datasets, regimes):
            entries = []
            for regime in regimes:
                entries += table(('resnet18', 'vit_micro'), [[0.5, 0.6]] * datasets, regime=regime)
            return family_tables.too_few(families.across_datasets(entries).comparisons)

        assert said(2, ['a']) == (
            'There are too few data sets for a significant difference, however large it is: p is at least 0.5 with 2 '
            'data sets. With 6 data sets it could be below 0.05.'
        )
        assert 'With 6 data' in said(5, ['a'])
        assert said(6, ['a']) == ''
        assert 'before it is adjusted for 2 comparisons. With 7 data sets' in said(6, ['a', 'b'])
        assert said(7, ['a', 'b']) == ''
        # Of several regimes, those with few data sets are named.
        entries = table(('resnet18', 'vit_micro'), [[0.5, 0.6]] * 8)
        entries += table(('resnet18', 'vit_micro'), [[0.5, 0.6]] * 2, regime='knn')
        text = family_tables.too_few(families.across_datasets(entries).comparisons)
        assert 'a significant difference of knn, pretrained, however' in text

    def test_one_data_set_has_no_section(self):
        entries = table(('resnet18', 'vit_micro'), [[0.5, 0.6]])
        entries += [aggregate('vit_micro', 'other', 0.5, regime='knn')]
        assert families.across_datasets(entries) is None
        assert family_tables.markdown(entries) == ''

    def test_no_line_on_all_data_sets(self):
        entries = [aggregate('resnet18', 'a', 0.5), aggregate('vit_micro', 'b', 0.5)]
        text = family_tables.markdown(entries)
        assert '|' not in text
        assert 'resnet18 · hub (not on b), vit_micro · hub (not on a)' in text

    def test_signs(self):
        assert [family_tables.signed(each) for each in (-0.126, 1, -0.004)] == ['−0.13', '+1.00', '0.00']

    def test_every_family_has_a_name(self):
        assert tuple(registry.FAMILY_NAMES) == registry.FAMILIES


def directory(path, count, backbones):
    return synthetic_results.work_directory(
        path,
        datasets=[(f'set{index}', 0.5 + 0.2 * index) for index in range(count)],
        backbones=backbones,
        regimes=('linear',),
        fractions=(0.1, 1.0),
        seeds=(0, 1),
        test=40,
    )


BOTH = [each for each in synthetic_results.BACKBONES if each[0] in (*CNNS, *VITS)]


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    return directory(tmp_path_factory.mktemp('families') / 'run', 6, BOTH)


class TestShown:
    def test_in_the_page(self, place):
        found = content.read([place])
        page = check(build.html(found))
        assert 'across' in page.values('id')
        section = Page(across_datasets.section(found))
        assert section.texts[:2] == ['Family against family', 'regime']
        (comparison,) = families.across_datasets(found.aggregates).comparisons
        assert section.texts[section.texts.index('pretrained') + 1 :][:2] == ['CNN − ViT', '3 / 3']
        assert any(f'{comparison.wins[0]}, ViT on {comparison.wins[1]} of 6' in text for text in section.texts)
        # A point for each data set says what its place says.
        tips = [text for text in section.texts if text.startswith('set') and 'difference of logits' in text]
        assert len(tips) == 6
        assert section.texts.index('Lines') > section.texts.index('Numbers of this figure')

    def test_in_table_md_and_nowhere_in_table_csv(self, place, tmp_path, capsys):
        report.write([place], tmp_path)
        text = (tmp_path / 'table.md').read_text()
        before, _, after = text.partition('\n### Across data sets\n')
        assert before.count('### set') == 6
        assert '| linear | pretrained | CNN − ViT | 3 / 3 |' in after
        assert after.count('| set') == 6
        assert after.count(' ← ') == len(BOTH) + 1
        assert len((tmp_path / 'table.csv').read_text().splitlines()) == 1 + 6 * 2 * len(BOTH)

    def test_two_data_sets_without_significance(self, tmp_path):
        found = content.read([directory(tmp_path, 2, BOTH)])
        texts = Page(across_datasets.section(found)).texts
        assert texts[1].startswith('There are too few data sets')
        assert any('too few for significance' in text for text in texts)

    def test_one_data_set(self, tmp_path):
        found = content.read([directory(tmp_path, 1, BOTH)])
        assert across_datasets.section(found) is None
        assert 'across' not in check(build.html(found)).values('id')

    def test_one_family_has_ranks_alone(self, tmp_path):
        found = content.read([directory(tmp_path, 3, BOTH[:3])])
        texts = Page(across_datasets.section(found)).texts
        assert 'Family against family' not in texts
        assert 'average rank' in texts
        assert {*texts} >= {'resnet18', 'resnet50', 'convnext_tiny'}
        text = family_tables.markdown(found.aggregates)
        assert 'Families of backbones' not in text
        assert 'Lines of linear over 3 data sets:' in text

    def test_random_weights_beside_pretrained_ones(self, place, tmp_path):
        made = rows.read(place)
        variants = [Variant(row.cell.variant.backbone, 'random') for row in made]
        cells = [dataclasses.replace(row.cell, variant=each) for row, each in zip(made, variants, strict=True)]
        controls = [dataclasses.replace(row, cell=cell) for row, cell in zip(made, cells, strict=True)]
        other = directory(tmp_path / 'both', 6, BOTH)
        rows.write(other, [*made, *controls])
        section = Page(across_datasets.section(content.read([other])))
        assert {'pretrained weights', 'random weights'} <= {*section.texts}
        tips = [text for text in section.texts if text.startswith('set') and 'difference of logits' in text]
        assert len(tips) == 12
