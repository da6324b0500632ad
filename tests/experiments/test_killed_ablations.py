"""SIGKILL at any moment of an ablation: the table is that of an uninterrupted run."""

import functools
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from command_runs import COMPILED_QUICKLY, ROOT, ended, wait_for
from tiny_texts import make_texts, write_csv

from experiments.results import aggregates, rows, tables

ARGUMENTS = (
    '--config', 'configs/ablations/cnn_vs_vit.py:dataset=digits,regimes=knn,ridge,scratch',
    "--config.backbones=('vit_micro@random', 'pixels')", '--config.seeds=(0,)', '--config.fractions=(0.2,)',
    "--config.image_size=(8, 16)", '--config.knn.neighbours=((1,), (5, 20))', '--config.training.epochs=1.0',
    '--config.training.checkpoint_epochs=0.2', '--config.training_learning_rates=(0.001,)',
    '--config.training_extra_learning_rates=0',
)  # fmt: skip


# The same number of cells: two lengths and two heads of each kind, beside a baseline.
OF_TEXTS = (
    '--config', 'configs/ablations/cnn_vs_vit.py:dataset=csv:{texts},regimes=knn,ridge,scratch',
    "--config.backbones=('text_micro@random', 'tfidf')", '--config.seeds=(0,)', '--config.fractions=(0.5,)',
    '--config.image_size=0', '--config.text_length=(16, 32)', '--config.knn.neighbours=((1,), (5, 20))',
    '--config.training.epochs=2.0', '--config.training.batch_size=8', '--config.training.checkpoint_epochs=0.2',
    '--config.training_learning_rates=(0.001,)', '--config.training_extra_learning_rates=0',
)  # fmt: skip


def start(place: Path, workdir: str, *more: str, arguments: Sequence[str] = ARGUMENTS) -> subprocess.Popen:
    environment = {
        **os.environ, **COMPILED_QUICKLY, 'JAX_PLATFORMS': 'cpu', 'JAX_COMPILATION_CACHE_DIR': str(place / 'compiled'),
        'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    }  # fmt: skip
    places = ['--workdir', str(place / workdir), '--cache_dir', str(place / f'cache of {workdir}')]
    command = [sys.executable, '-m', 'experiments.ablate', *arguments, *places, *more]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def progress(*places: Path) -> int:
    """Grows whenever something is written."""
    # Unlike a glob, a walk goes on where a directory is renamed meanwhile.
    return sum(len(files) for place in places for _, _, files in os.walk(place))


def shown(place: Path, dataset: str) -> tuple[str, str]:
    entries = aggregates.load(place)
    # Speeds are measured.
    for entry in entries:
        entry.costs['images_per_second'] = None
    return '\n'.join(tables.markdown(tables.view(entries, name)) for name in (dataset,)), tables.csv_text(entries)


@pytest.mark.parametrize(
    ('kind', 'shards', 'starts'),
    [
        pytest.param('images', 1, 4, marks=pytest.mark.slow),
        pytest.param('images', 1, 12, marks=pytest.mark.exhaustive),
        pytest.param('images', 2, 6, marks=pytest.mark.exhaustive),
        pytest.param('texts', 1, 4, marks=pytest.mark.exhaustive),
        pytest.param('texts', 2, 6, marks=pytest.mark.exhaustive),
    ],
)
def test_killed_again_and_again(tmp_path, kind, shards, starts):
    texts = tmp_path / 'texts.csv'
    if kind == 'texts':
        write_csv(texts, make_texts(90, longest=40))
    given, dataset = {'images': (ARGUMENTS, 'digits'), 'texts': (OF_TEXTS, f'csv:{texts}')}[kind]
    start_it = functools.partial(start, arguments=[each.replace('{texts}', str(texts)) for each in given])
    ended(start_it(tmp_path, 'whole'), 0)
    generator, kills = random.Random(shards * starts), 0
    for number in range(1, shards + 1):
        more = () if shards == 1 else (f'--shard={number}/{shards}',)
        for _ in range(starts):
            watched = (tmp_path / 'cut', tmp_path / 'cache of cut')
            before = progress(*watched)
            process = start_it(tmp_path, 'cut', *more)
            wanted = before + generator.randint(1, 48 // starts)
            if not wait_for(process, lambda wanted=wanted, watched=watched: progress(*watched) >= wanted):
                ended(process, 0)
                break
            time.sleep(generator.uniform(0, 0.3))
            process.kill()
            process.communicate()
            kills += 1
        else:
            ended(start_it(tmp_path, 'cut', *more), 0)
    print(f'killed {kills} times')
    assert kills > 2
    assert len(rows.read(tmp_path / 'cut')) == len(rows.read(tmp_path / 'whole')) == (4 + 2 + 2) + (2 + 1)
    assert shown(tmp_path / 'cut', dataset) == shown(tmp_path / 'whole', dataset)
