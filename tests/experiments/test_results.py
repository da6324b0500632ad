"""Rows and scores, without a run."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from backbones import UserError
from experiments import tasks
from experiments.cli import atomic_files, commands, json_files
from experiments.results import aggregates, failures, older_rows, rows, scores
from experiments.results.axes import Cell, Variant
from experiments.results.kept import keep
from experiments.results.rows import Row
from tests.experiments.made_rows import make_row, write

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
            lambda row: row['cell'].update(fraction=[1]),
            lambda row: row['cell'].update(backbone=None),
            lambda row: row['cell'].update(dataset='a\0b'),
            lambda row: row['cell'].update(regime='half a character: \ud800'),
            lambda row: row['cell'].update(seed=10**400),
            lambda row: row.update(predictions=3),
            lambda row: row.update(versions=None),
            lambda row: row.update(versions={'jax': [1]}),
            lambda row: row.update(weights_digest=[1]),
            lambda row: row.update(at_edge=[[1]]),
            lambda row: row.update(choices=[3]),
            lambda row: row.update(schema='2'),
            lambda row: row.update(robustness={'fog': {'x': {'accuracy': 0.5}}}),
            lambda row: row.update(robustness={'fog': {'1': {'accuracy': math.nan}}}),
            lambda row: row['metrics']['validation'].update(accuracy=math.nan),
            lambda row: row['metrics']['test'].update(accuracy=math.inf),
            lambda row: row['metrics']['test'].update(accuracy=1e308),
            lambda row: row['metrics']['test'].update(loss=10**400),
            lambda row: row['costs'].update(flops_per_image=math.inf),
            lambda row: row['costs'].update(parameters=1e308),
        ],
    )
    def test_a_row_whose_values_are_of_other_types_is_named(self, tmp_path, damage):
        content = make_row().as_json()
        damage(content)
        atomic_files.write_jsonl(tmp_path / rows.RESULTS, [content])
        with pytest.raises(UserError, match=r'line 1 of .*results.jsonl is not a row of results \(ValueError: '):
            rows.read(tmp_path)

    @pytest.mark.parametrize('file', ['../victim/x.npz', '/etc/x.npz', 'predictions/../../x.npz', 'results.jsonl', ''])
    @pytest.mark.parametrize('read', [rows.read, lambda workdir: keep(workdir, workdir / 'copy')])
    def test_scores_are_in_the_work_directory(self, tmp_path, file, read):
        write(tmp_path / 'run', make_row())
        content = {**make_row().as_json(), 'predictions': file}
        atomic_files.write_jsonl(tmp_path / 'run' / rows.RESULTS, [make_row('c').as_json(), content])
        with pytest.raises(UserError, match=r"line 2 of .*predictions is '.*', expected a file .npz in its work dir"):
            read(tmp_path / 'run')

    @pytest.mark.parametrize('loss', [math.nan, math.inf, 1e308, -1e308])
    def test_a_loss_that_diverged_is_left_out_of_tables(self, tmp_path, loss):
        write(tmp_path, make_row(test={'accuracy': 0.5, 'loss': loss}))
        (found,) = aggregates.load(tmp_path)
        assert found.metrics['accuracy'] == 0.5
        assert 'loss' not in found.metrics

    def test_a_directory_in_place_of_the_commands_is_named(self, tmp_path):
        (tmp_path / commands.FILE).mkdir()
        with pytest.raises(UserError, match=r'command\.txt cannot be read \(Is a directory\); remove it'):
            commands.read(tmp_path)

    @pytest.mark.parametrize('name', [rows.RESULTS, rows.RESULT, failures.FAILURES, 'config.json'])
    def test_a_directory_in_place_of_a_file_is_named(self, tmp_path, name):
        if name != rows.RESULT:
            write(tmp_path, make_row())
        (tmp_path / name).unlink(missing_ok=True)
        (tmp_path / name).mkdir()
        with pytest.raises(UserError, match=rf'{name} cannot be read \(Is a directory\); '):
            failures.remaining([tmp_path])

    @pytest.mark.parametrize('name', [rows.RESULTS, rows.RESULT, failures.FAILURES, 'config.json'])
    def test_a_file_that_is_nested_too_deep_is_named(self, tmp_path, name):
        if name != rows.RESULT:
            write(tmp_path, make_row())
        (tmp_path / name).write_text('[' * 100_000)
        with pytest.raises(UserError, match=rf'{name} is not a .*it is nested too deep'):
            failures.remaining([tmp_path])

    def test_a_config_that_is_no_object_is_named(self, tmp_path):
        write(tmp_path, make_row())
        (tmp_path / 'config.json').write_text('5')
        with pytest.raises(UserError, match=r'config.json is not a JSON file of a run \(it is a JSON number, expected'):
            rows.read(tmp_path)

    def test_a_path_that_is_not_utf8_is_read(self, tmp_path):
        row = make_row(cell=Cell('folder:/\udcff', Variant('b', ''), 'linear', 1.0, 0))
        rows.write(tmp_path, [row])
        assert rows.read(tmp_path) == [row]

    def test_a_byte_that_is_no_text_damages_its_line_only(self, tmp_path):
        rows.write(tmp_path, [make_row()])
        with (tmp_path / rows.RESULTS).open('ab') as stream:
            stream.write(b'\xff{}\n')
        with pytest.raises(UserError, match=r'line 2 of .*results.jsonl is not a row of results'):
            rows.read(tmp_path)

    @pytest.mark.parametrize('content', ['{}', '{"config": {}}'])
    def test_a_result_of_a_training_without_its_values_is_named(self, tmp_path, content):
        (tmp_path / rows.RESULT).write_text(content)
        with pytest.raises(UserError, match=r'result\.json is not a row of results'):
            rows.read(tmp_path)

    @pytest.mark.parametrize('content', ['{', '[]'])
    def test_a_damaged_result_is_named(self, tmp_path, content):
        (tmp_path / rows.RESULT).write_text(content)
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
        targets %= logits.shape[1]
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

    @pytest.mark.parametrize(
        ('changes', 'told'),
        [
            ({'ids': np.array(['a', 'b'])}, 'a class for each of 2 examples'),
            ({'ids': np.array('a')}, 'the name of each of at least one example'),
            ({'targets': np.array(['0'] * 40)}, 'a class for each of 40 examples'),
            ({'targets': np.full(40, -1)}, 'targets are from -1 to -1, expected classes from 0'),
            ({'targets': np.full(40, 3)}, 'targets are up to 3, but there are scores of 3 classes'),
            ({'predictions': np.full(40, np.nan)}, 'a class for each of 40 examples'),
            ({'predictions': np.zeros((40, 2), int)}, 'a class for each of 40 examples'),
            ({'logits': np.zeros((3, 3), np.float16)}, 'scores of classes for each of 40 examples'),
            ({'logits': np.zeros(40, np.float16)}, 'scores of classes for each of 40 examples'),
            ({'score_kind': np.array('odds')}, "score_kind is 'odds', expected one of logits, probabilities, values"),
            ({'resampled': np.zeros(3, np.float32)}, 'the metric of 1000 samples'),
            (None, 'it is a single array'),
        ],
    )
    def test_arrays_that_are_no_scores_are_named(self, tmp_path, changes, told):
        file = write(tmp_path, make_row()) / make_row().predictions
        with np.load(file) as arrays:
            before = dict(arrays)
        with file.open('wb') as stream:
            if changes is None:
                np.save(stream, np.arange(3))
            else:
                np.savez(stream, **{**before, **changes})
        with pytest.raises(UserError, match=rf"the scores in '.*b1\.00\.npz' cannot be read \(ValueError: .*{told}"):
            aggregates.load(tmp_path)


def test_json_of_a_row_is_json():
    assert json.loads(json.dumps(make_row().as_json()))['schema'] == rows.SCHEMA


def test_a_separator_within_a_text_ends_no_line(tmp_path):
    file = tmp_path / 'lines.jsonl'
    file.write_bytes('{"a": "x\u2028y"}\r\n\n{"b": 1}\n'.encode())
    assert [(number, json_files.parse_object(line)) for number, line in json_files.lines(file, '')] == [
        (1, {'a': 'x\u2028y'}),
        (3, {'b': 1}),
    ]
