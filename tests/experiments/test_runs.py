"""Every run below a directory, as it is read from what runs leave in their work directories."""

import dataclasses
import datetime
import fcntl
import json
import os
import re
import shutil
import time
import urllib.parse
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backbones import UserError
from experiments import report
from experiments.cli import atomic_files
from experiments.results import aggregates, curves, failures, file_systems, planned_cells, rows, runs, shards
from experiments.results.config_differences import differences
from experiments.results.page import runs_index
from tests.experiments.made_rows import make_row, write
from tests.experiments.test_page import Page

OLD = Path(__file__).parent / 'old_work_directories'
ABLATION = {'backbones': ['b'], 'datasets': ['digits'], 'regimes': ['linear'], 'training': {'task': 'classification'}}
TRAINING = {'backbone': 'b', 'weights': '', 'regime': 'scratch', 'dataset': 'digits', 'task': 'classification'}
HOSTILE = '<script>alert(1)<\u2044script> & "x" \'y\''


def make_training(path: Path, evaluations=0, epochs=4.0, **config) -> Path:
    atomic_files.write_json(path / 'config.json', {**TRAINING, 'epochs': epochs, **config})
    if evaluations:
        lines = [
            {
                'step': 10 * (number + 1), 'epoch': number + 1.0, 'phase': 'scratch', 'loss': 1 / (number + 1),
                'validation_accuracy': 0.5 + 0.1 * number, 'validation_loss': 2.0,
            }
            for number in range(evaluations)
        ]  # fmt: skip
        atomic_files.write_jsonl(path / 'metrics.jsonl', lines)
    return path


def make_ablation(path: Path, *made, planned=None, **config) -> Path:
    atomic_files.write_json(path / 'config.json', {**ABLATION, **config})
    if made:
        rows.write(path, made)
    if planned is not None:
        planned_cells.write(path, planned)
    return path


def only(root: Path) -> runs.Run:
    (run,) = runs.find(root)
    return run


def test_runs_of_texts(tmp_path):
    name, texts = 'csv:/data/notes.csv', {**make_row().data, 'inputs': 'texts'}
    made = make_row('text_micro', data=texts, costs={**make_row().costs, 'input': [128]})
    made = dataclasses.replace(made, cell=dataclasses.replace(made.cell, dataset=name))
    make_ablation(tmp_path / 'compare', made, datasets=[name], backbones=['text_micro', 'tfidf'])
    make_training(tmp_path / 'tune', evaluations=2, dataset=name, backbone='text_micro', text_length=64)
    found = {run.name: run for run in runs.find(tmp_path)}
    assert {run.datasets for run in found.values()} == {(name,)}
    assert found['compare'].best[0].test == 0.5
    assert found['tune'].best[0].validation == 0.6
    report.main(['--runs', str(tmp_path)])
    page = Page((tmp_path / 'index.html').read_text())
    assert {'compare', 'tune', 'notes.csv'} < {*page.texts}
    assert [text for text in page.texts if 'image' in text] == []


class TestStatus:
    def test_a_config_alone_is_not_started(self, tmp_path):
        make_training(tmp_path / 'a')
        run = only(tmp_path)
        assert (run.status, run.kind, run.step, run.best, run.name) == ('not started', 'pretraining', None, (), 'a')

    def test_a_training_under_way_shows_its_latest_step_and_best_score(self, tmp_path, monkeypatch):
        monkeypatch.setattr(file_systems, 'is_local', lambda path: True)
        descriptor = os.open(make_training(tmp_path / 'a', evaluations=3, epochs=8.0), os.O_RDONLY)
        # As ``work_directories.used`` locks it; a lock of its own tells a process nothing.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        run = only(tmp_path)
        os.close(descriptor)
        assert (run.status, only(tmp_path).status) == ('under way', 'interrupted')
        assert (run.step, run.steps, run.epoch, run.epochs) == (30, 80, 3.0, 8.0)
        (best,) = run.best
        assert (best.dataset, best.metric, best.validation, best.test) == ('digits', 'accuracy', 0.7, None)
        assert run.curve == ((1.0, 0.5), (2.0, 0.6), (3.0, 0.7))

    def test_steps_of_a_log_count_before_the_first_evaluation(self, tmp_path):
        make_training(tmp_path / 'a')
        atomic_files.write_jsonl(tmp_path / 'a' / 'metrics.jsonl', [{'step': 5, 'loss': 1.0}, {'step': 7, 'loss': 0.5}])
        run = only(tmp_path)
        assert (run.step, run.steps, run.epoch, run.curve) == (7, None, None, ())

    def test_a_half_written_last_line_is_left_out(self, tmp_path):
        file = make_training(tmp_path / 'a', evaluations=3) / 'metrics.jsonl'
        file.write_text(file.read_text()[:-9])
        assert only(tmp_path).step == 20

    def test_without_a_lock_it_is_interrupted(self, tmp_path, monkeypatch):
        monkeypatch.setattr(file_systems, 'is_local', lambda path: True)
        make_training(tmp_path / 'a', evaluations=2)
        assert only(tmp_path).status == 'interrupted'

    @pytest.mark.parametrize(('age', 'status'), [(0.0, 'under way'), (7000.0, 'under way'), (12_000.0, 'interrupted')])
    def test_where_locks_tell_nothing_the_pace_of_writes_does(self, tmp_path, monkeypatch, age, status):
        monkeypatch.setattr(file_systems, 'is_local', lambda path: False)
        path, now = make_training(tmp_path / 'a', evaluations=2), time.time()
        (path / 'checkpoints' / '10').mkdir(parents=True)
        os.utime(path / 'checkpoints' / '10', (now - age - 3600, now - age - 3600))
        for name in ('config.json', 'metrics.jsonl'):
            os.utime(path / name, (now - age, now - age))
        run = only(tmp_path)
        assert (run.status, round(now - run.changed)) == (status, age)

    @pytest.mark.parametrize(
        ('event', 'config', 'status'),
        [
            ({'event': 'preempted', 'text': 'asked to stop'}, {}, 'interrupted'),
            ({'event': 'failed', 'text': 'no space left'}, {}, 'failed'),
            ({'event': 'not finite', 'text': 'loss nan'}, {}, 'failed'),
            ({'event': 'not finite', 'text': 'loss nan'}, {'non_finite': 'skip'}, 'interrupted'),
            ({'event': 'resumed', 'text': 'resumed'}, {}, 'interrupted'),
        ],
    )
    def test_the_last_event_tells_how_it_ended(self, tmp_path, monkeypatch, event, config, status):
        monkeypatch.setattr(file_systems, 'is_local', lambda path: True)
        path = make_training(tmp_path / 'a', evaluations=1, **config)
        atomic_files.write_jsonl(path / 'events.jsonl', [{'event': 'resumed', 'text': ''}, event])
        run = only(tmp_path)
        assert run.status == status
        if status == 'failed':
            assert run.reason == event['text']

    def test_a_finished_training(self, tmp_path):
        path = make_training(tmp_path / 'a', evaluations=3)
        rows.write(path, [make_row(validation={'accuracy': 0.7}, score=0.6)])
        (path / 'report.html').write_text('')
        run = only(tmp_path)
        assert (run.status, run.report) == ('finished', path / 'report.html')
        assert [(best.validation, best.test) for best in run.best] == [(0.7, 0.6)]

    def test_an_ablation_is_finished_with_its_last_planned_cell(self, tmp_path):
        made = [make_row(seed=seed) for seed in range(3)]
        planned = [row.cell for row in made]
        make_ablation(tmp_path / 'a', *made[:2], planned=planned)
        run = only(tmp_path)
        assert (run.kind, run.cells_done, run.cells_planned) == ('ablation', 2, 3)
        assert run.status == 'interrupted'
        make_ablation(tmp_path / 'a', *made, make_row(seed=9), planned=planned)
        run = only(tmp_path)
        assert (run.status, run.cells_done, run.cells_planned) == ('finished', 3, 3)

    def test_an_ablation_with_a_failed_cell(self, tmp_path):
        made = [make_row(seed=seed) for seed in range(3)]
        path = make_ablation(tmp_path / 'a', *made[:2], planned=[row.cell for row in made])
        failures.write(path, [failures.Failure(made[2].cell, 'no memory')])
        run = only(tmp_path)
        assert (run.status, run.cells_done, run.cells_planned) == ('failed', 2, 3)
        assert run.reason == f'1 cell failed: no memory ({made[2].cell.label})'
        failures.write(path, [failures.Failure(cell, 'no memory') for cell in (made[2].cell, make_row(seed=3).cell)])
        assert only(tmp_path).reason == f'2 cells failed, the first of them: no memory ({made[2].cell.label})'

    def test_shards_are_one_ablation(self, tmp_path):
        made = [make_row(seed=seed) for seed in range(4)]
        for number in range(2):
            part, cells = tmp_path / 'a' / shards.DIRECTORY / f'{number + 1}-of-2', made[2 * number : 2 * number + 2]
            make_ablation(part, *cells[: 2 - number], planned=[row.cell for row in cells])
        run = only(tmp_path)
        assert (run.name, run.kind, run.cells_done, run.cells_planned) == ('a', 'ablation', 3, 4)
        descriptor = os.open(part, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        assert only(tmp_path).status == 'under way'
        os.close(descriptor)

    def test_work_directories_of_an_earlier_version(self):
        found = {run.name: run for run in runs.find(OLD)}
        assert {name: (run.kind, run.cells_done, run.cells_planned) for name, run in found.items()} == {
            'ablation': ('ablation', 16, None),
            'train': ('training', None, None),
        }
        assert found['train'].status == 'finished'
        (best,) = found['train'].best
        assert (best.validation, round(best.test, 4)) == (None, 0.2702)
        assert found['ablation'].curve[-1] == (1.0, found['ablation'].best[0].test)


class TestBest:
    """The best setting is that of the mean over the seeds, as in the report of the run."""

    def rows(self, backbone, *scores, **changes):
        """A row for each seed: its validation and test score."""
        return [
            make_row(backbone, seed, test, validation={'accuracy': validation}, **changes)
            for seed, (validation, test) in enumerate(scores)
        ]

    def test_means_over_seeds(self, tmp_path):
        lucky, steady = self.rows('lucky', (0.9, 0.2), (0.3, 0.4)), self.rows('steady', (0.7, 0.5), (0.8, 0.6))
        make_ablation(tmp_path / 'a', *lucky, *steady)
        (best,) = only(tmp_path).best
        assert (best.label, best.seeds) == ('steady · linear', 2)
        assert (best.validation, best.test) == pytest.approx((0.75, 0.55))
        page = runs_index.html(runs.find(tmp_path), tmp_path, tmp_path, datetime.datetime.now())
        assert '<b>75.0</b> validation' in page and '<b>55.0</b> test' in page and 'mean over 2 seeds' in page

    def test_it_is_a_line_of_the_report(self, tmp_path):
        shots = [{'config': {**make_row().config, 'shots': count}} for count in (2, 8)]
        made = [
            *self.rows('b', (0.4, 0.1), (0.5, 0.7), fraction=0.1, **shots[0]),
            *self.rows('b', (0.7, 0.3), (0.5, 0.5), fraction=0.4, **shots[1]),
            *self.rows('c', (0.9, 0.9), (0.1, 0.1), fraction=0.4, **shots[1]),
        ]
        made = [dataclasses.replace(row, predictions=f'predictions/{index}.npz') for index, row in enumerate(made)]
        make_ablation(write(tmp_path / 'a', *made))
        run, lines = only(tmp_path), aggregates.load(tmp_path / 'a')
        (best,) = run.best
        assert (best.validation, best.test) in [(each.validation['accuracy'], each.mean) for each in lines]
        assert (best.label, best.test) == ('b · linear · 8 per class', pytest.approx(0.4))
        assert (run.over, run.curve) == ('shots', ((2, pytest.approx(0.4)), (8, pytest.approx(0.4))))

    def test_without_validation_scores_of_all_seeds_it_has_none(self, tmp_path):
        made = self.rows('b', (0.4, 0.1), (0.5, 0.7))
        make_ablation(tmp_path / 'a', made[0], dataclasses.replace(made[1], validation={}))
        (best,) = only(tmp_path).best
        assert (best.validation, best.test) == (None, pytest.approx(0.4))


class TestWhatIsFound:
    def test_runs_at_any_depth_once_each_through_links_and_loops(self, tmp_path):
        make_training(tmp_path / 'a' / 'b' / 'c')
        make_ablation(tmp_path / 'd')
        (tmp_path / 'a' / 'loop').symlink_to(tmp_path)
        (tmp_path / 'again').symlink_to(tmp_path / 'd')
        (tmp_path / 'self').symlink_to(tmp_path / 'self')
        (tmp_path / 'broken').symlink_to(tmp_path / 'nowhere')
        assert {run.name for run in runs.find(tmp_path)} <= {'a/b/c', 'd', 'again'}
        assert len(runs.find(tmp_path)) == 2

    def test_trainings_of_an_ablation_and_hidden_directories_are_no_runs(self, tmp_path):
        make_ablation(tmp_path / 'a')
        make_training(tmp_path / 'a' / 'trainings' / 'cell' / '0.01', evaluations=2)
        make_training(tmp_path / '.hidden')
        run = only(tmp_path)
        assert (run.name, run.step) == ('a', 20)

    def test_a_run_in_the_directory_of_another_one_is_found(self, tmp_path):
        make_training(tmp_path / 'a')
        make_training(tmp_path / 'a' / 'tuned')
        assert {run.name for run in runs.find(tmp_path)} == {'a', 'a/tuned'}

    def test_configs_of_other_programs_are_no_runs(self, tmp_path):
        atomic_files.write_json(tmp_path / 'model' / 'config.json', {'model_type': 'vit'})
        assert runs.find(tmp_path) == []

    def test_the_directory_may_be_a_work_directory(self, tmp_path):
        assert only(make_training(tmp_path)).name == '.'

    @pytest.mark.parametrize('text', ['{"backbone":', '[]', '3'])
    def test_a_damaged_config_is_listed_with_the_reason(self, tmp_path, text):
        path = make_training(tmp_path / 'a', evaluations=1)
        (path / 'config.json').write_text(text)
        run = only(tmp_path)
        assert run.status == 'unreadable' and run.reason

    def test_a_damaged_row_is_listed_with_the_reason(self, tmp_path):
        path = make_ablation(tmp_path / 'a', make_row())
        (path / 'results.jsonl').write_text('{"schema": 2')
        run = only(tmp_path)
        assert run.status == 'unreadable' and 'is not a row of results' in run.reason

    @pytest.mark.skipif(os.geteuid() == 0, reason='root may read everything')
    def test_a_directory_that_may_not_be_read_is_listed(self, tmp_path):
        (tmp_path / 'locked').mkdir(mode=0)
        run = only(tmp_path)
        assert (run.status, run.reason) == ('unreadable', 'Permission denied')

    def test_no_directory_is_said(self, tmp_path):
        with pytest.raises(UserError, match='is not a directory; --runs takes the directory that holds'):
            runs.find(tmp_path / 'nothing')

    def test_the_last_changed_run_comes_first(self, tmp_path):
        for number, name in enumerate('bac'):
            make_training(tmp_path / name)
            os.utime(tmp_path / name / 'config.json', (1000 + number, 1000 + number))
        assert [run.name for run in runs.find(tmp_path)] == ['c', 'a', 'b']

    def test_what_a_report_writes_is_no_progress(self, tmp_path):
        make_training(tmp_path / 'a')
        os.utime(tmp_path / 'a' / 'config.json', (1000, 1000))
        (tmp_path / 'a' / 'report.html').write_text('x' * 100)
        run = only(tmp_path)
        assert (run.changed, run.seconds, run.size > 100) == (1000, 0, True)

    def test_a_training_whose_weights_another_starts_from_is_a_pretraining(self, tmp_path):
        make_training(tmp_path / 'first', regime='finetune', weights='bundled:resnet_micro')
        make_training(tmp_path / 'second', regime='finetune', weights=str(tmp_path / 'first' / 'weights.safetensors'))
        make_ablation(tmp_path / 'third', backbones=[f'b@{tmp_path / "second"}'])
        make_training(tmp_path / 'fourth', regime='linear', weights='bundled:resnet_micro')
        assert {run.name: run.kind for run in runs.find(tmp_path)} == {
            'first': 'pretraining', 'second': 'pretraining', 'third': 'ablation', 'fourth': 'training',
        }  # fmt: skip

    @pytest.mark.slow
    def test_a_thousand_runs_take_seconds(self, tmp_path):
        made = make_training(tmp_path / 'first', evaluations=20)
        for number in range(999):
            shutil.copytree(made, tmp_path / f'{number % 7}' / f'{number}')
        started = time.process_time()
        found = runs.find(tmp_path)
        text = runs_index.html(found, tmp_path, tmp_path, datetime.datetime.now())
        assert time.process_time() - started < 5
        assert len(found) == 1000
        assert len(text) < 5_000_000


class TestIndex:
    """The page of all runs."""

    @pytest.fixture
    def root(self, tmp_path) -> Path:
        made = [make_row(fraction=fraction, score=fraction / 2) for fraction in (0.1, 1.0)]
        make_ablation(tmp_path / 'a b#?%' / 'c:1', *made, planned=[*(row.cell for row in made), make_row('x').cell])
        (tmp_path / 'a b#?%' / 'c:1' / 'report.html').write_text('')
        path = make_training(tmp_path / HOSTILE, evaluations=3, dataset=f'folder:{HOSTILE}')
        rows.write(path, [make_row(validation={'accuracy': 0.7}, score=0.6)])
        make_training(tmp_path / 'later', seed=1)
        (tmp_path / 'later' / 'config.json').write_text('{')
        return tmp_path

    @pytest.mark.parametrize('file', ['result.json', 'config.json'])
    def test_a_file_nested_too_deep_is_its_run_s_alone(self, root, file):
        (root / 'deep').mkdir()
        (root / 'deep' / file).write_text('[' * 100_000)
        found = {run.name: run for run in runs.find(root)}
        assert len(found) == 4
        assert found['deep'].status == 'unreadable'
        assert 'it is nested too deep' in found['deep'].reason

    def page(self, root: Path) -> tuple[Page, str]:
        report.main(['--runs', str(root)])
        text = (root / 'index.html').read_text()
        return Page(text), text

    def test_it_shows_every_run_with_a_link_to_its_report_and_asks_for_nothing(self, root, capsys):
        page, text = self.page(root)
        assert '(3 runs: ' in capsys.readouterr().out
        links = [value for value in page.values('href') if not value.startswith(('#', 'data:'))]
        assert [(root / urllib.parse.unquote(link)).is_file() for link in links] == [True]
        assert page.values('src') == []
        assert page.values('content')[0].startswith("default-src 'none'; img-src data:;")
        assert not re.search(r'https?:|@import|url\(', text)
        lines = [found for tag, found in page.elements if tag == 'tr' and 'data-status' in found]
        assert {(line['data-name'], line['data-status']) for line in lines} == {
            ('a b#?%/c:1', 'interrupted'),
            (HOSTILE, 'finished'),
            ('later', 'unreadable'),
        }
        assert '2 of 3 cells' in page.texts
        assert 'config.json is not a JSON file' in ' '.join(page.texts)
        curves_drawn = [found['aria-label'] for tag, found in page.elements if found.get('class') == 'sparkline']
        assert sorted(curves_drawn, reverse=True) == [
            'validation accuracy over 3 evaluations, the last 70.0',
            'test accuracy of the best setting: 5.0 with 10% of the labels, 50.0 with 100% of the labels',
        ]
        for drawing in re.findall(r'<svg.*?</svg>', text, re.DOTALL):
            ElementTree.fromstring(drawing)

    def test_its_own_file_is_no_run_and_changes_nothing(self, root):
        first, _ = self.page(root)
        second, _ = self.page(root)
        assert first.values('data-name') == second.values('data-name')

    def test_links_begin_where_the_page_lies(self, root, tmp_path_factory):
        elsewhere = tmp_path_factory.mktemp('elsewhere')
        report.main(['--runs', str(root), '--output', str(elsewhere)])
        links = [link for link in Page((elsewhere / 'index.html').read_text()).values('href') if link.startswith('./')]
        assert [(elsewhere / urllib.parse.unquote(link)).resolve().name for link in links] == ['report.html']

    def test_an_empty_directory_says_so(self, tmp_path):
        page, _ = self.page(tmp_path)
        assert any('There is no work directory' in text for text in page.texts)

    def test_runs_and_work_directories_exclude_each_other(self, tmp_path, capsys):
        with pytest.raises(SystemExit, match='2'):
            report.main(['--runs', str(tmp_path), '--workdir', str(tmp_path)])

    @pytest.mark.parametrize(
        ('seconds', 'text'), [(3, '3 s'), (200, '3 min'), (9000, '2.5 h'), (86_400 * 12, '12 days')]
    )
    def test_durations(self, seconds, text):
        assert runs_index.duration(seconds) == text

    @pytest.mark.parametrize(('count', 'text'), [(0, '0 B'), (1500, '1.5 kB'), (243_477, '243 kB'), (4e9, '4 GB')])
    def test_sizes(self, count, text):
        assert runs_index.size(count) == text


class TestDifferences:
    def test_what_most_do_not_have_and_what_no_majority_has(self):
        configs = [{'a': 1, 'b': 'x', 'seed': seed} for seed in range(3)]
        configs[1] |= {'b': 'y', 'new': 3}
        found = [[(each.key, each.value, each.usual) for each in run] for run in differences(configs)]
        assert found == [
            [('seed', '0', None)],
            [('b', '"y"', '"x"'), ('seed', '1', None)],
            [('seed', '2', None)],
        ]

    values = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(['', 'x']) | st.lists(st.integers(0, 1))

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.dictionaries(st.sampled_from('abc'), values), max_size=6))
    def test_each_difference_is_one_and_none_is_missing(self, configs):
        for config, found in zip(configs, differences(configs), strict=True):
            named = {each.key for each in found}
            for key, value in config.items():
                others = [json.dumps(other[key]) for other in configs if key in other]
                alike = others.count(json.dumps(value))
                # Told unless more than half have it, or all.
                assert (key in named) == (2 * alike <= len(others))


class TestCurves:
    def test_the_best_epoch_is_the_first_of_the_last_phase(self, tmp_path):
        lines = [
            {'step': step, 'epoch': float(step), 'phase': phase, 'validation_accuracy': score}
            for step, phase, score in [(1, 'head', 0.9), (2, 'all', 0.5), (3, 'all', 0.7), (4, 'all', 0.7)]
        ]
        atomic_files.write_jsonl(tmp_path / 'metrics.jsonl', lines)
        curve = curves.of_training(tmp_path)
        assert curve.kept('accuracy', keep_best=True) == 2
        assert curve.kept('accuracy', keep_best=False) == 3
        assert curve.best('absent') is None

    def test_what_is_no_number_has_no_value(self, tmp_path):
        text = '{"step": 1, "epoch": 1.0, "loss": NaN, "validation_accuracy": null}\n[]\n{"step": "x"}\n'
        (tmp_path / 'metrics.jsonl').write_text(text)
        curve = curves.of_training(tmp_path)
        assert (curve.train, curve.validation) == ({'loss': (None,)}, {'accuracy': (None,)})
        assert curve.best('accuracy') is None

    def test_trainings_of_an_ablation_by_rate_and_which_was_selected(self, tmp_path):
        row = make_row(selected={'learning_rate': 1e-5})
        for rate in (1e-3, 1e-5):
            make_training(tmp_path / 'trainings' / row.key / f'{rate:g}', evaluations=1)
        found = curves.read(tmp_path)
        assert [curve.name for curve in found] == ['learning rate 1e-05', 'learning rate 0.001']
        assert [curves.selected(curve, [row]) for curve in found] == [row, None]


class TestFileSystems:
    def mounts(self, tmp_path, kind) -> Path:
        device = tmp_path.stat().st_dev
        file = tmp_path / 'mountinfo'
        numbers = f'{os.major(device)}:{os.minor(device)}'
        file.write_text(f'1 0 0:9999 / /proc rw - proc proc rw\n36 35 {numbers} / /x rw shared:1 - {kind} /dev/x rw\n')
        return file

    @pytest.mark.parametrize(('kind', 'local'), [('ext4', True), ('overlay', True), ('nfs4', False), ('fuse.s', False)])
    def test_the_type_decides(self, tmp_path, kind, local):
        assert file_systems.is_local(tmp_path, self.mounts(tmp_path, kind)) == local

    def test_nothing_is_known_without_a_list_of_mounts(self, tmp_path):
        assert not file_systems.is_local(tmp_path, tmp_path / 'nothing')
        (tmp_path / 'empty').write_text('')
        assert not file_systems.is_local(tmp_path, tmp_path / 'empty')
