"""Robustness in an ablation: the selected heads on corrupted test images, their rows, and the tables of them."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest

from backbones.errors import UserError
from experiments import probes
from experiments.ablation import cells, dependencies, robustness
from experiments.ablation.engine import Engine
from experiments.ablation.time_limit import OutOfTime, TimeLimit
from experiments.cli import atomic_files
from experiments.commands import report
from experiments.data import corruptions
from experiments.data.corrupted import corrupted
from experiments.data.corruptions import Corruption
from experiments.features import network
from experiments.features.frozen_pass import FrozenPass
from experiments.features.store import Store
from experiments.probes import attentive, knn, linear, ridge, sweeps
from experiments.probes.common import Outcome
from experiments.results import corrupted_scores, kept, robustness_tables, rows, scores, tables
from experiments.results import robustness as summary
from experiments.results.aggregates import load
from experiments.results.axes import Cell
from experiments.results.corrupted_scores import CorruptedScores
from experiments.training import mesh
from tests.experiments import test_attentive, test_probes
from tests.experiments.made_rows import make_row, write
from tests.experiments.tiny import lazy, make_config, make_dataset

NOISE = Corruption('gaussian_noise', 3)
OLD = Path(__file__).parent / 'old_work_directories' / 'ablation'


class TestConditions:
    def test_none_by_default(self):
        assert robustness.conditions(cells.default_config()) == ()

    @pytest.mark.parametrize(
        ('names', 'count'),
        [(('fog',), 1), (('all',), 18), (('benchmark',), 14), (('benchmark', 'fog', 'saturate'), 15)],
    )
    def test_every_corruption_at_every_severity(self, names, count):
        found = robustness.conditions(make_config(corruptions=names, severities=(1, 4)))
        assert len(found) == len(set(found)) == 2 * count

    @pytest.mark.parametrize(
        ('changes', 'message'),
        [
            ({'corruptions': ('frogg',)}, "'frogg'"),
            ({'corruptions': ('frost',)}, 'photographs of frost'),
            ({'corruptions': ('fog',), 'severities': (0,)}, 'from 1 to 5, not 0'),
            ({'corruptions': ('fog',), 'severities': ()}, "'severities' is empty"),
        ],
    )
    def test_a_plan_names_what_is_wrong(self, changes, message):
        with pytest.raises(UserError, match=message):
            cells.plan(make_config(**changes))

    def test_dense_tasks_have_none(self):
        config = make_config(corruptions=('fog',))
        config.training.task = 'segmentation'
        with pytest.raises(UserError, match=r'classification, not segmentation.*corruptions=\(\)'):
            robustness.conditions(config)

    def test_a_result_depends_on_them_only_where_there_are_some(self):
        cell = cells.plan(make_config())[0]
        without = dependencies.dependencies(cell, make_config().to_dict())
        assert without['corruptions'] == ()
        assert 'severities' not in without
        config = make_config(corruptions=('fog',), severities=(2,))
        assert dependencies.dependencies(cell, config.to_dict())['severities'] == (2,)


class TestCorrupted:
    def test_holds_the_test_split_alone(self):
        dataset = make_dataset()
        made, test = corrupted(dataset, NOISE), dataset.splits['test']
        assert made.ids == tuple(dataset.ids[index] for index in test)
        np.testing.assert_array_equal(made.targets, dataset.targets[test])
        np.testing.assert_array_equal(made.splits['test'], np.arange(len(test)))
        assert made.corruption == NOISE

    def run_pass(self, dataset, batch_size=8):
        found = FrozenPass(
            lambda images: images,
            lambda _, images: images,
            (lambda images: images.reshape(len(images), -1),),
            batch_size,
            mesh.make(),
        )
        return np.concatenate([batch.values[0] for batch in found.run((), dataset, np.arange(len(dataset.targets)))])

    @pytest.mark.parametrize('batch_size', [8, pytest.param(12, marks=pytest.mark.slow)])
    def test_a_pass_sees_the_corrupted_images_whatever_the_batch(self, batch_size):
        dataset = make_dataset()
        made = corrupted(dataset, NOISE)
        expected = np.asarray(NOISE(made.images, corruptions.seeds_of(made.ids)))
        seen = self.run_pass(made, batch_size * mesh.make().devices)
        np.testing.assert_array_equal(seen, expected.reshape(len(expected), -1))
        assert (seen != made.images.reshape(len(seen), -1)).mean() > 0.5
        # The same where images are decoded one by one.
        np.testing.assert_array_equal(self.run_pass(corrupted(lazy(dataset), NOISE), batch_size), seen)

    def test_features_are_stored_under_what_they_depend_on(self):
        dataset = make_dataset()
        clean = network.data_document(dataset)
        assert 'corruption' not in clean
        documents = [
            network.data_document(corrupted(each, corruption))
            for each, corruption in (
                (dataset, NOISE),
                (dataset, Corruption('gaussian_noise', 4)),
                (dataset, Corruption('fog', 3)),
                (dataclasses.replace(dataset, ids=tuple(f'x{name}' for name in dataset.ids)), NOISE),
            )
        ]
        assert len({str(document) for document in documents}) == 4
        assert network.data_document(corrupted(dataset, NOISE)) == documents[0]
        known = lazy(dataset, content='of the files')
        assert network.data_document(corrupted(known, NOISE))['images'] != known.content_digest()


class TestHeads:
    @pytest.mark.parametrize(
        'regime',
        ['linear', 'ridge', *(pytest.param(name, marks=pytest.mark.slow) for name in ('adamw', 'knn', 'attentive'))],
    )
    def test_can_be_applied_again(self, regime):
        data = test_attentive.needle() if regime == 'attentive' else test_probes.make_data()
        module = {'linear': linear, 'adamw': linear, 'ridge': ridge, 'knn': knn, 'attentive': attentive}[regime]
        config = sweeps.TABLE['linear' if regime == 'adamw' else regime]()
        if regime == 'adamw':
            config.solver, config.steps = 'adamw', 20
        if regime == 'attentive':
            config = test_attentive.config_of(steps=5)
        (outcome, *_) = module.run(data, test_probes.make_subsets(data)[1:], config, lambda text: None)
        again = outcome.apply(data.features[data.test])
        np.testing.assert_array_equal(again, outcome.test_scores)
        # Other examples, in another number.
        some = data.validation[:7]
        np.testing.assert_allclose(
            outcome.apply(data.features[some]), outcome.validation_predictions['logits'][:7], rtol=2e-3, atol=2e-3
        )

    def test_equal_heads_are_applied_once_and_one_condition_is_held_at_a_time(self):
        calls, read = [], []

        def apply(features):
            calls.append(len(features))
            return np.eye(2)[features[:, 0].astype(int)]

        outcomes = [Outcome({}, 1.0, {}, {}, 0, apply=apply) for _ in range(3)]
        conditions = [Corruption('fog', severity) for severity in (1, 2)]
        targets = np.array([0, 1, 1])

        def features_of(condition):
            read.append(condition)
            return np.array([[0], [1], [condition.severity - 1]])

        found = robustness.of_heads(
            outcomes,
            conditions,
            features_of,
            lambda logits: CorruptedScores(0.5, logits.argmax(-1) == targets),
        )
        assert read == conditions
        assert calls == [3, 3]
        assert [each[conditions[0]].correct.tolist() for each in found] == [[True, True, False]] * 3
        assert robustness.as_row(found[0], 'accuracy') == {'fog': {'1': {'accuracy': 0.5}, '2': {'accuracy': 0.5}}}


def run(config, directory, dataset):
    Engine(config, directory, lambda name: dataset, Store(directory.parent / 'store')).run(cells.plan(config))
    return rows.read(directory)


def test_progress_and_the_time_limit_are_those_of_each_condition(tmp_path, capsys):
    dataset = make_dataset('digits')
    changes = {'corruptions': ('contrast',), 'severities': (1, 2, 3), 'fractions': (1.0,), 'seeds': (0,)}
    config = make_config(backbones=('pixels',), regimes=('knn',), **changes)
    now = itertools.count(step=60.0)  # a minute passes whenever somebody looks
    store = Store(tmp_path / 'store')

    def engine(name, hours):
        return Engine(config, tmp_path / name, lambda _: dataset, store, limit=TimeLimit(hours, lambda: next(now)))

    with pytest.raises(OutOfTime, match='1 cell is left'):
        engine('cut', 0.1).run(cells.plan(config))
    stored = [entry for entry in store.entries() if 'contrast' in entry.about['data']]
    assert 0 < len(stored) < 3
    capsys.readouterr()
    engine('whole', None).run(cells.plan(config))
    total = len(dataset.targets) + 3 * len(dataset.splits['test'])
    told = capsys.readouterr().err
    assert f'images of digits: 0 of {total}' in told
    assert f'digits: {total} of {total}' in told


@pytest.mark.slow
class TestAblation:
    def test_heads_and_trainings_are_applied_to_corrupted_images(self, tmp_path, monkeypatch, capsys):
        dataset = make_dataset('digits', channels=3)
        names = ('gaussian_noise', 'contrast')
        changes = {'corruptions': names, 'severities': (1, 5), 'fractions': (1.0,), 'seeds': (0, 1)}
        backbones = ('vit_micro@random', 'pixels')
        config = make_config(backbones=backbones, regimes=('ridge', 'scratch'), **changes)
        found = run(config, tmp_path / 'run', dataset)
        assert len(found) == 2 * (2 + 1)
        for row in found:
            _, kept = scores.read_corrupted(tmp_path / 'run' / row.predictions)
            assert list(kept) == [f'{name}/{severity}' for name in names for severity in (1, 5)]
            for condition, correct in kept.items():
                name, severity = condition.split('/')
                assert row.robustness[name][severity] == {'accuracy': correct.mean()}
        # Pixels: the head is applied to the corrupted pixels themselves.
        (ridge_row, *_) = [row for row in found if (row.cell.variant.backbone, row.cell.regime) == ('pixels', 'ridge')]
        data_of = {}

        def keep(data, subsets, settings, report):
            data_of[0] = probes.ridge.run(data, subsets, settings, report)
            return data_of[0]

        monkeypatch.setitem(probes.TABLE, 'ridge', keep)
        clean = make_config(backbones=('pixels',), regimes=('ridge',), fractions=(1.0,), seeds=(0,))
        plain = run(clean, tmp_path / 'plain', dataset)[0]
        assert not plain.robustness
        assert plain.test == ridge_row.test
        made = corrupted(dataset, Corruption('contrast', 5))
        pixels = np.asarray(made.corruption(made.images, corruptions.seeds_of(made.ids)), np.float32) / 255
        right = data_of[0][0].apply(pixels.reshape(len(pixels), -1)).argmax(-1) == made.targets
        assert ridge_row.robustness['contrast']['5']['accuracy'] == right.mean()

        # The report has both tables and a column for each condition.
        report.write([tmp_path / 'run'], tmp_path)
        assert 'relative error' in capsys.readouterr().out
        text = (tmp_path / 'table.md').read_text()
        assert 'accuracy with corrupted test images' in text
        assert (
            (tmp_path / 'table.csv')
            .read_text()
            .splitlines()[0]
            .endswith('corrupted,gaussian_noise/1,gaussian_noise/5,contrast/1,contrast/5')
        )
        (aggregate,) = [each for each in load(tmp_path / 'run') if each.regime == 'scratch']
        assert set(aggregate.robustness) == set(names)
        both = [row.robustness['contrast']['1']['accuracy'] for row in found if row.cell.regime == 'scratch']
        assert aggregate.robustness['contrast'][1] == pytest.approx(np.mean(both))
        low, high = aggregate.corrupted_interval
        assert low <= summary.mean(aggregate.robustness) <= high
        assert f' ({100 * low:.1f}–{100 * high:.1f}) |' in text

    @pytest.mark.exhaustive
    def test_a_second_ablation_runs_no_backbone(self, tmp_path, monkeypatch):
        dataset = make_dataset('digits')
        changes = {'corruptions': ('contrast',), 'severities': (2, 3), 'fractions': (1.0,), 'seeds': (0,)}
        # Its BatchNorms are calibrated on clean training images.
        run(make_config(backbones=('resnet_micro@random',), regimes=('ridge',), **changes), tmp_path / 'one', dataset)

        def fail(*_, **__):
            raise AssertionError('everything is stored')

        monkeypatch.setattr(FrozenPass, 'run', fail)
        config = make_config(backbones=('resnet_micro@random',), regimes=('knn',), **changes)
        (row,) = run(config, tmp_path / 'two', dataset)
        assert set(row.robustness['contrast']) == {'2', '3'}

    def test_unreadable_test_images_are_left_out(self, tmp_path):
        dataset = make_dataset('digits')
        bad = int(dataset.splits['test'][3])
        config = make_config(
            backbones=('pixels',), regimes=('ridge',), fractions=(1.0,), seeds=(0,), corruptions=('contrast',)
        )
        (row,) = run(config, tmp_path / 'run', lazy(dataset, bad=(bad,)))
        ids, kept = scores.read_corrupted(tmp_path / 'run' / row.predictions)
        assert dataset.ids[bad] not in ids
        assert {len(correct) for correct in kept.values()} == {len(ids)}


ROBUSTNESS = {'fog': {'1': {'accuracy': 0.5}}}


class TestRows:
    def test_are_read_back_and_older_ones_have_none(self, tmp_path):
        old = next(iter(atomic_files.read_jsonl(OLD / 'results.jsonl')))
        cell = Cell.from_json(old['cell'])
        (row, *_) = [each for each in rows.read(OLD) if each.cell == cell]
        assert row.robustness == {}
        assert 'robustness' not in row.as_json()
        rows.write(tmp_path, [dataclasses.replace(row, robustness=ROBUSTNESS)])
        assert rows.read(tmp_path)[0].robustness == ROBUSTNESS
        rows.write(tmp_path, [dataclasses.replace(row, robustness={'fog': {'1': {'accuracy': 'high'}}})])
        with pytest.raises(UserError, match=r"robustness\.fog\.1\.accuracy is 'high', expected a number"):
            rows.read(tmp_path)

    def test_correct_predictions_take_a_bit_each(self, tmp_path):
        generator = np.random.default_rng(0)
        correct = {f'fog/{severity}': generator.random(21) < 0.5 for severity in (1, 2)}
        arrays = corrupted_scores.packed(correct)
        assert arrays['corrupted_correct'].nbytes == 2 * 3
        found = corrupted_scores.unpacked(arrays, 21)
        assert list(found) == list(correct)
        for name, bits in found.items():
            np.testing.assert_array_equal(bits, correct[name])
        assert corrupted_scores.packed({}) == corrupted_scores.unpacked({}, 3) == {}


FOUND = {'fog': {1: 0.8, 3: 0.6}, 'snow': {1: 0.6, 3: 0.2}}
OTHER = {'fog': {1: 0.6, 3: 0.4}, 'snow': {1: 0.6, 3: 0.6}}


def found_at(score):
    return {name: {'1': {'accuracy': score}} for name in ('fog', 'snow')}


class TestSummaries:
    def test_means(self):
        assert summary.at_severity(FOUND) == pytest.approx({1: 0.7, 3: 0.4})
        assert summary.of_corruption(FOUND) == pytest.approx({'fog': 0.7, 'snow': 0.4})
        assert summary.mean(FOUND) == pytest.approx(0.55)
        assert summary.relative_drop(FOUND, 0.8) == pytest.approx(1 - 0.55 / 0.8)
        assert summary.relative_drop(FOUND, 0.0) is None

    def test_relative_error_is_the_mean_of_ratios_of_summed_errors(self):
        # Hendrycks & Dietterich 2019, section 4.1: CE = sum of errors / sum of the other's errors; then the mean.
        expected = ((0.2 + 0.4) / (0.4 + 0.6) + (0.4 + 0.8) / (0.4 + 0.4)) / 2
        assert summary.relative_error(FOUND, OTHER) == pytest.approx(expected)
        assert summary.relative_error(FOUND, FOUND) == pytest.approx(1)
        assert summary.relative_error(FOUND, {'fog': {1: 0.5, 3: 0.5}}) is None
        assert summary.relative_error({'fog': {1: 0.5}}, {'fog': {1: 1.0}}) is None

    def test_an_example_adds_to_the_mean_what_is_right_of_it(self):
        generator = np.random.default_rng(0)
        # One corruption has fewer severities, which count more.
        conditions = ('fog/1', 'fog/3', 'snow/2')
        correct = {condition: generator.random(20) < 0.6 for condition in (*conditions, 'other/1')}
        found = {'fog': {1: correct['fog/1'].mean(), 3: correct['fog/3'].mean()}, 'snow': {2: correct['snow/2'].mean()}}
        values = summary.of_examples(found, correct)
        np.testing.assert_allclose(values, ((correct['fog/1'] / 2 + correct['fog/3'] / 2) + correct['snow/2']) / 2)
        assert values.mean() == pytest.approx(summary.mean(found))
        assert summary.of_examples({'fog': {1: 0.5, 2: 0.5}}, correct) is None
        assert summary.of_examples({}, correct) is None

    def test_interval_covers_the_mean_at_its_nominal_rate(self, tmp_path):
        generator, covered = np.random.default_rng(0), 0
        (aggregate,) = load(write(tmp_path, make_row()))
        ids, found = aggregate.examples, {'fog': {2: 0.6}, 'snow': {2: 0.6}}
        for number in range(400):
            chance = np.clip(generator.normal(0.6, 0.13, len(ids)), 0, 1)  # images differ in how hard they are
            correct = {f'{name}/2': generator.random(len(ids)) < chance for name in found}
            file = tmp_path / f'{number}.npz'
            np.savez(file, ids=ids, **corrupted_scores.packed(correct))
            member = tmp_path, dataclasses.replace(make_row(), predictions=file.name)
            means = {name: {2: float(correct[f'{name}/2'].mean())} for name in found}
            low, high = dataclasses.replace(aggregate, robustness=means, members=(member,)).corrupted_interval
            covered += low <= 0.6 <= high
        # Three standard errors; clipping moves the mean by less than 0.001.
        assert abs(covered / 400 - 0.95) <= 3 * np.sqrt(0.05 * 0.95 / 400)
        assert aggregate.corrupted_interval is None

    def test_a_small_copy_has_it_too(self, tmp_path):
        row = dataclasses.replace(make_row(), robustness={'fog': {'2': {'accuracy': 0.6}}})
        write(tmp_path / 'run', row)
        file = tmp_path / 'run' / row.predictions
        arrays = dict(np.load(file))
        correct = np.arange(len(arrays['ids' if 'ids' in arrays else 'example'])) % 5 < 3
        np.savez(file, **arrays, **corrupted_scores.packed({'fog/2': correct}))
        kept.keep(tmp_path / 'run', tmp_path / 'copy')
        (own,), (copied,) = load(tmp_path / 'run'), load(tmp_path / 'copy')
        assert own.corrupted_interval is not None
        assert own.corrupted_interval == copied.corrupted_interval

    def test_compared_are_rows_of_the_same_share_of_the_labels(self, tmp_path):
        """A row that lacks the largest share is neither the baseline nor beside those that have it."""
        made = [
            make_row('good', score=0.9, robustness=found_at(0.8)),
            make_row('poor', score=0.6, robustness=found_at(0.4)),
            make_row('few', score=0.5, fraction=0.1, robustness=found_at(0.1)),
        ]
        view = tables.view(load(write(tmp_path, *made)), 'digits')
        assert [row[0] for row in map(view.cells, view.rows)] == ['good', 'poor', 'few']
        (summed, _) = [each for each in view.further() if 'corrupt' in each.title]
        assert 'that of poor linear' in summed.title
        column = summed.header.index('relative error')
        assert [(row[0], row[column]) for row in summed.rows] == [('good', '0.33'), ('poor', '1.00')]
        gap = view.header.index('val − test')
        assert [row[gap] for row in map(view.cells, view.rows)] == ['−40.0', '−10.0', '–']

    def test_no_table_without_corruptions(self):
        aggregates = load(OLD)
        assert robustness_tables.tables(aggregates) == []
        assert robustness_tables.csv_columns(aggregates) == []
