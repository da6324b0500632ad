"""Labels per class, instead of a share of all."""

import datetime
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import make_config, make_dataset
from tiny_dense import make_dense

from backbones import UserError
from experiments.ablation import cells, estimate
from experiments.ablation.engine import Engine
from experiments.data.splits import shots_of_classes, stratified_fraction
from experiments.results import aggregates, curves, failures, plots, rows, runs, tables
from experiments.results.page import content, runs_index
from experiments.results.page.sections import learning, results
from experiments.training import config as configuration
from experiments.training.session import Session


def shots_config(**changes):
    values = {'backbones': ('pixels',), 'regimes': ('knn',), 'fractions': (1.0,), 'shots': (1, 5)}
    return make_config(**{**values, **changes})


@given(st.integers(1, 6), st.integers(0, 5), st.integers(0, 2**32 - 1))
def test_they_are_drawn_from_each_class_and_nested(few, more, seed):
    labels = np.repeat(np.arange(4), [11, 12, 13, 40])
    indices = np.arange(0, len(labels))
    small, large = (shots_of_classes(labels, indices, count, seed, 4) for count in (few, few + more))
    assert np.bincount(labels[small]).tolist() == [few] * 4
    assert set(small) <= set(large)
    # A fraction that leaves at least as many of each class has them too.
    assert set(small) <= set(stratified_fraction(labels, indices, few / 11, seed, 4))
    assert small.tolist() == sorted(small) == shots_of_classes(labels, indices, few, seed, 4).tolist()


def test_seeds_draw_different_ones():
    labels = np.repeat(np.arange(4), 30)
    drawn = {tuple(shots_of_classes(labels, np.arange(120), 3, seed, 4)) for seed in range(10)}
    assert len(drawn) == 10


def test_a_class_with_too_few_is_named():
    labels = np.repeat(np.arange(2), [9, 2])
    with pytest.raises(UserError, match=r'3 shots are more than the 2 training examples of class 1 \(of 2\)'):
        shots_of_classes(labels, np.arange(11), 3, 0, 2)
    with pytest.raises(UserError, match='at least 1, not 0'):
        shots_of_classes(labels, np.arange(11), 0, 0, 2)


def test_a_dense_task_has_none():
    with pytest.raises(UserError, match='has no single class'):
        make_dense('segmentation').labelled(1.0, 2, 0)


class TestAblation:
    def test_they_are_columns(self, tmp_path):
        Engine(shots_config(), tmp_path, make_dataset).run(cells.plan(shots_config()))
        found = {(row.cell.settings, row.data['train_examples'], row.depends_on_seed) for row in rows.read(tmp_path)}
        assert found == {((('shots', 1),), 4, True), ((('shots', 5),), 20, True)}
        # And beside fractions of another start.
        config = shots_config(shots=0, fractions=(0.5, 1.0))
        Engine(config, tmp_path / 'fractions', make_dataset).run(cells.plan(config))
        entries = aggregates.load(tmp_path, tmp_path / 'fractions')
        view = tables.view(entries, 'digits')
        assert len(view.rows) == 1
        assert view.header[:7] == [
            'backbone', 'weights', 'regime', '1 per class (4 images)', '5 per class (20 images)', '0.5 (56 images)',
            '1 (112 images)',
        ]  # fmt: skip
        lines = [line.split(',') for line in tables.csv_text(entries).splitlines()]
        place = lines[0].index('shots')
        assert {tuple(line[place - 1 : place + 1]) for line in lines[1:]} == {
            ('', '1'),
            ('', '5'),
            ('0.5', ''),
            ('1.0', ''),
        }
        plots.score_against_cost(entries)

    def test_one_number_is_a_column_too(self, tmp_path):
        config = shots_config(shots=5)
        Engine(config, tmp_path, make_dataset).run(cells.plan(config))
        assert tables.view(aggregates.load(tmp_path), 'digits').header[3] == '5 per class (20 images)'

    @pytest.mark.parametrize('shots', [5, (1, 5)])
    def test_they_are_told_instead_of_a_fraction(self, tmp_path, shots):
        config = shots_config(shots=shots)
        planned = cells.plan(config)
        engine = Engine(config, tmp_path, make_dataset)
        engine.claim(planned)
        engine.run([cell for cell in planned if cell.seed == 0])
        failed = planned[-1]
        label = 'digits · pixels · knn · shots 5 · seed 1'
        assert (failed.label, failed.seed) == (label, 1)
        failures.write(tmp_path, [failures.Failure(failed, 'no luck')])
        assert failures.read(tmp_path)[0].label == label
        assert rows.read(tmp_path)[-1].cell.label == label.replace('seed 1', 'seed 0')
        report = content.read([tmp_path])
        assert '>5 per class<' in str(results.section(report))
        (run,) = runs.find(tmp_path)
        assert run.best[0].label in {f'pixels · knn · {count} per class' for count in (1, 5)}
        assert [x for x, _ in run.curve] == ([1, 5] if isinstance(shots, tuple) else [])
        if run.curve:
            page = runs_index.html([run], tmp_path, tmp_path, datetime.datetime.now())
            assert re.search(
                r'test accuracy of the best setting: [\d.]+ with 1 labels per class, [\d.]+ with 5 labels per class',
                page,
            )
        # Curves of trainings are told apart by them.
        curve = curves.Curve(tmp_path, '', '', 1, (1.0,), ('',), {}, {})
        parts = [learning._Training(curve, row, tmp_path, True, False).parts for row in rows.read(tmp_path)]
        assert parts[-1]['labels'] == '5 per class'
        assert parts[-1]['settings'] == ''

    def test_too_many_are_left_out_with_a_sentence(self, tmp_path):
        config = shots_config(shots=(5, 29))
        kept, sentences = Engine(config, tmp_path, make_dataset).possible(cells.plan(config))
        assert {cell.settings for cell in kept} == {(('shots', 5),)}
        assert sentences == [
            "29 shots of 'digits' are left out: the class 'a' has only 28 training images (--config.shots)"
        ]
        with pytest.raises(UserError, match=r'^no cell of the ablation can be run; 29 shots of'):
            Engine(shots_config(shots=29), tmp_path, make_dataset).possible(cells.plan(shots_config(shots=29)))

    def test_a_fraction_excludes_them(self):
        message = (
            r"'shots' is 1 and config key 'fractions' is \(0.5, 1.0\): .*; set --config.fractions='\(1.0,\)', or leave"
        )
        with pytest.raises(UserError, match=message):
            cells.plan(shots_config(fractions=(0.5, 1.0)))
        with pytest.raises(UserError, match=r"config key 'fraction' is 0.1: .*; set --config.fraction=1.0, or leave"):
            configuration.check_shots(3, 'fraction', 0.1)
        with pytest.raises(UserError, match="'shots' must not be negative"):
            cells.plan(shots_config(shots=(1, -1)))

    def test_the_plan_counts_them(self, monkeypatch):
        monkeypatch.setattr(estimate, 'measured_speed', lambda: 1e10)
        config = shots_config(shots=7)
        assert estimate._share(cells.plan(config)[0], make_dataset(), config) == 28 / 112

    def test_a_training_takes_them(self, tmp_path):
        config = configuration.default_config()
        config.shots, config.backbone, config.image_size, config.batch_size = 3, 'vit_micro', 8, 4
        configuration.check(config)
        assert len(Session(config, make_dataset(), tmp_path).indices) == 12
        ablation = make_config(backbones=('vit_micro',), regimes=('finetune',), fractions=(1.0,), shots=(3, 4))
        for cell in cells.plan(ablation):
            made = Engine(ablation, tmp_path, make_dataset)._configs.training(cell)
            assert (made.shots, made.fraction) == (dict(cell.settings)['shots'], 1.0)
