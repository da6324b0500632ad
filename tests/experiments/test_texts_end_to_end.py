"""Texts from the command to the page: what is said on the way, what rows say of them, and what is shown."""

from pathlib import Path

import pytest

from experiments import ablate, explain, plan, report, train
from experiments.ablation import left_out
from experiments.data import loading
from experiments.features.store import Store
from experiments.features.throughput import Measured, Throughputs
from experiments.results import rows
from tests.experiments.test_page import check
from tests.experiments.test_text_files import some, write


def own(place: Path) -> str:
    """Texts of two classes that words tell, but for a few that say the other's."""
    texts = some(80)
    for row in texts[:12]:
        row['label'] = 'good' if row['label'] == 'bad' else 'bad'
    return f'csv:{write(place / "notes.csv", texts)}'


def test_an_ablation_speaks_of_texts(tmp_path, capsys):
    run = tmp_path / 'run'
    values = {
        'datasets': (own(tmp_path),), 'backbones': ('tfidf',), 'regimes': ('knn',), 'fractions': (1.0,), 'seeds': (0,)
    }  # fmt: skip
    config = [f'--config.{key}={value!r}' for key, value in values.items()]
    ablate.main(['--config=configs/ablations/quickstart.py', *config, f'--workdir={run}', f'--cache_dir={tmp_path}'])
    shown = capsys.readouterr()
    for expected in ('│ texts │', '│ GFLOP/text │', 'texts of csv:'):
        assert expected in ' '.join(shown.err.replace('┃', '│').split())
    assert '┃ GFLOP/text ┃ texts/s ┃' in shown.out
    assert 'image' not in shown.out
    (row,) = rows.read(run)
    assert row.data['inputs'] == 'texts'
    page = (run / 'report.html').read_text()
    check(page)
    assert '<figure class="card text">' in page


def test_what_is_left_out_is_said_of_texts(tmp_path):
    dataset = loading.load(own(tmp_path), inputs='texts')
    assert 'training texts' in left_out.too_small(dataset, (0.001,))[0.001]
    assert 'training texts (--config.shots)' in left_out.too_few(dataset, (1000,))[1000]


def test_a_speed_that_is_left_out_is_that_of_texts(tmp_path, capsys):
    throughputs = Throughputs(tmp_path, Store(tmp_path / 'store'))
    for size, inputs in (((128,), 'texts'), ((32, 32), 'images')):
        throughputs.get({'input': list(size)}, 'a network', lambda: Measured(None, 1))
        assert f'{inputs}/s of a network is left out' in capsys.readouterr().err


@pytest.mark.slow
def test_a_plan_speaks_of_texts(tmp_path, capsys):
    config = f'configs/transfer.py:backbone=text_micro,dataset={own(tmp_path)},regime=scratch'
    plan.main(['--config', config, '--config.text_length=32', '--batch_per_device=4'])
    shown = capsys.readouterr()
    assert '4 texts per device' in shown.err
    assert '32 tokens, ' in shown.out
    assert 'arithmetic per text of 32 tokens' in shown.out
    assert 'image' not in shown.out + shown.err


@pytest.mark.slow
def test_a_training_and_its_explanations_speak_of_texts(tmp_path, capsys):
    run = tmp_path / 'run'
    config = f'configs/transfer.py:backbone=text_micro,dataset={own(tmp_path)},regime=scratch'
    values = ['--config.epochs=2', '--config.batch_size=8', '--config.text_length=32']
    train.main(['--config', config, *values, '--workdir', str(run)])
    said = capsys.readouterr().err
    assert '8 texts per step' in said
    assert ' texts/s' in said
    assert 'image' not in said
    (row,) = rows.read(run)
    assert row.data['inputs'] == 'texts'
    explain.main(['--workdir', str(run), 'A film that is good.', 'A film that is <b>bad</b>.'])
    report.main(['--workdir', str(run)])
    page = check((run / 'report.html').read_text())
    assert 'Looking into the backbones' in page.texts
    assert sum(found.get('class') == 'tokens' for _, found in page.elements) == 2
