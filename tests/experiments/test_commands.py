"""The commands as a user runs them: exit status, one line on standard error, files."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest
from test_loading import write_images

import backbones
from backbones import cost
from experiments import ablate, report, train
from experiments.cli import atomic_files, command_line
from experiments.data import decoding, loading
from experiments.results import rows, scores
from experiments.results.axes import Cell, Variant

ROOT = Path(__file__).parents[2]
QUICKSTART = 'configs/ablations/quickstart.py'
CHOOSE = 'configs/ablations/cnn_vs_vit.py'


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


def fails(capsys, main, *arguments, status=2) -> str:
    """Run a command that must end with a status and one line; returns the line."""
    with pytest.raises(SystemExit) as exit:
        command_line.run(lambda _: main(list(map(str, arguments))))
    assert exit.value.code == status
    lines = capsys.readouterr().err.strip().splitlines()
    errors = [line for line in lines if 'error:' in line]
    assert len(errors) == 1
    assert errors == lines[-1:]
    assert not any('Traceback' in line for line in lines)
    return errors[0]


# The smallest data set: the whole quickstart takes seconds to load.
DIGITS = ("--config.datasets=('digits',)",)
# The check of a network traces it.
PIXELS = ("--config.backbones=('pixels',)",)


def ablation(*arguments, config=QUICKSTART):
    return (ablate.main, '--config', config, *arguments)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (["--config.backbones=('resnet_mikro',)"], "unknown backbone 'resnet_mikro'; did you mean 'resnet_micro'"),
        (["--config.datasets=('mnist',)"], "unknown data set 'mnist'; did you mean 'mnist5k'"),
        (["--config.regimes=('kn',)"], "unknown regime 'kn'; did you mean 'knn'"),
        (['--config.seed=3'], "unknown config key 'seed'; did you mean 'seeds'"),
        (['--config.linear.step=3'], "unknown config key 'linear.step'; did you mean 'linear.steps'"),
        (['--config.linear.steps=many'], "takes a value of type int such as 400, not 'many'"),
        (['--confg.x=1'], 'unrecognized argument: --confg.x=1'),
        ([*PIXELS, "--config.datasets=('folder:/no/such/place',)"], "there is no folder '/no/such/place'"),
        (
            [*DIGITS, *PIXELS, '--config.fractions=(0.0001, 0.0002)'],
            "no cell of the ablation can be run; label fraction 0.0001 of 'digits' is left out",
        ),
        ([*DIGITS, "--config.backbones=('resnet18@nothing.pth',)"], "there are no weights at 'nothing.pth'"),
    ],
)
def test_bad_arguments(capsys, tmp_path, arguments, message):
    assert message in fails(capsys, *ablation('--workdir', tmp_path / 'w', *arguments))


def test_unknown_config_file_and_argument(capsys, tmp_path):
    line = fails(capsys, *ablation('--workdir', tmp_path, config='configs/ablations/quikstart.py'))
    assert "did you mean 'configs/ablations/quickstart.py'" in line
    line = fails(capsys, *ablation('--workdir', tmp_path, config=f'{CHOOSE}:datset=digits'))
    assert "unknown argument of configs/ablations/cnn_vs_vit.py 'datset'; did you mean 'dataset'" in line


def test_work_directory_that_cannot_be_written(capsys, tmp_path):
    (tmp_path / 'file').write_text('in the way')
    line = fails(capsys, *ablation('--workdir', tmp_path / 'file' / 'w', *DIGITS, *PIXELS))
    assert 'cannot write to the work directory' in line


def test_work_directory_of_another_config(capsys, tmp_path):
    (tmp_path / 'config.json').write_text(json.dumps({'seeds': [1]}))
    (tmp_path / 'metrics.jsonl').write_text('{"step": 1}')
    line = fails(capsys, *ablation('--workdir', tmp_path))
    assert 'belongs to another config' in line


def test_folders_that_do_not_work_out(capsys, tmp_path):
    def run(name):
        config = f'{CHOOSE}:dataset=folder:{tmp_path}/{name},backbones=pixels,regimes=knn'
        return fails(capsys, *ablation('--workdir', tmp_path / 'work' / name, config=config))

    (tmp_path / 'empty').mkdir()
    write_images(tmp_path / 'one', {'only': 5})
    write_images(tmp_path / 'bad', {'a': 20, 'b': 20})
    for file in (tmp_path / 'bad' / 'a').iterdir():
        file.write_bytes(b'')
    assert 'there are no images in' in run('empty')
    assert 'has 1 class (only)' in run('one')
    assert '20 of 40 files' in run('bad')


def test_malicious_weights(capsys, tmp_path):
    marker = tmp_path / 'executed'
    with zipfile.ZipFile(tmp_path / 'evil.pth', 'w') as archive:
        archive.writestr('evil/data.pkl', f'cos\nsystem\n(S"touch {marker}"\ntR.'.encode())
    backbones = f'--config.backbones=("resnet18@{tmp_path}/evil.pth",)'
    line = fails(capsys, *ablation('--workdir', tmp_path / 'w', backbones, *DIGITS))
    assert 'was refused: its pickle asks for os.system' in line
    assert not marker.exists()
    (tmp_path / 'cut.pth').write_bytes((tmp_path / 'evil.pth').read_bytes()[:40])
    backbones = f'--config.backbones=("resnet18@{tmp_path}/cut.pth",)'
    assert 'truncated' in fails(capsys, *ablation('--workdir', tmp_path / 'v', backbones, *DIGITS))


def test_report_without_results(capsys, tmp_path):
    assert 'there are no results' in fails(capsys, report.main, '--workdir', tmp_path)


@pytest.mark.slow
def test_folder_of_own_images_from_training_to_transfer(tmp_path, capsys):
    """The README's path: train on a folder, then use the trained weights as a frozen backbone."""
    write_images(tmp_path / 'images', {'cat': 30, 'dog': 30}, size=(16, 16))
    own = f'folder:{tmp_path / "images"}'
    quick = ('--config.epochs=1', '--config.batch_size=8', '--config.image_size=16')
    first = tmp_path / 'first'
    pretrain = 'configs/pretrain/cifar10.py:backbone=vit_micro'
    train.main(['--config', pretrain, f'--config.dataset={own}', *quick, '--workdir', str(first)])
    result = json.loads((first / 'result.json').read_text())
    (row,) = rows.read(first)
    assert (row.test['accuracy'], row.test['loss']) == (result['test_accuracy'], result['test_loss'])
    assert {'accuracy', 'loss', 'macro_f1', 'recall/cat', 'precision/dog'} <= row.validation.keys()
    assert row.test.keys() - row.validation.keys() == {'temperature', 'nll_scaled', 'ece_scaled'}
    assert row.cell == Cell(own, Variant('vit_micro', 'random'), result['config']['regime'], 1.0, 0)
    assert row.config == result['config'] == json.loads((first / 'config.json').read_text())
    assert row.costs['parameters'] < result['parameters']
    assert row.costs['flops_per_image'] == cost.count_flops(backbones.create('vit_micro'), 16)
    kept = scores.read(first / row.predictions)
    assert kept.correct.mean() == row.score
    assert kept.logits.shape == (row.data['test_examples'], 2)
    assert kept.validation.correct.mean() == row.validation['accuracy']
    assert row.data['train_examples'] + row.data['validation_examples'] + row.data['test_examples'] == 60
    transfer = f'configs/transfer.py:backbone=vit_micro,weights={first},dataset={own}'
    train.main(['--config', transfer, *quick, '--workdir', str(tmp_path / 'second')])
    assert (tmp_path / 'second' / 'weights.safetensors').exists()
    compare = f'{CHOOSE}:dataset={own},backbones=vit_micro@{first},pixels,regimes=knn'
    small = ('--config.fractions=(0.5,)', '--config.image_size=16')
    ablate.main(['--config', compare, *small, '--workdir', str(tmp_path / 'third')])
    assert 'vit_micro' in (tmp_path / 'third' / 'table.md').read_text()
    together = [word for name in ('first', 'second', 'third') for word in ('--workdir', str(tmp_path / name))]
    report.main([*together, '--output', str(tmp_path / 'all')])
    assert len((tmp_path / 'all' / 'table.csv').read_text().splitlines()) == 1 + 1 + 1 + 2


@pytest.mark.parametrize(
    'backbone',
    [
        pytest.param('pixels', marks=pytest.mark.slow),
        pytest.param('vit_micro@random', marks=pytest.mark.exhaustive),
    ],
)
def test_an_ablation_of_records_that_cannot_be_decoded(capsys, tmp_path, monkeypatch, backbone):
    """One of a set that is decoded when it is read turns out to be damaged."""
    write_images(tmp_path / 'images', {'a': 30, 'b': 30})
    monkeypatch.setattr(decoding, 'MEMORY_LIMIT', 0)
    load = loading.load

    def load_and_damage(*arguments, **options):
        dataset = load(*arguments, **options)
        example = dataset.ids[dataset.splits['train'][0]]
        (tmp_path / 'images' / example).write_bytes(b'no image')
        return dataset

    monkeypatch.setattr(loading, 'load', load_and_damage)
    config = f'{CHOOSE}:dataset=folder:{tmp_path}/images,backbones={backbone},regimes=knn'
    small = ('--config.fractions=(1.0,)', '--config.seeds=(0,)', '--config.image_size=16')
    arguments = (*small, '--cache_dir', tmp_path / 'cache', '--workdir', tmp_path / 'run')
    line = fails(capsys, *ablation(*arguments, '--config.bad_files_limit=0', config=config), status=3)
    assert '1 of 1 cells failed' in line
    assert 'cannot be read' in line
    assert 'bad_files_limit' in line
    write_images(tmp_path / 'images', {'a': 30, 'b': 30})
    ablate.main(list(map(str, ('--config', config, *arguments))))
    (row,) = rows.read(tmp_path / 'run')
    assert row.data['skipped'] == 1
    assert '1 unreadable examples left out' in row.data['provenance']


# An ablation on a file system of its own, which refuses writing (by MAKE) from a moment on, and is repaired (UNDO).
ON_ITS_OWN_FILE_SYSTEM = """
directory=$1; make=$2; undo=$3; shift 3
mount -t tmpfs -o size=20m tmpfs "$directory" || exit 77
"$@" & process=$!
while ! [ -f "$directory/run/results.jsonl" ]; do kill -0 $process || exit 78; sleep 0.02; done
cd "$directory"
eval "$make"
wait $process; echo "status $?" >&2
before=$(cat run/results.jsonl)
eval "$undo"
cd - >/dev/null
"$@"; echo "status $?" >&2
case $(cat "$directory/run/results.jsonl") in "$before"*) ;; *) exit 79;; esac
wc -l < "$directory/run/results.jsonl"
"""
FULL = ('cat /dev/zero > ballast 2>/dev/null', 'rm ballast', 'No space left on device')
READ_ONLY = (
    'until mount -o remount,ro "$directory" 2>/dev/null; do sleep 0.01; done',
    'mount -o remount,rw "$directory"',
    'Read-only file system',
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('make', 'undo', 'reason'),
    [pytest.param(*FULL, id='full'), pytest.param(*READ_ONLY, id='read-only', marks=pytest.mark.exhaustive)],
)
def test_an_ablation_on_a_disk_that_refuses_and_is_repaired(tmp_path, make, undo, reason):
    if shutil.which('unshare') is None:
        pytest.skip('there is no unshare here')
    axes = ('datasets=("digits",)', 'backbones=("pixels",)', 'fractions=(0.2,)', 'regimes=("knn","ridge","linear")')
    done = subprocess.run(
        [
            *('unshare', '--user', '--map-root-user', '--mount', 'sh', '-c', ON_ITS_OWN_FILE_SYSTEM, 'sh'),
            *(str(tmp_path), make, undo, sys.executable, '-m', 'experiments.ablate', '--config', QUICKSTART),
            *('--workdir', str(tmp_path / 'run'), *(f'--config.{axis}' for axis in axes)),
        ],
        env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode in (1, 77) and not done.stdout:
        pytest.skip(f'no file system can be mounted here: {done.stderr.strip()}')
    assert done.returncode == 0, done.stderr
    assert re.findall(r'^status (\d+)$', done.stderr, flags=re.M) == ['2', '0'], done.stderr
    assert 'Traceback' not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith('error: ')]
    assert reason in line
    assert done.stdout.rstrip().endswith('15')


class FullDisk:
    """A disk that is full when a file of some name is written; there is room after it has refused once."""

    def __init__(self, monkeypatch):
        self._make, self.refuses = tempfile.mkstemp, ''
        monkeypatch.setattr(atomic_files.tempfile, 'mkstemp', self._mkstemp)

    def _mkstemp(self, *arguments, prefix='', **options):
        if self.refuses and re.fullmatch(rf'\.{self.refuses}\.', prefix):
            self.refuses = ''
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._make(*arguments, prefix=prefix, **options)


@pytest.mark.slow
def test_a_training_whose_disk_is_full_at_each_of_its_files(capsys, tmp_path, monkeypatch):
    disk, run = FullDisk(monkeypatch), tmp_path / 'run'
    quick = ('--config.epochs=1', '--config.batch_size=32', '--config.image_size=8', '--config.fraction=0.1')
    config = 'configs/transfer.py:backbone=vit_micro,dataset=digits'
    arguments = ('--config', config, *quick, '--workdir', run)
    nothing = 'nothing was computed yet or lost, and the same command continues once there is room'
    begun = 'the run had finished step {}, {}, and the same command continues once there is room'
    finished = 'the training is finished and saved, and the same command writes the results once there is room'
    for file, rest in [
        ('config.json', nothing),
        ('parameters.json', begun.format(0, 'there is no checkpoint yet')),
        ('metrics.jsonl', begun.format(3, 'there is no checkpoint yet')),
        ('test.npz', finished),
        ('results.jsonl', finished),
        ('result.json', finished),
    ]:
        disk.refuses = re.escape(file)
        line = fails(capsys, train.main, *arguments)
        assert re.fullmatch(rf'error: No space left on device \(.*{re.escape(file)}\); {re.escape(rest)}', line), line
        assert not disk.refuses
    train.main(list(map(str, arguments)))
    assert json.loads((run / 'result.json').read_text())['steps'] == 3
    events = [json.loads(each)['event'] for each in (run / 'events.jsonl').read_text().splitlines()]
    # What was trained was trained once; it failed twice while it trained.
    assert sorted(events) == ['failed'] * 2 + ['resumed'] * 3


@pytest.mark.slow
def test_an_ablation_whose_disk_is_full_at_each_of_its_files(capsys, tmp_path, monkeypatch):
    disk, run = FullDisk(monkeypatch), tmp_path / 'run'
    axes = ('backbones=("pixels",)', 'datasets=("digits",)', 'regimes=("ridge",)', 'fractions=(0.2,)', 'seeds=(0,)')
    arguments = ('--cache_dir', tmp_path / 'cache', '--workdir', run, *(f'--config.{axis}' for axis in axes))
    again = f'python -m experiments.report --workdir {run} writes the report once there is room'
    for file, rest in [
        ('config.json', '.* and the same command continues once there is room'),
        (r'.*\.npz', 'finished cells are kept, and the same command continues once there is room'),
        ('results.jsonl', 'finished cells are kept, and the same command continues once there is room'),
        ('table.md', f'all results are kept, and {re.escape(again)}'),
        ('table.csv', f'all results are kept, and {re.escape(again)}'),
        ('score_vs_cost.png', f'all results are kept, and {re.escape(again)}'),
    ]:
        disk.refuses = file
        line = fails(capsys, *ablation(*arguments))
        assert re.fullmatch(rf'error: No space left on device \(.*{file}\); {rest}', line), line
    report.main(['--workdir', str(run), '--output', str(run)])
    assert len(rows.read(run)) == 1


def test_an_argument_is_missing(capsys):
    assert '--workdir' in fails(capsys, ablate.main, '--config', QUICKSTART)


def test_help(capsys):
    with pytest.raises(SystemExit) as exit:
        command_line.run(lambda _: train.main(['--help']))
    assert not exit.value.code
    assert '--data_dir' in capsys.readouterr().out


def launch(*arguments) -> subprocess.CompletedProcess:
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'COLUMNS': '100'}
    command = [sys.executable, '-m', *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_exit_status_of_the_real_process(tmp_path):
    bad = launch(
        'experiments.ablate', '--config', QUICKSTART, '--workdir', str(tmp_path), "--config.backbones=('vit_mikro',)"
    )
    assert bad.returncode == 2
    assert (
        bad.stderr
        == "error: unknown backbone 'vit_mikro'; did you mean 'vit_micro' or 'text_micro' or 'resnet_micro'?\n"
    )


@pytest.mark.slow
def test_exit_status_and_help_of_other_real_processes():
    missing = launch('experiments.ablate', '--config', QUICKSTART)
    assert missing.returncode == 2
    assert '--workdir' in missing.stderr
    shown = launch('experiments.train', '--help')
    assert shown.returncode == 0
    assert '--data_dir' in shown.stdout
