"""A training that is killed or asked to stop ends as if nothing had happened; all as a user runs it."""

import math
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
from command_runs import Runs, ended, free_port, wait_for

STEPS = 3 * 78
# BatchNorm, a moving average, two phases, and randomness of every kind.
EVERYTHING = {
    'backbone': 'resnet_micro', 'weights': 'bundled:resnet_micro', 'regime': 'lpft', 'probe_epochs': 1.0,
    'epochs': 2.0, 'fraction': 1.0, 'accumulation': 2, 'ema_decay': 0.9, 'mixup': 0.2, 'rand_augment_layers': 1,
    'dropout': 0.1, 'checkpoint_epochs': 0.05,
}  # fmt: skip


@pytest.fixture(scope='module')
def whole(tmp_path_factory) -> Path:
    """The work directory of an uninterrupted run of ``EVERYTHING``."""
    runs = Runs(tmp_path_factory.mktemp('everything'), **EVERYTHING)
    runs.run('whole')
    assert runs.result('whole')['steps'] == STEPS
    return runs.directory / 'whole'


def kill(runs: Runs, kind: str, target: int, generator: random.Random) -> str:
    """Start the run, SIGKILL it while it does something of a kind, from a step on; what it did in fact."""
    process = runs.start('cut')
    # The first one that is due anyway, or a later one.
    due = max(target, runs.newest('cut') + 1)
    if kind == 'saving':
        there = wait_for(process, lambda: runs.saving('cut', due))
    elif kind == 'computing':
        there = wait_for(process, lambda: runs.newest('cut') >= due)
    else:
        there = wait_for(process, (runs.directory / 'cut' / 'config.json').exists)
    time.sleep(generator.uniform(0, {'starting': 5.0, 'saving': 0.01, 'computing': 0.2}[kind]))
    assert there
    assert process.poll() is None
    during_save = any(runs.checkpoints('cut').glob('*.unfinished'))
    process.kill()
    ended(process, -signal.SIGKILL)
    during_save = during_save and any(runs.checkpoints('cut').glob('*.unfinished'))
    return 'saving' if during_save else 'computing' if kind == 'saving' else kind


@pytest.mark.parametrize(
    'case', [pytest.param(case, marks=pytest.mark.exhaustive if case else pytest.mark.slow) for case in range(6)]
)
def test_killed_four_times(tmp_path, whole, case):
    """Twice while it saves, once while it starts and once while it computes, from the first quarter to the last."""
    runs = Runs(tmp_path, **EVERYTHING)
    shutil.copytree(whole, tmp_path / 'whole')
    generator = random.Random(case)
    kinds = ['saving', *generator.sample(['starting', 'computing', 'saving'], 3)]
    # The first one in the first phase and after a checkpoint, the last one before the end.
    ranges = [(8, 40), (60, 110), (120, 165), (170, STEPS - 30)]
    kills = []
    for kind, (start, stop) in zip(kinds, ranges, strict=True):
        kills.append(kill(runs, kind, generator.randrange(start, stop), generator))
        # A checkpoint that was finished by then is no kill while it saved: the next one may be.
        while kind == 'saving' and kills[-1] != 'saving' and runs.newest('cut') < STEPS - 12:
            kills.append(kill(runs, kind, 0, generator))
    assert kills.count('saving') >= 2, kills
    assert runs.newest('cut') < STEPS
    runs.run('cut')
    runs.assert_same('cut', 'whole')
    resumed = [event['step'] for event in runs.events('cut', 'resumed')]
    # Progress was made between the kills, in both phases.
    assert len(set(resumed)) >= 2
    assert min(resumed) < 78 < max(resumed)
    print(f'{kills}, resumed after {resumed}')


@pytest.mark.exhaustive
def test_a_detector_is_killed_twice(tmp_path):
    """Random crops and scales, boxes, and a head without parameters of its own for them: all of it resumes."""
    runs = Runs(
        tmp_path, task='detection', dataset='shapes', weights='bundled:vit_micro', regime='finetune', image_size=32,
        strides=(4, 8), neck_channels=16, head_depth=1, shift=0, flip=True, smallest_scale=0.5, largest_scale=1.5,
        mosaic=0.5, colour_jitter=0.2, fraction=0.1, batch_size=8, epochs=3.0, checkpoint_epochs=0.1,
    )  # fmt: skip
    runs.run('whole')
    steps = runs.result('whole')['steps']
    assert steps > 40
    generator = random.Random(0)
    for kind, target in (('saving', steps // 4), ('computing', steps // 2)):
        kill(runs, kind, target, generator)
    assert runs.newest('cut') < steps
    runs.run('cut')
    runs.assert_same('cut', 'whole')


@pytest.mark.parametrize(
    'times', [pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.exhaustive)]
)
def test_asked_to_stop(tmp_path, times):
    """Before the first step, and later once or twice."""
    runs = Runs(tmp_path, epochs=6.0, ema_decay=0.9, mixup=0.2, checkpoint_epochs=1.0)
    runs.run('whole')
    steps_per_epoch = 39
    assert runs.result('whole')['steps'] == 6 * steps_per_epoch

    process = runs.start('cut')
    assert wait_for(process, (tmp_path / 'cut' / 'config.json').exists)
    process.send_signal(signal.SIGTERM)  # before the first step
    assert 'the same command continues' in ended(process, 75)
    assert runs.newest('cut') in (0, 1)

    for _ in range(times):
        process = runs.start('cut')
        before = runs.newest('cut')
        assert wait_for(process, lambda before=before: runs.newest('cut') > before)
        before = runs.newest('cut')
        time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        error = ended(process, 75)
        step = runs.events('cut', 'preempted')[-1]['step']
        assert f'step {step} is saved, and the same command continues' in error
        # The last step that was taken is the one that is saved: no row of a later one is there, and none is missing.
        assert [row['step'] for row in runs.rows('cut') if 'epoch' not in row] == list(range(1, step + 1))
        assert before < runs.newest('cut') == step < 6 * steps_per_epoch
    runs.run('cut')
    resumed = [event['step'] for event in runs.events('cut', 'resumed')]
    assert resumed[-times:] == [event['step'] for event in runs.events('cut', 'preempted')][-times:]
    runs.assert_same('cut', 'whole')


@pytest.mark.exhaustive
def test_several_processes_are_asked_to_stop_and_one_continues(tmp_path):
    # Not Adam, which makes steps out of the rounding of gradients that are near zero.
    runs = Runs(
        tmp_path, image_size=16, fraction=1.0, batch_size=64, epochs=2.0, mixup=0.2, checkpoint_epochs=0.25,
        weights='bundled:vit_micro', regime='finetune', optimizer='sgd', learning_rate=0.05, clip_norm=1.0,
    )  # fmt: skip
    cut = 'cut [1]'  # a pattern for the library that writes checkpoints
    runs.run('whole')
    address = f'localhost:{free_port()}'
    both = [
        runs.start(cut, f'--coordinator_address={address}', '--num_processes=2', f'--process_id={number}', devices=2)
        for number in range(2)
    ]
    assert wait_for(both[0], lambda: runs.newest(cut) >= 10)
    both[1].send_signal(signal.SIGINT)
    # Only the process that Ctrl-C was meant for says that it was interrupted.
    assert 'asked to stop: step' in ended(both[0], 75)
    assert 'interrupted: step' in ended(both[1], 130)
    (event,) = runs.events(cut, 'preempted')
    assert 10 < event['step'] == runs.newest(cut) < 30
    assert not list(runs.checkpoints(cut).glob('*.*'))
    runs.run(cut)
    (event,) = runs.events(cut, 'resumed')
    rows, wanted = runs.rows(cut), runs.rows('whole')
    assert [row['step'] for row in rows] == [row['step'] for row in wanted]
    worst: dict[str, float] = {}
    for row, want in zip(rows, wanted, strict=True):
        assert row.keys() == want.keys()
        for name, value in want.items():
            if isinstance(value, str):
                assert row[name] == value
            else:
                worst[name] = max(worst.get(name, 0.0), abs(row[name] - value) / max(1.0, abs(value)))
    print(f'resumed after {event["step"]}; largest differences {worst}')
    assert max(worst.values()) <= 1e-5
    assert rows[-1]['loss'] < 0.95 * rows[0]['loss']
    results = [runs.result(name) for name in (cut, 'whole')]
    assert math.isclose(results[0]['test_loss'], results[1]['test_loss'], rel_tol=1e-5)
    assert results[0]['test_accuracy'] == results[1]['test_accuracy']
