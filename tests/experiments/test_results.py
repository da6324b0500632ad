"""Rows, scores and tables, without a run."""

import csv
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from backbones import UserError
from experiments import report, tasks
from experiments.cli import atomic_files
from experiments.data import record
from experiments.results import aggregates, lines, older_rows, plots, rows, scores, seeds_and_images, tables
from experiments.results.axes import Cell, Variant
from experiments.results.rows import Row
from experiments.results.seeds_and_images import Repeated
from experiments.training.config import FREE_KEYS

ROOT = Path(__file__).parents[2]
IMPORTS = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
    apart = ('jax.', 'experiments.training.', 'experiments.ablation.')
    found = [each for each in sys.modules if f'{each}.'.startswith(apart)]
    assert not found, f'{name} imports {found}'
"""


def test_neither_jax_nor_the_trainer_is_imported():
    files = sorted((ROOT / 'experiments' / 'results').glob('*.py'))
    names = [f'experiments.results.{file.stem}' for file in files if file.stem != '__init__']
    assert len(names) >= 6
    subprocess.run([sys.executable, '-c', IMPORTS, *names, 'experiments.report'], cwd=ROOT, check=True)


def make_row(backbone='b', seed=0, score=0.5, fraction=1.0, **changes) -> Row:
    values = {
        'cell': Cell('digits', Variant(backbone, ''), 'linear', fraction, seed),
        'task': 'classification',
        'primary': 'accuracy',
        'config': {'image_size': 0, 'fit': 'crop', 'linear': {'steps': 3}},
        'validation': {'accuracy': 0.5},
        'test': {'accuracy': score, 'loss': 1.5},
        'selected': {'learning_rate': 0.1},
        'at_edge': (),
        'choices': 12,
        'depends_on_seed': True,
        'costs': {
            'parameters': 1000, 'trainable_parameters': 10, 'flops_per_image': 2e6,
            'flops_counted_in': 'traced program', 'images_per_second': 100.0,
        },
        'data': {
            'provenance': 'made up', 'fingerprint': 'abcdef0123', 'train_examples': 70, 'validation_examples': 10,
            'test_examples': 40, 'skipped': 0,
        },
        'versions': {'python': '3'},
        'predictions': f'predictions/{backbone}{fraction}{seed}.npz',
    }  # fmt: skip
    return Row(**{**values, **changes})


def legend(figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def write(workdir, *made: Row, ids=None) -> Path:
    """A work directory whose scores agree with its rows."""
    ids = ids or [f'{index:02d}' for index in range(40)]
    for row in made:
        logits = np.zeros((len(ids), 3), np.float32)
        logits[np.arange(len(ids)), (np.arange(len(ids)) >= row.score * len(ids)).astype(int)] = 1
        scores.write(workdir / row.predictions, ids, np.zeros(len(ids), np.int32), {'logits': logits})
    rows.write(workdir, made)
    return workdir


class TestRows:
    def test_a_row_reads_back_as_it_was_written(self, tmp_path):
        made = [make_row(), make_row('c', 1, at_edge=('learning_rate',), choices=None, depends_on_seed=False)]
        rows.write(tmp_path, made)
        assert rows.read(tmp_path) == made
        assert made[0].score == 0.5

    def test_no_file_has_no_rows(self, tmp_path):
        assert rows.read(tmp_path) == []

    def test_a_newer_schema_is_not_guessed_at(self, tmp_path):
        atomic_files.write_jsonl(tmp_path / rows.RESULTS, [{**make_row().as_json(), 'schema': rows.SCHEMA + 1}])
        with pytest.raises(UserError, match=r'line 1 of .*by a newer version \(schema 3; this one reads up to 2'):
            rows.read(tmp_path)

    @pytest.mark.parametrize('line', ['{"schema": 2', '[]', '{"schema": 2}', '{"cell": {}}', '3'])
    def test_a_damaged_row_is_named(self, tmp_path, line):
        rows.write(tmp_path, [make_row()])
        with (tmp_path / rows.RESULTS).open('a') as stream:
            stream.write(f'{line}\n')
        with pytest.raises(UserError, match=r'line 2 of .*results.jsonl is not a row of results'):
            rows.read(tmp_path)

    @pytest.mark.parametrize(
        'damage',
        [
            lambda row: row['metrics']['test'].update(accuracy='abc'),
            lambda row: row['metrics']['test'].clear(),
            lambda row: row.update(costs=[]),
            lambda row: row['data'].clear(),
            lambda row: row['cell'].update(seed='x'),
        ],
    )
    def test_a_row_whose_values_are_of_other_types_is_named(self, tmp_path, damage):
        content = make_row().as_json()
        damage(content)
        atomic_files.write_jsonl(tmp_path / rows.RESULTS, [content])
        with pytest.raises(UserError, match=r'line 1 of .*results.jsonl is not a row of results'):
            rows.read(tmp_path)

    def test_a_byte_that_is_no_text_damages_its_line_only(self, tmp_path):
        rows.write(tmp_path, [make_row()])
        with (tmp_path / rows.RESULTS).open('ab') as stream:
            stream.write(b'\xff{}\n')
        with pytest.raises(UserError, match=r'line 2 of .*results.jsonl is not a row of results'):
            rows.read(tmp_path)

    @pytest.mark.parametrize('content', ['[]', '{}', '{"config": {}}'])
    def test_a_result_of_a_training_without_its_values_is_named(self, tmp_path, content):
        (tmp_path / rows.RESULT).write_text(content)
        with pytest.raises(UserError, match=r'result\.json is not a row of results'):
            rows.read(tmp_path)

    def test_a_damaged_result_is_named(self, tmp_path):
        (tmp_path / rows.RESULT).write_text('{')
        with pytest.raises(UserError, match=r'result\.json is not a JSON file'):
            rows.read(tmp_path)

    @pytest.mark.parametrize(('classes', 'kept'), [(100, True), (101, False)])
    def test_metrics_of_many_classes_are_left_to_the_scores(self, classes, kept):
        targets = np.arange(classes)
        predicted = scores.Predicted([], targets, {'logits': np.eye(classes)})
        found = rows.metrics(tasks.find('classification'), [str(number) for number in targets], predicted)
        assert {'accuracy', 'top5_accuracy', 'macro_f1'} <= found.keys()
        assert ('recall/0' in found) == kept


class TestOlderRows:
    LINEAR = {'linear': {'learning_rates': [0.1, 0.2, 0.3], 'weight_decays': [1.0]}}  # noqa: RUF012
    KNN = {'knn': {'neighbours': [1, 5, 10]}}  # noqa: RUF012
    RIDGE = {'ridge': {'smallest_penalty': 1e-6, 'largest_penalty': 1e3, 'penalties': 37}}  # noqa: RUF012
    TRAINING = {'training_learning_rates': [1e-3, 3e-3]}  # noqa: RUF012

    @pytest.mark.parametrize(
        ('regime', 'config', 'selected', 'expected'),
        [
            ('linear', LINEAR, {'learning_rate': 0.3, 'weight_decay': 1.0}, ['learning_rate']),
            ('linear', LINEAR, {'learning_rate': 0.1, 'weight_decay': 1.0}, ['learning_rate']),
            ('linear', LINEAR, {'learning_rate': 0.2, 'weight_decay': 1.0}, []),
            ('knn', KNN, {'neighbours': 1}, []),
            ('knn', KNN, {'neighbours': 5}, []),
            ('knn', KNN, {'neighbours': 10}, ['neighbours']),
            ('ridge', RIDGE, {'penalty': float(np.geomspace(1e-6, 1e3, 37)[-1])}, ['penalty']),
            ('ridge', RIDGE, {'penalty': float(np.geomspace(1e-6, 1e3, 37)[1])}, []),
            ('finetune', TRAINING, {'learning_rate': 3e-3}, ['learning_rate']),
            ('finetune', {'training_learning_rates': [1e-3]}, {'learning_rate': 1e-3}, []),
        ],
    )
    def test_edges(self, regime, config, selected, expected):
        assert older_rows.at_edge(regime, config, selected) == expected

    def test_sizes_of_sweeps(self):
        assert older_rows.choices('linear', self.LINEAR, 100) == 3
        assert older_rows.choices('knn', self.KNN, 100) == 3
        assert older_rows.choices('knn', self.KNN, 7) == 2
        assert older_rows.choices('ridge', self.RIDGE, 100) == 37
        assert older_rows.choices('lora:8', self.TRAINING, 100) == 2

    def test_a_training_of_an_ablation(self):
        cell = Cell('digits', Variant('vit_micro', 'random'), 'scratch', 0.5, 3)
        row = {
            'cell': cell.as_json(),
            'metrics': {'test_accuracy': 0.5, 'validation_accuracy': 0.25, 'selected': {'learning_rate': 3e-3}},
            'costs': {'parameters': 9, 'trainable_parameters': 9, 'flops_per_image': 8.0, 'images_per_second': 7.0},
            'data': {'train_examples': 70, 'skipped_files': 2},
            'predictions': 'predictions/x.npz',
            'config': {'epochs': 1.0, 'seed': 0, 'learning_rate': 1e-3, 'image_size': 16, 'calibration_images': 512},
            'versions': {},
        }
        workdir_config = {'training_learning_rates': [1e-3, 3e-3], 'fit': 'squash'}
        found = Row.from_json(older_rows.from_schema_1(row, workdir_config))
        assert found.cell == cell
        assert found.config['training'] == {
            'epochs': 1.0, 'dataset': 'digits', 'backbone': 'vit_micro', 'weights': '', 'regime': 'scratch',
            'fraction': 0.5, 'seed': 3, 'learning_rate': 3e-3,
        }  # fmt: skip
        assert found.config['training_learning_rates'] == [1e-3, 3e-3]
        assert (found.config['image_size'], found.config['fit']) == (16, 'squash')
        assert (found.at_edge, found.choices, found.depends_on_seed) == (('learning_rate',), 2, True)
        assert (found.validation, found.test) == ({'accuracy': 0.25}, {'accuracy': 0.5})
        assert found.data == {'train_examples': 70, 'skipped': 2}

    @pytest.mark.parametrize(
        ('backbone', 'config', 'size'),
        [
            ('vit_micro', {'image_size': 16}, [16, 16]),
            ('vit_micro', {'image_size': 0}, None),
            ('vit_micro', {}, None),
            ('pixels', {'image_size': 16}, None),
        ],
    )
    def test_the_size_of_the_input_is_that_of_the_config(self, tmp_path, backbone, config, size):
        rows.write(tmp_path, [make_row(backbone, config=config)])
        (row,) = rows.read(tmp_path)
        assert row.costs.get('input') == size


class TestScores:
    @settings(max_examples=50, deadline=None)
    @given(
        logits=arrays.arrays(
            np.float32,
            st.tuples(st.integers(1, 5), st.sampled_from([2, 100, 101, 300])),
            elements=st.floats(-(2.0**99), 2.0**99, width=32),
        )
    )
    def test_what_is_kept(self, tmp_path_factory, logits):
        file = tmp_path_factory.mktemp('scores') / 'x.npz'
        ids, targets = [f'é{index}' for index in range(len(logits))], np.arange(len(logits), dtype=np.int32)
        scores.write(file, ids, targets, {'logits': logits})
        kept = scores.read(file)
        assert kept.ids.tolist() == ids
        np.testing.assert_array_equal(kept.targets, targets)
        np.testing.assert_array_equal(kept.predictions, logits.argmax(-1))
        np.testing.assert_array_equal(kept.correct, logits.argmax(-1) == targets)
        assert kept.logits.dtype == np.float16
        assert np.isfinite(kept.logits).all()
        expected = logits
        if logits.shape[1] > scores.MANY_CLASSES:
            assert kept.classes.shape == kept.logits.shape == (len(logits), scores.KEPT)
            np.testing.assert_array_equal(kept.classes[:, 0], kept.predictions)
            expected = np.take_along_axis(logits, kept.classes, -1)
            np.testing.assert_array_equal(expected, -np.sort(-logits, -1)[:, : scores.KEPT])
        else:
            assert kept.classes is None
        np.testing.assert_array_equal(kept.logits, np.clip(expected, -65504, 65504).astype(np.float16))

    @pytest.mark.parametrize('classes', [3, 101])
    def test_the_scores_of_validation_are_kept_beside_those_of_the_test(self, tmp_path, classes):
        generator = np.random.default_rng(0)
        logits = {name: generator.normal(size=(size, classes)) for name, size in (('test', 6), ('validation', 4))}
        validation = scores.Predicted(list('wxyz'), np.array([0, 1, 2, 0]), {'logits': logits['validation']})
        file = tmp_path / 'x.npz'
        test = {'logits': logits['test']}
        scores.write(file, list('abcdef'), np.zeros(6, int), test, score_kind='values', validation=validation)
        kept = scores.read(file)
        assert (kept.ids.tolist(), kept.score_kind) == (list('abcdef'), 'values')
        assert kept.validation.ids.tolist() == list('wxyz')
        np.testing.assert_array_equal(kept.validation.targets, validation.targets)
        np.testing.assert_array_equal(kept.validation.predictions, logits['validation'].argmax(-1))
        expected = logits['validation'].astype(np.float16)
        if classes > scores.MANY_CLASSES:
            expected = np.take_along_axis(expected, kept.validation.classes, -1)
        np.testing.assert_array_equal(kept.validation.logits, expected)
        scores.write(file, list('abcdef'), np.zeros(6, int), test)
        assert scores.read(file).validation is None

    @pytest.mark.parametrize(
        'damage', [lambda file: file.unlink(), lambda file: file.write_bytes(file.read_bytes()[:99])]
    )
    def test_a_file_that_cannot_be_read_is_named(self, tmp_path, damage):
        write(tmp_path, make_row())
        damage(tmp_path / make_row().predictions)
        with pytest.raises(UserError, match=r"the scores in '.*b1\.00\.npz' cannot be read"):
            aggregates.load(tmp_path)


class TestTables:
    def text(self, *workdirs) -> str:
        entries = aggregates.load(*workdirs)
        return '\n'.join(tables.markdown(tables.view(entries, name)) for name in aggregates.datasets(entries))

    def test_the_size_of_the_input(self, tmp_path):
        costs = make_row().costs
        made = [
            make_row('small', costs={**costs, 'input': [32, 32]}),
            make_row('wide', costs={**costs, 'input': [24, 32]}),
            make_row('old'),
        ]
        entries = aggregates.load(write(tmp_path, *made))
        view = tables.view(entries, 'digits')
        column = view.header.index('input')
        assert {row[0]: row[column] for row in map(view.cells, view.rows)} == {
            'small': '32x32 px', 'wide': '24x32 px', 'old': '–'
        }  # fmt: skip
        lines = csv.DictReader(tables.csv_text(entries).splitlines())
        assert {line['backbone']: line['input'] for line in lines} == {'small': '32x32', 'wide': '24x32', 'old': ''}
        (tmp_path / 'results.jsonl').write_text(json.dumps(make_row(costs={**costs, 'input': [32]}).as_json()) + '\n')
        with pytest.raises(UserError, match='input has the wrong type'):
            rows.read(tmp_path)

    def test_seeds_are_repetitions(self, tmp_path):
        text = self.text(write(tmp_path, make_row(score=0.5), make_row(seed=1, score=0.55)))
        assert '| b | – | linear | 52.5 (30.4–73.7) | −2.5 | 52.5 (0) | – | 1,000 | 10 | 0.002 | 100 |' in text
        assert 'Test accuracy in per cent on 40 images: mean and 95 % interval over 2 seeds (training subset, ' in text
        assert 'batch order, random weights) and test images. Columns' in text
        assert '10 validation images (linear among 12 settings)' in text
        assert aggregates.AT_EDGE not in text

    def test_no_seed_changes_anything(self, tmp_path):
        same = [make_row(seed=seed, score=0.9, depends_on_seed=False) for seed in range(3)]
        entries = aggregates.load(write(tmp_path, *same, make_row('c', 0, 0.25), make_row('c', 1, 0.25)))
        # Wilson's interval of 36 of 40.
        expected = stats.binomtest(36, 40).proportion_ci(method='wilson')
        assert (entries[0].low, entries[0].high) == pytest.approx((expected.low, expected.high))
        assert entries[0].text() == '90.0 (76.9–96.0)'
        note = tables.view(entries, 'digits').note()
        assert 'over 2 seeds (training subset, batch order, random weights) and test images, over test images' in note
        assert 'images alone where no seed changes anything.' in note
        assert [entry.best for entry in entries] == [True, False]
        assert entries[0].p_best == entries[1].p_best == aggregates.p_value(*entries)

    def test_what_was_selected_at_an_edge_is_marked_everywhere(self, tmp_path):
        edge = make_row('c', 0, 0.25, at_edge=('learning_rate',))
        entries = aggregates.load(write(tmp_path, make_row(), edge, make_row('c', 1, 0.25)))
        view = tables.view(entries, 'digits')
        assert [entry.text().endswith(' †') for entry in entries] == [False, True]
        assert 'learning_rate of linear in 1 of 3 cells' in view.note()
        assert '†' in tables.markdown(view).split('\n\n')[1]
        csv_rows = [line.split(',') for line in tables.csv_text(entries).splitlines()]
        column = csv_rows[0].index('at_edge')
        assert [row[column] for row in csv_rows[1:]] == ['', 'learning_rate:1']
        figure = plots.score_against_cost(entries)
        faces = [line.get_markerfacecolor() for line in figure.axes[0].lines if line.get_marker() == 'o']
        assert 'none' in faces
        assert 'at an edge of its grid' in legend(figure)
        # A plot that leaves the marked value out has no word for it.
        edge = make_row('b', 0, 0.25, fraction=0.5, at_edge=('learning_rate',))
        entries = aggregates.load(write(tmp_path / 'other', make_row(), edge))
        assert 'at an edge of its grid' not in legend(plots.score_against_cost(entries))

    def test_each_line_of_the_plot_is_named(self, tmp_path):
        free = {**make_row().costs, 'flops_per_image': 0}
        cells = [Cell('digits', Variant('pixels', ''), regime, 1.0, 0) for regime in ('linear', 'knn')]
        figure = plots.score_against_cost(
            aggregates.load(write(tmp_path, make_row(), *(make_row(cell=cell, costs=free) for cell in cells)))
        )
        assert legend(figure) == ['b', 'pixels · linear', 'pixels · knn', 'linear']

    def test_the_axis_and_the_note_say_what_a_flop_is(self, tmp_path):
        costs = {**make_row().costs, 'flops_counted_in': 'compiled program'}
        entries = aggregates.load(write(tmp_path, make_row(), make_row('old', costs=costs)))
        (axis,) = plots.score_against_cost(entries).axes
        assert axis.get_xlabel() == 'GFLOP per image (a multiply-add is two, traced program)'
        assert axis.get_ylabel() == 'test accuracy in %'
        note = tables.view(entries, 'digits').note()
        assert 'A multiply-add is two FLOP, counted in the traced program, and by an older version in' in note
        assert 'compiled one (old)' in note

    def test_names_that_look_like_markup_are_shown_as_they_are(self, tmp_path, capsys):
        cell = Cell('folder:[bold]', Variant('b', '[red]x'), 'linear', 1.0, 0)
        report.write([write(tmp_path, make_row(cell=cell))], tmp_path)
        shown = capsys.readouterr().out
        assert 'folder:[bold]' in shown
        assert '[red]x' in shown


class TestMetricsOfOlderRows:
    """Rows that have the accuracy alone, as an older version wrote them."""

    CLASSES = ('cat', 'dog', 'emu', 'fox', 'gnu', 'hen', 'ibis')

    def write(self, workdir, score_kind='logits', validated=True, many=0, regime='linear'):
        generator = np.random.default_rng(0)
        targets = {'test': np.arange(60) % 7, 'validation': np.arange(30) % 7}
        logits = {name: generator.normal(size=(len(each), 7 + many)) for name, each in targets.items()}
        for name, each in targets.items():
            logits[name][np.arange(len(each)), each] += 1.0 + (each != 4)
        ids = {name: [f'{index:02d}' for index in range(len(each))] for name, each in targets.items()}
        row = make_row(
            cell=Cell('digits', Variant('b', ''), regime, 1.0, 0),
            test={'accuracy': float(np.mean(logits['test'].argmax(-1) == targets['test']))},
            validation={'accuracy': 0.93},
        )
        scores.write(
            workdir / row.predictions,
            ids['test'],
            targets['test'],
            {'logits': logits['test']},
            score_kind=score_kind,
            validation=scores.Predicted(ids['validation'], targets['validation'], {'logits': logits['validation']})
            if validated
            else None,
        )
        rows.write(workdir, [row])
        record_file = record.file_of(workdir, 'digits')
        record_file.parent.mkdir(exist_ok=True)
        atomic_files.write_json(record_file, {'classes': self.CLASSES})
        return logits, targets

    def test_they_are_those_that_a_row_of_this_version_has(self, tmp_path):
        logits, targets = self.write(tmp_path)
        logits = {name: each.astype(np.float16).astype(np.float32) for name, each in logits.items()}
        (entry,) = aggregates.load(tmp_path)
        expected = rows.metrics(
            tasks.find('classification'),
            self.CLASSES,
            scores.Predicted([], targets['test'], {'logits': logits['test']}),
            validation=scores.Predicted([], targets['validation'], {'logits': logits['validation']}),
        )
        assert {'auroc', 'ece', 'ece_scaled', 'nll', 'top5_accuracy', 'recall/gnu', 'precision/ibis'} <= expected.keys()
        assert entry.metrics == pytest.approx(expected)

    def test_the_gap_and_the_worst_class(self, tmp_path):
        logits, targets = self.write(tmp_path)
        (entry,) = aggregates.load(tmp_path)
        of_class = targets['test'] == 4
        recall = np.mean(logits['test'][of_class].argmax(-1) == 4)
        assert entry.worst_class == ('gnu', pytest.approx(recall))
        assert entry.gap == pytest.approx(0.93 - entry.scores[0])
        view = tables.view([entry], 'digits')
        (texts,) = map(view.cells, view.rows)
        shown = dict(zip(view.header, texts, strict=True))
        assert shown['val − test'] == f'{93 - 100 * entry.scores[0]:+.1f}'
        assert shown['worst recall'] == f'{100 * recall:.1f} (gnu)'
        assert '"worst recall" is that of the class with the lowest' in view.note()
        unknown = dataclasses.replace(entry, validation={}, metrics={'accuracy': entry.scores[0]})
        assert (unknown.gap, unknown.worst_class) == (None, None)
        view = tables.view([unknown], 'digits')
        assert not {'val − test', 'worst recall'} & {*view.header}
        assert '"worst' not in view.note()
        assert view.further() == []

    def test_further_metrics_come_after_the_main_table(self, tmp_path):
        logits, targets = self.write(tmp_path)
        entries = aggregates.load(tmp_path)
        view = tables.view(entries, 'digits')
        further, recalls, precisions = view.further()
        assert further.title == 'further metrics, in per cent except nll'
        assert further.header[3:] == [
            'top5 accuracy', 'balanced accuracy', 'macro f1', 'auroc', 'nll', 'ece', 'ece scaled',
        ]  # fmt: skip
        assert recalls.header[3:] == precisions.header[3:] == list(self.CLASSES)
        predicted = logits['test'].argmax(-1)
        expected = sklearn.metrics.recall_score(targets['test'], predicted, average=None)
        assert recalls.rows[0][3:] == [f'{100 * value:.1f}' for value in expected]
        text = tables.markdown(view)
        assert 'Test split: precision of each class, in per cent:' in text
        # The terminal shows one table of classes.
        assert len(tables.rich_tables_further(view)) == 2
        (line,) = csv.DictReader(tables.csv_text(entries).splitlines())
        assert float(line['ece_scaled']) == entries[0].metrics['ece_scaled']
        assert line['validation_score'] == '0.93'
        assert line['worst_class'] == 'gnu'
        assert 'recall/cat' not in line

    def test_memory_is_among_the_further_metrics(self, tmp_path):
        self.write(tmp_path)
        (entry,) = aggregates.load(tmp_path)
        assert 'MiB of weights' not in tables.view([entry], 'digits').further()[0].header
        costs = {**entry.costs, 'weight_bytes': 3 * 2**19, 'peak_memory_bytes': None}
        known = dataclasses.replace(entry, costs=costs)
        other = dataclasses.replace(entry, costs={**costs, 'peak_memory_bytes': 2**31}, regime='knn')
        table = tables.view([known, other], 'digits').further()[0]
        assert table.header[-2:] == ['MiB of weights', 'MiB at peak']
        assert sorted(row[-2:] for row in table.rows) == [['1.5', '2,048.0'], ['1.5', '–']]
        lines = csv.DictReader(tables.csv_text([known, other]).splitlines())
        assert [line['peak_memory_bytes'] for line in lines] == ['', str(2**31)]

    def test_of_many_classes_the_worst_are_shown(self, tmp_path):
        self.write(tmp_path)
        (entry,) = aggregates.load(tmp_path)
        many = {f'recall/{index}': (index * 7 % 30) / 30 for index in range(30)}
        view = tables.view([dataclasses.replace(entry, metrics=many)], 'digits')
        (table,) = view.further()
        assert table.title == 'recall of the 20 classes of 30 with the lowest mean, in per cent'
        assert len(table.header) == 3 + 20
        assert table.rows[0][3:6] == ['0.0', '3.3', '6.7']

    def test_what_cannot_be_told_is_left_out(self, tmp_path):
        self.write(tmp_path / 'unvalidated', validated=False)
        (entry,) = aggregates.load(tmp_path / 'unvalidated')
        assert {'nll', 'ece'} <= entry.metrics.keys()
        assert not {'temperature', 'ece_scaled'} & entry.metrics.keys()
        self.write(tmp_path / 'values', score_kind='values')
        (entry,) = aggregates.load(tmp_path / 'values')
        assert {'auroc', 'nll_scaled', 'ece_scaled'} <= entry.metrics.keys()
        assert not {'nll', 'ece', 'brier'} & entry.metrics.keys()
        # Of many classes only the largest scores are kept, but every prediction.
        logits, targets = self.write(tmp_path / 'many', many=100)
        (entry,) = aggregates.load(tmp_path / 'many')
        assert {'macro_f1', 'recall/cat'} <= entry.metrics.keys()
        best = np.argsort(-logits['test'], axis=-1)[:, :5]
        assert entry.metrics['top5_accuracy'] == np.mean((best == targets['test'][:, None]).any(-1))
        assert not {'auroc', 'nll'} & entry.metrics.keys()

    def test_a_file_that_does_not_say_what_its_scores_are(self, tmp_path):
        self.write(tmp_path, regime='ridge')
        (file,) = (tmp_path / 'predictions').iterdir()
        with np.load(file) as arrays:
            kept = {name: arrays[name] for name in arrays if name != 'score_kind'}
        np.savez(file, **kept)
        (entry,) = aggregates.load(tmp_path)
        assert 'nll_scaled' in entry.metrics
        assert 'nll' not in entry.metrics

    def test_classes_without_a_name_have_a_number(self, tmp_path):
        self.write(tmp_path)
        record.file_of(tmp_path, 'digits').unlink()
        (entry,) = aggregates.load(tmp_path)
        assert entry.worst_class[0] == '4'


class TestSeveralDirectories:
    def test_seeds_in_several_directories_are_repetitions(self, tmp_path):
        one = write(tmp_path / 'one', make_row())
        # An older version did not have the key 'fit'.
        other = write(tmp_path / 'other', make_row(seed=1, config={'image_size': 0, 'linear': {'steps': 3}}))
        (entry,) = aggregates.load(one, other)
        assert entry.scores == (0.5, 0.5)

    def test_the_same_cell_counts_once(self, tmp_path):
        (entry,) = aggregates.load(write(tmp_path / 'one', make_row()), write(tmp_path / 'other', make_row()))
        assert entry.scores == (0.5,)

    @pytest.mark.parametrize('digests', [('a', 'b', 'b'), (None, 'a', 'b'), ('a', None, 'b')])
    def test_networks_trained_again_under_one_name_are_lines_of_their_own(self, tmp_path, digests):
        first, second, other = digests
        made = [make_row(weights_digest=first), make_row(seed=1, weights_digest=second)]
        one = write(tmp_path / 'one', *made)
        other = write(tmp_path / 'other', *(make_row(seed=seed, score=0.9, weights_digest=other) for seed in (0, 3)))
        entries = aggregates.load(one, other)
        assert [(each.regime, each.scores) for each in entries] == [
            ('linear (one)', (0.5, 0.5)), ('linear (other)', (0.9, 0.9)),
        ]  # fmt: skip

    @pytest.mark.parametrize('digests', [('a', 'a'), (None, 'a'), ('a', None)])
    def test_weights_that_are_not_known_to_differ_are_the_same(self, tmp_path, digests):
        one, other = (
            write(tmp_path / str(seed), make_row(seed=seed, weights_digest=digest))
            for seed, digest in enumerate(digests)
        )
        assert [each.scores for each in aggregates.load(one, other)] == [(0.5, 0.5)]

    @pytest.mark.parametrize(
        ('regime', 'weights', 'key', 'depends'),
        [
            ('knn', 'x.pth', 'normalisation', False), ('linear', 'x.pth', 'normalisation', True),
            ('attentive', 'x.pth', 'tap', False), ('knn', 'x.pth', 'tap', True), ('scratch', 'random', 'tap', False),
            ('knn', 'x.pth', 'calibration_images', False), ('knn', 'random', 'calibration_images', True),
            ('knn', 'random', 'strict_weights', False), ('knn', 'x.pth', 'strict_weights', True),
            ('scratch', 'random', 'refit', False), ('knn', 'x.pth', 'severities', False),
        ],
    )  # fmt: skip
    def test_an_axis_of_another_directory_is_of_the_cells_that_depend_on_it(
        self, tmp_path, regime, weights, key, depends
    ):
        cell = Cell('digits', Variant('b', weights), regime, 1.0, 0)
        config = {'fit': 'crop', 'training' if regime == 'scratch' else regime: {'steps': 3}}
        made = make_row(cell=cell, config={**config, key: 1})
        # In the directory that has the axis, only cells that depend on it have the key.
        several = [make_row(cell=dataclasses.replace(cell, settings=((key, value),))) for value in (1, 2)]
        several = [dataclasses.replace(row, config={**config, key: row.cell.settings[0][1]}) for row in several]
        several = several if depends else [make_row(cell=cell, config=config)]
        other = dataclasses.replace(cell, variant=Variant('c', weights), settings=((key, 1),))
        several = [dataclasses.replace(row, predictions=f'{index}.npz') for index, row in enumerate(several)]
        axis = write(tmp_path / 'axis', *several, make_row('c', cell=other, config=config))
        entries = aggregates.load(axis, write(tmp_path / 'one', made))
        mine = [each for each in entries if each.variant.backbone == 'b']
        assert [each.settings for each in mine] == ([((key, 1),), ((key, 2),)] if depends else [()])

    def test_values_that_a_cell_does_not_depend_on_decide_nothing(self, tmp_path):
        cell = Cell('digits', Variant('b', ''), 'knn', 1.0, 0)
        one, other = (
            write(tmp_path / value, make_row(cell=cell, config={'knn': {}, 'normalisation': value}))
            for value in ('centre', 'none')
        )
        assert [each.regime for each in aggregates.load(one, other)] == ['knn']

    def test_another_config_is_a_row_of_its_own_named_after_its_directory(self, tmp_path):
        one = write(tmp_path / 'one', make_row())
        other = write(tmp_path / 'other', make_row(config={'image_size': 0, 'linear': {'steps': 4}}))
        assert [entry.regime for entry in aggregates.load(one, other)] == ['linear (one)', 'linear (other)']

    def test_a_training_is_not_a_repetition_of_a_head(self, tmp_path):
        one = write(tmp_path / 'one', make_row())
        training = {'backbone': 'b', 'image_size': 0, 'fit': 'crop', 'threads': 3, 'epochs': 1.0}
        other = write(tmp_path / 'other', make_row(config=training))
        third = write(tmp_path / 'third', make_row(seed=1, config={**training, 'threads': 4, 'seed': 1}))
        entries = aggregates.load(one, other, third)
        assert [(entry.regime, len(entry.scores)) for entry in entries] == [('linear (one)', 1), ('linear (other)', 2)]

    def test_where_a_run_computes_decides_nothing(self):
        assert {key.partition('.')[0] for key in FREE_KEYS} <= lines._NOT_DECISIVE

    def test_other_data_of_one_name_are_another_data_set(self, tmp_path):
        data = {**make_row().data, 'fingerprint': '9876543210'}
        one = write(tmp_path / 'one', make_row())
        entries = aggregates.load(one, write(tmp_path / 'other', make_row(data=data)))
        assert aggregates.datasets(entries) == ['digits [abcdef]', 'digits [987654]']

    def test_examples_are_paired_by_name(self, tmp_path):
        one = write(tmp_path / 'one', make_row(), make_row(seed=1))
        ids = [f'{index:02d}' for index in reversed(range(2, 40))]
        other = write(tmp_path / 'other', make_row('c', 0, 0.5), make_row('c', 1, 0.5), ids=ids)
        entries = aggregates.load(one, other)
        found = aggregates.p_value(*entries)
        # The first half of ``one`` is right, and as the order is reversed the other half of ``other``.
        right = np.repeat(np.arange(2, 40)[None] < 20, 2, 0), np.repeat(np.arange(2, 40)[None] > 20, 2, 0)
        assert found == seeds_and_images.p_value(*(Repeated.of_examples(each, (0, 1)) for each in right))

    def test_the_command_writes_one_table(self, tmp_path, capsys):
        one, other = write(tmp_path / 'one', make_row()), write(tmp_path / 'other', make_row('c'))
        report.main(['--workdir', str(one), '--workdir', str(other), '--output', str(tmp_path / 'both')])
        assert len((tmp_path / 'both' / 'table.csv').read_text().splitlines()) == 3
        for name in report.FILES:
            assert (tmp_path / 'both' / name).exists()
            assert not (one / name).exists()
            assert not (other / name).exists()
        assert 'score_vs_cost.png' in capsys.readouterr().out
        report.main(['--workdir', str(one), '--workdir', str(one)])
        assert len((one / 'table.csv').read_text().splitlines()) == 2

    def test_no_directory_loses_its_report_to_that_of_several(self, tmp_path):
        one, other = write(tmp_path / 'one', make_row()), write(tmp_path / 'other', make_row('c'))
        with pytest.raises(UserError, match='2 work directories need --output DIR'):
            report.main(['--workdir', str(one), '--workdir', str(other)])
        assert not (one / 'table.csv').exists()

    def test_a_directory_has_one_line_also_where_only_some_fractions_differ(self, tmp_path):
        changed = {'image_size': 0, 'linear': {'steps': 4}}
        one = write(tmp_path / 'one', make_row(), make_row(fraction=0.5))
        other = write(tmp_path / 'other', make_row(config=changed), make_row(fraction=0.1, config=changed))
        entries = aggregates.load(one, other)
        assert [(entry.regime, entry.fraction) for entry in entries] == [
            ('linear (one)', 1.0), ('linear (one)', 0.5), ('linear (other)', 1.0), ('linear (other)', 0.1),
        ]  # fmt: skip

    def test_a_directory_without_results_is_named(self, tmp_path):
        with pytest.raises(UserError, match=r"there are no results in '.*nothing'"):
            aggregates.load(write(tmp_path / 'one', make_row()), tmp_path / 'nothing')


def test_json_of_a_row_is_json():
    assert json.loads(json.dumps(make_row().as_json()))['schema'] == rows.SCHEMA
