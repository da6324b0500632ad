"""What an earlier version wrote is read, resumed, grown and reported (``old_work_directories/README.md``)."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from backbones import UserError
from experiments import ablate, report
from experiments.ablation import estimate
from experiments.cli import atomic_files, work_directories
from experiments.data import loading
from experiments.results import rows, scores
from experiments.training.config import FREE_KEYS, default_config

OLD = Path(__file__).parent / 'old_work_directories'
ROOT = Path(__file__).parents[2]


@pytest.fixture
def old(tmp_path) -> Path:
    """Copies that a test may write to."""
    shutil.copytree(OLD, tmp_path / 'old')
    return tmp_path / 'old'


def arguments(workdir, **axes) -> list[str]:
    """The command line that the ablation was made with, apart from some of its axes."""
    values = {
        'backbones': ('resnet_micro@random', 'pixels'), 'datasets': ('digits',), 'fractions': (0.2, 1.0),
        'seeds': (0, 1), 'image_size': 16, 'linear.steps': 50, 'linear.solver': 'adamw', **axes,
    }  # fmt: skip
    config = str(ROOT / 'configs' / 'ablations' / 'quickstart.py')
    return [
        '--config', config, '--workdir', str(workdir),
        *(f'--config.{key}={value}' for key, value in values.items()),
    ]  # fmt: skip


class TestAblation:
    def test_rows(self):
        found = rows.read(OLD / 'ablation')
        lines = atomic_files.read_jsonl(OLD / 'ablation' / 'results.jsonl')
        assert len(found) == len(lines) == 16
        for row, line in zip(found, lines, strict=True):
            assert row.cell.as_json() == line['cell']
            assert row.score == line['metrics']['test_accuracy']
            assert row.validation == {'accuracy': line['metrics']['validation_accuracy']}
            assert row.data['test_examples'] == 359
            assert row.choices == (12 if row.cell.regime == 'linear' else 6)
            kept = scores.read(OLD / 'ablation' / row.predictions)
            assert kept.correct.mean() == row.score
            assert kept.logits is None
        alike = {row.cell.regime: row for row in found if row.cell.variant.backbone == 'pixels'}
        assert not alike['knn'].depends_on_seed
        assert alike['linear'].depends_on_seed
        assert 'learning_rate' in alike['linear'].at_edge

    def test_the_same_command_finds_everything_finished(self, old, monkeypatch, capsys):
        def fail(*_):
            raise AssertionError('a finished ablation reads no data')

        # It has no record of its data yet, so they are read once to compare their fingerprint.
        ablate.main(arguments(old / 'ablation'))
        monkeypatch.setattr(loading, 'load', fail)
        for _ in range(2):
            shown = capsys.readouterr()
            assert 'all 16 cells are finished' in shown.err
            assert 'resnet_micro' in shown.out
            ablate.main(arguments(old / 'ablation'))

    def test_it_grows_by_a_seed(self, old, monkeypatch):
        monkeypatch.setattr(estimate, 'measured_speed', lambda: 1e9)
        before = rows.read(old / 'ablation')
        ablate.main(arguments(old / 'ablation', backbones=('pixels',), seeds=(0, 1, 2)))
        after = rows.read(old / 'ablation')
        assert after[:16] == before
        assert [(row.cell.regime, row.cell.fraction, row.cell.seed) for row in after[16:]] == [
            ('linear', 0.2, 2), ('linear', 1.0, 2), ('knn', 0.2, 2), ('knn', 1.0, 2),
        ]  # fmt: skip
        assert {line['schema'] for line in atomic_files.read_jsonl(old / 'ablation' / 'results.jsonl')} == {rows.SCHEMA}
        with (old / 'ablation' / 'table.csv').open() as stream:
            seeds = {(line['backbone'], line['regime']): line['seeds'] for line in csv.DictReader(stream)}
        assert seeds['pixels', 'linear'] == seeds['pixels', 'knn'] == '3'
        assert seeds['resnet_micro', 'linear'] == '2'

    def test_what_it_was_run_with_cannot_change(self, old):
        with pytest.raises(UserError, match=r'8 finished cells .* linear\.steps, which is 50 there and 60 here'):
            ablate.main(arguments(old / 'ablation', **{'linear.steps': 60}))

    def test_its_probes_were_not_solved(self, old):
        """What a key stood for before it was there, not what is its default now."""
        with pytest.raises(UserError, match=r"8 finished .* linear\.solver, which is 'adamw' there and 'lbfgs' here"):
            ablate.main(arguments(old / 'ablation', **{'linear.solver': 'lbfgs'}))


class TestTraining:
    def test_row(self):
        (row,) = rows.read(OLD / 'train')
        result = json.loads((OLD / 'train' / 'result.json').read_text())
        assert row.cell.variant.label == 'resnet_micro · bundled:resnet_micro'
        assert (row.cell.dataset, row.cell.regime, row.cell.fraction, row.cell.seed) == ('digits', 'linear', 0.2, 0)
        assert row.test == {'accuracy': result['test_accuracy'], 'loss': result['test_loss']}
        assert scores.read(OLD / 'train' / row.predictions).correct.sum() == result['test_correct']

    def test_its_directory_still_is_its_config(self, old):
        """Keys that came since have their default."""
        defaults = default_config().to_dict()
        earlier = json.loads((old / 'train' / 'config.json').read_text())
        now = {**defaults, **earlier}
        assert 'fit' in {*now} - {*earlier}
        work_directories.check(old / 'train', now, FREE_KEYS, defaults)
        work_directories.claim(old / 'train', now, FREE_KEYS, defaults)
        with pytest.raises(UserError, match=r"\(fit: 'crop' there, 'squash' here\)"):
            work_directories.check(old / 'train', {**now, 'fit': 'squash'}, FREE_KEYS, defaults)


def test_one_table_of_both(old, tmp_path):
    report.main(
        ['--workdir', str(old / 'ablation'), '--workdir', str(old / 'train'), '--output', str(tmp_path / 'out')]
    )
    with (tmp_path / 'out' / 'table.csv').open() as stream:
        lines = list(csv.DictReader(stream))
    assert len(lines) == 2 * 2 * 2 + 1
    (training,) = [line for line in lines if line['weights'] == 'bundled:resnet_micro']
    assert np.isclose(float(training['score']), 97 / 359)
    assert (training['p_best'], training['flops_per_image'], training['parameters']) == ('', '', '')
    assert 0.22 < float(training['low']) < float(training['score']) < float(training['high']) < 0.33
    text = (tmp_path / 'out' / 'table.md').read_text()
    assert 'by an older version in the compiled one (resnet_micro · random)' in text
    assert 'knn among 6, linear among 12 settings' in text
