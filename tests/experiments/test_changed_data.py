"""What a command does with a work directory whose data have changed since, from the second start on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_commands import CHOOSE, fails
from test_loading import write_images

from experiments import ablate, train
from experiments.data import loading
from experiments.results import rows

ROOT = Path(__file__).parents[2]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    write_images(tmp_path / 'images', {'cat': 15, 'dog': 15}, size=(6, 6))
    return tmp_path


def ablation(place: Path, *more: str) -> tuple:
    config = f'{CHOOSE}:dataset=folder:{place}/images,backbones=pixels,regimes=knn'
    small = ('--config.fractions=(1.0,)', '--config.seeds=(0,)', '--cache_dir', place / 'cache')
    return tuple(map(str, (ablate.main, '--config', config, *small, '--workdir', place / 'run', *more)))[1:]


def change(place: Path) -> None:
    for number in range(5):
        (place / 'images' / 'cat' / f'{number:03d}.png').unlink()


class TestAblation:
    def test_a_finished_table_of_other_data_is_never_shown_as_finished(self, place, capsys):
        ablate.main(list(ablation(place)))
        change(place)
        line = fails(capsys, ablate.main, *ablation(place))
        assert 'have changed since they produced 1 finished cell' in line
        assert '5 images removed (cat/000.png, cat/001.png, cat/002.png and 2 more)' in line
        assert '--accept_changed_data' in line

    def test_accepted_cells_are_computed_again_and_nothing_is_lost(self, place, capsys):
        ablate.main(list(ablation(place)))
        (before,) = rows.read(place / 'run')
        change(place)
        ablate.main([*ablation(place), '--accept_changed_data'])
        (after,) = rows.read(place / 'run')
        assert after.data['fingerprint'] != before.data['fingerprint']
        (kept,) = [json.loads(line) for line in (place / 'run' / 'results.before_1.jsonl').read_text().splitlines()]
        assert kept['data']['fingerprint'] == before.data['fingerprint']
        (file,) = (place / 'run' / 'data').glob('*.json')
        assert '5 images removed' in json.loads(file.read_text())['changes'][0]['changes'][0]
        ablate.main(list(ablation(place)))  # and then it is as any other
        assert 'all 1 cells are finished' in capsys.readouterr().err

    def test_unchanged_files_are_not_read_again(self, place, monkeypatch):
        ablate.main(list(ablation(place)))
        monkeypatch.setattr(loading, 'load', None)
        ablate.main(list(ablation(place)))

    def test_touched_files_are_read_and_found_to_be_the_same(self, place, capsys):
        ablate.main(list(ablation(place)))
        os.utime(place / 'images' / 'cat' / '000.png', (1, 1))
        ablate.main(list(ablation(place)))
        assert 'all 1 cells are finished' in capsys.readouterr().err

    def test_new_seeds_never_mix_two_test_sets(self, place, capsys):
        ablate.main(list(ablation(place)))
        change(place)
        assert '5 images removed' in fails(capsys, ablate.main, *ablation(place, '--config.seeds=(0, 1)'))
        assert len(rows.read(place / 'run')) == 1

    def test_the_work_directory_inside_the_folder_is_no_class(self, place):
        arguments = [*ablation(place), '--workdir', str(place / 'images' / 'run')]
        ablate.main(arguments)
        ablate.main([*arguments, '--config.seeds=(0, 1)'])
        assert {row.cell.seed for row in rows.read(place / 'images' / 'run')} == {0, 1}
        assert not list((place / 'images' / 'run').glob('results.before*'))

    @pytest.mark.slow
    def test_a_folder_whose_name_is_not_utf_8(self, place):
        odd = os.fsdecode(os.fsencode(place) + b'/caf\xe9')
        (place / 'images').rename(odd)
        arguments = [word.replace(f'{place}/images', odd) for word in ablation(place)]
        environment = {**os.environ, 'JAX_PLATFORMS': 'cpu'}
        subprocess.run([sys.executable, '-m', 'experiments.ablate', *arguments], env=environment, check=True)
        assert r'caf\xe9' in (place / 'run' / 'table.md').read_text()
        assert (place / 'run' / 'score_vs_cost.png').is_file()

    def test_what_was_read_is_printed_and_kept(self, place, capsys):
        (place / 'images' / 'cat' / 'x.png').write_bytes(b'')
        ablate.main(list(ablation(place)))
        shown = capsys.readouterr().err
        assert 'unreadable, empty file: 1 (cat/x.png)' in shown
        (file,) = (place / 'run' / 'data').glob('*.json')
        kept = json.loads(file.read_text())
        assert kept['left_out'] == {'unreadable, empty file': {'count': 1, 'names': ['cat/x.png']}}
        assert kept['classes'] == ['cat', 'dog']


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A training of seconds, and how to start it again."""
    place = tmp_path_factory.mktemp('trained')
    write_images(place / 'images', {'cat': 15, 'dog': 15}, size=(6, 6))
    small = ('epochs=1', 'batch_size=8', 'image_size=8', 'flip=False', 'shift=0', f'dataset=folder:{place}/images')
    arguments = ['--config', str(ROOT / 'configs/transfer.py:backbone=resnet_micro,dataset=digits')]
    arguments += [f'--config.{each}' for each in small] + ['--workdir', str(place / 'run')]
    train.main(arguments)
    return place, arguments


class TestTraining:
    def test_it_goes_on_with_the_same_data_only(self, trained, capsys):
        place, arguments = trained
        (place / 'images' / 'cat').rename(place / 'images' / 'zebra')
        line = fails(capsys, train.main, *arguments, '--accept_changed_data')
        assert "the class 'cat' is called 'zebra' now" in line
        assert 'labels would mean other classes' in line
        (place / 'images' / 'zebra').rename(place / 'images' / 'cat')
        content = (place / 'images' / 'cat' / '000.png').read_bytes()
        (place / 'images' / 'cat' / '000.png').unlink()
        assert '1 image removed (cat/000.png)' in fails(capsys, train.main, *arguments)
        train.main([*arguments, '--accept_changed_data'])
        assert 'going on with changed data' in capsys.readouterr().err
        (place / 'images' / 'cat' / '000.png').write_bytes(content)
        assert '1 image added (cat/000.png)' in fails(capsys, train.main, *arguments)
        (row,) = rows.read(place / 'run')
        assert np.isfinite(row.score)
