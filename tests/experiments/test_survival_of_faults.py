"""A training on a machine that fails it: damaged checkpoints, full disks, numbers that are none, broken data."""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from resource import RLIMIT_FSIZE, prlimit

import jax
import numpy as np
import pytest
from command_runs import Runs, assert_same_bits, ended, only_error, wait_for
from PIL import Image

from backbones import UserError
from experiments.cli import atomic_files, command_line
from experiments.data import decoding, loading
from experiments.training import loop
from experiments.training.checkpoints import Checkpoints
from experiments.training.config import default_config
from experiments.training.preemption import Interruption
from experiments.training.session import Session

STEPS_PER_EPOCH = 39


class Accident(Interruption):
    """Something happens when a run looks for the n-th time whether it is to stop: after steps, in evaluations."""

    def __init__(self, times, happens):
        super().__init__()
        self._left, self._happens = times, happens

    def asked(self):
        self._left -= 1
        if self._left == 0:
            self._happens()
        return super().asked()


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


@pytest.mark.parametrize(
    ('damage', 'every'),
    [
        pytest.param(flip, 8, marks=pytest.mark.slow),
        *(pytest.param(damage, 1, marks=pytest.mark.exhaustive) for damage in (flip, truncate, Path.unlink)),
    ],
)
def test_any_damaged_file_costs_some_steps_only(tmp_path, damage, every):
    """Every (eighth) file of the newest checkpoint of a training, in turn."""
    runs = Runs(tmp_path, backbone='resnet_micro', fraction=0.1, ema_decay=0.9, mixup=0.2, checkpoint_epochs=2 / 7)
    config = command_line.load_config(str(runs.config_file))
    config.epochs = 2.0
    dataset = loading.load('digits')
    whole = loop.fit(config, dataset, tmp_path / 'whole')
    wanted, test = jax.tree.map(np.array, whole.variables), whole.evaluate('test')
    metrics = (tmp_path / 'whole' / 'metrics.jsonl').read_text()
    directory = tmp_path / 'whole' / 'checkpoints'
    earlier, last = sorted(int(path.name) for path in directory.iterdir())
    assert last == whole.steps == 14
    parts = [path.relative_to(directory) for path in (directory / str(last)).rglob('*') if path.is_file()]
    assert len(parts) >= 8
    for part in sorted(parts)[::every]:
        shutil.copytree(tmp_path / 'whole', tmp_path / 'run')
        broken = tmp_path / 'run' / 'checkpoints' / part
        damage(broken)
        trained = loop.fit(config, dataset, tmp_path / 'run')
        events = atomic_files.read_jsonl(tmp_path / 'run' / 'events.jsonl')
        assert [event['event'] for event in events] == ['damaged checkpoint', 'resumed']
        assert f'{broken} ' in events[0]['text']
        assert f'falling back to step {earlier}' in events[0]['text']
        assert events[1]['step'] == earlier < last
        assert_same_bits(trained.variables, wanted)
        assert trained.evaluate('test').metrics == test.metrics
        assert (tmp_path / 'run' / 'metrics.jsonl').read_text() == metrics
        shutil.rmtree(tmp_path / 'run')


@pytest.mark.slow
def test_what_lies_on_disk_after_a_step_is_enough(tmp_path):
    """As a killed training leaves it: the work directory is copied while the training goes on."""
    config = command_line.load_config(str(Runs(tmp_path, fraction=0.1, checkpoint_epochs=2 / 7).config_file))
    config.epochs = 2.0
    dataset = loading.load('digits')

    def leave() -> None:
        while not (tmp_path / 'whole' / 'checkpoints' / '10').exists():
            time.sleep(0.01)
        shutil.copytree(tmp_path / 'whole', tmp_path / 'cut')

    with Accident(12, leave) as accident:
        whole = loop.run(Session(config, dataset, tmp_path / 'whole'), interruption=accident)
    cut = loop.fit(config, dataset, tmp_path / 'cut')
    assert atomic_files.read_jsonl(tmp_path / 'cut' / 'events.jsonl')[0]['step'] == 10
    assert_same_bits(cut.variables, whole.variables)
    rows = atomic_files.read_jsonl(tmp_path / 'whole' / 'metrics.jsonl')
    assert atomic_files.read_jsonl(tmp_path / 'cut' / 'metrics.jsonl') == rows
    assert len(rows) == 14 + 2


# --- Disks. -----------------------------------------------------------------------------------------------------------


@pytest.mark.exhaustive
def test_a_file_that_can_not_be_written_whole(tmp_path):
    runs = Runs(tmp_path, epochs=5.0, checkpoint_epochs=1.0)
    runs.run('whole')
    process = runs.start('cut')
    assert wait_for(process, lambda: runs.newest('cut') >= STEPS_PER_EPOCH)
    prlimit(process.pid, RLIMIT_FSIZE, (60_000, 60_000))
    error = only_error(ended(process, 2))
    last = runs.newest('cut')
    assert 0 < last < 5 * STEPS_PER_EPOCH
    assert f'checkpoint of step {last + STEPS_PER_EPOCH} in ' in error
    assert f'File too large; the last good one is step {last}' in error
    assert [path.name for path in runs.checkpoints('cut').iterdir() if not path.name.isdigit()] == []
    runs.run('cut')
    runs.assert_same('cut', 'whole')


# A file system of its own, which is made to refuse writing (by MAKE) when there is a checkpoint, and repaired (UNDO).
ON_ITS_OWN_FILE_SYSTEM = """
directory=$1; make=$2; undo=$3; shift 3
mount -t tmpfs -o size=40m tmpfs "$directory" || exit 77
"$@" & process=$!
while ! [ -d "$directory/cut/checkpoints/39" ]; do kill -0 $process || exit 78; sleep 0.02; done
sleep 0.1
cd "$directory"
eval "$make"
wait $process; echo "status $?" >&2
ls cut/checkpoints >&2
eval "$undo"
cd - >/dev/null
"$@"; echo "status $?" >&2
cat "$directory/cut/metrics.jsonl"
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
def test_a_disk_that_refuses_and_is_repaired(tmp_path, make, undo, reason):
    if shutil.which('unshare') is None:
        pytest.skip('there is no unshare here')
    place = tmp_path / 'place'
    place.mkdir()
    runs = Runs(tmp_path, epochs=5.0, checkpoint_epochs=1.0)
    runs.run('whole')
    shell = ('unshare', '--user', '--map-root-user', '--mount', 'sh', '-c', ON_ITS_OWN_FILE_SYSTEM, 'sh')
    process = runs.start('place/cut', before=(*shell, str(place), make, undo))
    output, error = process.communicate(timeout=300)
    if process.returncode in (1, 77) and not output:
        pytest.skip(f'no file system can be mounted here: {error.strip()}')
    first, second = re.split(r'^status \d+$', error, flags=re.M)[:2]
    assert re.findall(r'^status (\d+)$', error, flags=re.M) == ['2', '0'], error
    line = only_error(first)
    assert reason in line
    assert re.search(r'step \d+', line)
    last = re.search(r'the last good (?:one|checkpoint) is step (\d+)', line)
    assert last, line
    names = second.split()
    assert last[1] in names, second
    assert output.endswith((tmp_path / 'whole' / 'metrics.jsonl').read_text())


# --- Numbers. ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_loss_that_is_no_number(tmp_path):
    runs = Runs(tmp_path, epochs=1.0, learning_rate=1e30, warmup_epochs=0.1, checkpoint_epochs=1 / 39)
    error = only_error(runs.run('cut', expected=2))
    (event,) = runs.events('cut', 'not finite')
    step, ids = event['step'], event['ids']
    assert 1 < step < STEPS_PER_EPOCH
    session = runs.session('cut')
    assert ids == [session.dataset.ids[index] for index in session.sampler.batch(step - 1)]
    assert f'non-finite loss or gradient at step {step}: loss nan' in error
    assert all(name in error for name in ids[:8])
    assert f'the last good checkpoint is step {step - 1}' in error
    restored = runs.restored('cut')
    assert restored.step == int(restored.state.step) == step - 1
    assert restored.warnings == ()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(restored.state.trainable))
    # The same command fails at the same step, and another answer to it goes on.
    assert only_error(runs.run('cut', expected=2)) == error
    runs.run('cut', '--config.non_finite=skip')
    result = runs.result('cut')
    assert result['steps'] == STEPS_PER_EPOCH
    assert result['skipped_steps'][0] == step
    rows = [row['step'] for row in runs.rows('cut') if 'epoch' not in row]
    assert sorted(rows + result['skipped_steps']) == list(range(1, STEPS_PER_EPOCH + 1))


# --- Data. ------------------------------------------------------------------------------------------------------------


def make_folder(directory: Path) -> None:
    generator = np.random.default_rng(0)
    for split, count in {'train': 24, 'validation': 4, 'test': 4}.items():
        for name in 'ab':
            (directory / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 256, (8, 8, 3), np.uint8)
                Image.fromarray(pixels).save(directory / split / name / f'{number:02d}.png')


@pytest.mark.slow
def test_images_that_break_while_a_training_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, 'MEMORY_LIMIT', 0)
    make_folder(tmp_path / 'data')
    config = default_config()
    config.update({
        'backbone': 'vit_micro', 'dataset': f'folder:{tmp_path / "data"}', 'image_size': 8, 'batch_size': 8,
        'epochs': 3.0, 'threads': 1, 'prefetch': 1, 'bad_files_limit': 2,
    })  # fmt: skip
    dataset = loading.load(config.dataset)
    assert isinstance(dataset.images, decoding.DecodedImages)
    broken = [tmp_path / 'data' / 'train' / name for name in ('a/03.png', 'b/05.png', 'b/07.png')]
    names = [str(path.relative_to(tmp_path / 'data')) for path in broken]
    contents = [path.read_bytes() for path in broken]

    with Accident(2, lambda: [path.write_bytes(b'') for path in broken[:2]]) as accident:
        trained = loop.run(Session(config, dataset, tmp_path / 'run'), interruption=accident)
    assert sorted(trained.unreadable) == names[:2]
    events = [
        event for event in atomic_files.read_jsonl(tmp_path / 'run' / 'events.jsonl') if event['event'] == 'unreadable'
    ]
    assert sorted(event['example'] for event in events) == names[:2]
    assert trained.steps == 18

    # One more than the limit, from the second epoch on.
    for path, content in zip(broken, contents, strict=True):
        path.write_bytes(content)
    accident = Accident(9, lambda: [path.write_bytes(b'') for path in broken])
    with accident, pytest.raises(UserError, match='at most 2 are skipped') as caught:
        loop.run(Session(config, dataset, tmp_path / 'other'), interruption=accident)
    assert all(name in str(caught.value) for name in names)
    with Checkpoints(tmp_path / 'other' / 'checkpoints') as checkpoints:
        assert 6 in checkpoints.steps()
    for path, content in zip(broken, contents, strict=True):
        path.write_bytes(content)
    assert loop.fit(config, dataset, tmp_path / 'other').steps == 18


def workers_of(process: subprocess.Popen) -> list[int]:
    """The data workers among all descendants of a process."""
    found, waiting = [], [process.pid]
    while waiting:
        children = Path(f'/proc/{waiting.pop()}/task').glob('*/children')
        for child in [int(word) for path in children for word in path.read_text().split()]:
            waiting.append(child)
            if 'spawn_main' in Path(f'/proc/{child}/cmdline').read_text():
                found.append(child)
    return found


@pytest.mark.slow
def test_a_data_worker_that_dies(tmp_path):
    runs = Runs(tmp_path, epochs=8.0, rand_augment_layers=1, prefetch=1, processes=1, checkpoint_epochs=1.0)
    process = runs.start('cut')
    assert wait_for(process, lambda: runs.newest('cut') >= STEPS_PER_EPOCH)
    time.sleep(0.1)
    (worker,) = workers_of(process)
    os.kill(worker, signal.SIGKILL)
    error = only_error(ended(process, 2))
    assert 'a data worker died' in error
    last = runs.restored('cut').step
    assert STEPS_PER_EPOCH <= last < 8 * STEPS_PER_EPOCH
    runs.run('cut')
    assert runs.events('cut', 'resumed')[-1]['step'] == last
    runs.run('whole', '--config.processes=0')
    runs.assert_same('cut', 'whole')
