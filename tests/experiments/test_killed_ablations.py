"""SIGKILL at any moment of an ablation: the table is that of an uninterrupted run."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_runs import COMPILED_QUICKLY, ROOT, ended, wait_for

from experiments.results import aggregates, rows, tables

ARGUMENTS = (
    '--config', 'configs/ablations/cnn_vs_vit.py:dataset=digits,regimes=knn,ridge,scratch',
    "--config.backbones=('vit_micro@random', 'pixels')", '--config.seeds=(0,)', '--config.fractions=(0.2,)',
    "--config.image_size=(8, 16)", '--config.knn.neighbours=((1,), (5, 20))', '--config.training.epochs=1.0',
    '--config.training.checkpoint_epochs=0.2', '--config.training_learning_rates=(0.001,)',
    '--config.training_extra_learning_rates=0',
)  # fmt: skip


def start(place: Path, workdir: str, *more: str) -> subprocess.Popen:
    environment = {
        **os.environ, **COMPILED_QUICKLY, 'JAX_PLATFORMS': 'cpu', 'JAX_COMPILATION_CACHE_DIR': str(place / 'compiled'),
        'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    }  # fmt: skip
    places = ['--workdir', str(place / workdir), '--cache_dir', str(place / f'cache of {workdir}')]
    command = [sys.executable, '-m', 'experiments.ablate', *ARGUMENTS, *places, *more]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def progress(*places: Path) -> int:
    """Grows whenever something is written."""
    # Unlike a glob, a walk goes on where a directory is renamed meanwhile.
    return sum(len(files) for place in places for _, _, files in os.walk(place))


def shown(place: Path) -> tuple[str, str]:
    entries = aggregates.load(place)
    # Speeds are measured.
    for entry in entries:
        entry.costs['images_per_second'] = None
    return '\n'.join(tables.markdown(tables.view(entries, name)) for name in ('digits',)), tables.csv_text(entries)


@pytest.mark.parametrize(
    ('shards', 'starts'),
    [
        pytest.param(1, 4, marks=pytest.mark.slow),
        pytest.param(1, 12, marks=pytest.mark.exhaustive),
        pytest.param(2, 6, marks=pytest.mark.exhaustive),
    ],
)
def test_killed_again_and_again(tmp_path, shards, starts):
    ended(start(tmp_path, 'whole'), 0)
    generator, kills = random.Random(shards * starts), 0
    for number in range(1, shards + 1):
        more = () if shards == 1 else (f'--shard={number}/{shards}',)
        for _ in range(starts):
            watched = (tmp_path / 'cut', tmp_path / 'cache of cut')
            before = progress(*watched)
            process = start(tmp_path, 'cut', *more)
            wanted = before + generator.randint(1, 48 // starts)
            if not wait_for(process, lambda wanted=wanted, watched=watched: progress(*watched) >= wanted):
                ended(process, 0)
                break
            time.sleep(generator.uniform(0, 0.3))
            process.kill()
            process.communicate()
            kills += 1
        else:
            ended(start(tmp_path, 'cut', *more), 0)
    print(f'killed {kills} times')
    assert kills > 2
    assert len(rows.read(tmp_path / 'cut')) == len(rows.read(tmp_path / 'whole')) == (4 + 2 + 2) + (2 + 1)
    assert shown(tmp_path / 'cut') == shown(tmp_path / 'whole')
