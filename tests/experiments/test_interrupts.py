"""Ctrl-C: one is answered at once, saves and ends; a second ends at once, whatever the process is doing."""

import dataclasses
import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from command_runs import COMPILED_QUICKLY, ROOT, Runs, ended, interruptible, wait_for
from test_loading import write_images
from tiny import make_dataset

from experiments.cli import interrupts
from experiments.cli.exit_status import INTERRUPTED, Preempted
from experiments.data import examples_by_id
from experiments.data.decoding import DecodedImages
from experiments.training.preemption import Interruption

# A program that is not a test: what it does is in BODY; it tells when it is doing it.
PROGRAM = """
import sys, threading, time
from experiments.cli import command_line, interrupts
def ready():
    print('ready', flush=True)
def main(argv):
{body}
command_line.run(main, continues={continues})
"""


def start(body: str, *arguments: str, continues: bool = False) -> subprocess.Popen:
    """Start a program and wait until it is ready."""
    program = PROGRAM.format(continues=continues, body='\n'.join(f'    {line}' for line in body.strip().splitlines()))
    interruptible()
    process = subprocess.Popen(
        [sys.executable, '-c', program, *arguments],
        cwd=ROOT,
        env={**os.environ, 'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(ROOT), **COMPILED_QUICKLY},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == 'ready\n', process.communicate()[1]
    return process


def interrupt(process: subprocess.Popen) -> str:
    """Send Ctrl-C and read the next line that the process says; it must come at once."""
    since = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    line = process.stderr.readline()
    assert time.monotonic() - since < 3, line
    return line.rstrip('\n')


def ends_soon(process: subprocess.Popen, seconds: float) -> str:
    """Wait for the end, which must come soon; the rest of standard error."""
    since = time.monotonic()
    rest = ended(process, INTERRUPTED)
    assert time.monotonic() - since < seconds, rest
    assert 'Traceback' not in rest
    return rest


# Minutes of computing without a Python instruction, as compiling is.
BUSY = """
import hashlib
ready()
hashlib.pbkdf2_hmac('sha256', b'', b'', 2_000_000_000)
"""


def test_two_end_a_process_that_computes(tmp_path):
    process = start(BUSY)
    time.sleep(0.5)  # it is ready a moment before
    assert interrupt(process) == interrupts.FIRST
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert ends_soon(process, 5) == f'{interrupts.ENDED}\n'


def test_two_ends_at_the_same_time_are_told_once():
    process = start("""
say = interrupts._say
interrupts._say = lambda text: (say(text), time.sleep(0.3))
threading.Thread(target=interrupts.end_at_once).start()
time.sleep(0.1)
ready()
interrupts.end_at_once()
""")
    assert ends_soon(process, 5) == f'{interrupts.SECOND}\n'


def test_one_ends_a_process_whose_thread_waits_for_ever():
    process = start("""
from experiments.data.decoding import worker_threads
with worker_threads() as pool:
    waiting = [pool.submit(threading.Event().wait) for _ in range(9)]
    ready()
    waiting[0].result()
""")
    assert interrupt(process) == interrupts.FIRST
    assert ends_soon(process, 15) == 'interrupted\n'


def training_on_a_folder(tmp_path: Path, body: str) -> subprocess.Popen:
    write_images(tmp_path / 'images', {'a': 30, 'b': 30}, size=(8, 8))
    config = f'configs/transfer.py:backbone=vit_micro,dataset=folder:{tmp_path}/images'
    quick = ('--config.image_size=8', '--config.batch_size=8', '--config.threads=1', '--config.prefetch=1')
    return start(body, '--config', config, *quick, '--workdir', str(tmp_path / 'run'), continues=True)


@pytest.mark.slow
def test_one_ends_a_training_while_a_file_that_does_not_answer_is_checked(tmp_path):
    body = """
from experiments import train
from experiments.data import image_files
check = image_files.check
def blocked(path, *more):
    if path.stem.endswith('3'):
        ready()
        threading.Event().wait()
    return check(path, *more)
image_files.check = blocked
train.main(sys.argv[1:])
"""
    process = training_on_a_folder(tmp_path, body)
    process.send_signal(signal.SIGINT)
    rest = ends_soon(process, 20)
    assert interrupts.FIRST in rest
    assert rest.endswith('interrupted: the same command continues\n')
    assert not (tmp_path / 'run').exists()


@pytest.mark.slow
def test_two_end_a_training_that_waits_for_a_file(tmp_path):
    body = """
from experiments import train
from experiments.data import pipeline
pipeline._next = lambda elements: (ready(), threading.Event().wait())
train.main(sys.argv[1:])
"""
    process = training_on_a_folder(tmp_path, body)
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    rest = ends_soon(process, 5)
    assert rest.splitlines()[-2:] == [interrupts.FIRST, interrupts.SECOND]


@pytest.mark.slow
def test_interrupted_once_and_twice_a_training_continues_bit_for_bit(tmp_path):
    runs = Runs(tmp_path, epochs=6.0, ema_decay=0.9, mixup=0.2, checkpoint_epochs=1.0)
    runs.run('whole')
    for times, status in ((1, INTERRUPTED), (2, INTERRUPTED)):
        process = runs.start('cut')
        before = runs.newest('cut')
        assert wait_for(process, lambda before=before: runs.newest('cut') > before)
        time.sleep(0.1)
        for _ in range(times):
            process.send_signal(signal.SIGINT)
            time.sleep(0.001)
        error = ended(process, status)
        assert 'Traceback' not in error
        assert interrupts.FIRST in error
        if times == 1:
            step = runs.events('cut', 'preempted')[-1]['step']
            assert error.splitlines()[-1] == f'interrupted: step {step} is saved, and the same command continues'
            assert error.count('is saved') == 1
            assert runs.newest('cut') == step
    runs.run('cut')
    runs.assert_same('cut', 'whole')


@pytest.mark.slow
def test_interrupted_while_it_compiles(tmp_path):
    runs = Runs(tmp_path, backbone='resnet_micro', image_size=32, epochs=2.0)
    process = runs.start('cut')
    assert wait_for(process, (tmp_path / 'cut' / 'parameters.json').exists)
    process.send_signal(signal.SIGINT)
    error = ended(process, INTERRUPTED)
    assert error.count(interrupts.FIRST) == 1
    assert error.splitlines()[-1] == 'interrupted: step 1 is saved, and the same command continues'
    assert runs.newest('cut') == 1


def test_one_is_noted_while_deferred_and_raised_otherwise(monkeypatch):
    ends = []
    monkeypatch.setattr(interrupts, 'end_at_once', lambda: ends.append(1))
    with Interruption() as interruption:
        told = 'interrupted: step 5 of cell is saved, and the same'
        with pytest.raises(Preempted, match=told) as caught, interruption.deferred():
            assert not interruption.asked()
            signal.raise_signal(signal.SIGINT)
            assert interruption.asked()
            raise interruption.preempted(5, 'cell')
        assert caught.value.status == INTERRUPTED
        with pytest.raises(Preempted):
            signal.raise_signal(signal.SIGINT)
        assert ends == [1]
    with Interruption(), pytest.raises(Preempted, match=r'^interrupted: the same command continues$'):
        signal.raise_signal(signal.SIGINT)
    with Interruption(), pytest.raises(Preempted, match=r'^asked to stop: the same command continues$') as caught:
        signal.raise_signal(signal.SIGTERM)
    assert caught.value.status == 75


def digest(read, monkeypatch):
    dataset = make_dataset()
    images = DecodedImages(read, dataset.images.shape)
    return dataclasses.replace(dataset, images=images).content_digest()


def pictures(read, monkeypatch):
    monkeypatch.setattr(examples_by_id, '_embedded', lambda name, dense: lambda example: read(int(example)))
    return examples_by_id.read('digits', [str(index) for index in range(5)])


@pytest.mark.parametrize('reads', [digest, pictures])
def test_to_be_asked_to_stop_is_no_unreadable_image(monkeypatch, reads):
    def read(index):
        if index == 3:
            signal.raise_signal(signal.SIGTERM)
        return np.zeros((8, 8, 1), np.uint8)

    with pytest.raises(Preempted), Interruption():
        reads(read, monkeypatch)


def test_an_ignored_interrupt_stays_ignored():
    """As a shell starts what runs in its background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupts.answered(), Interruption() as interruption:
            signal.raise_signal(signal.SIGINT)
            assert not interruption.asked()
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_request_that_a_callback_swallows_is_repeated():
    """The garbage collector's callbacks are Python, and what they raise goes nowhere."""
    swallowed = []

    def callback(phase, info):
        if not swallowed:
            swallowed.append(phase)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0)  # the handler runs here

    with pytest.raises(Preempted), Interruption():
        gc.callbacks.append(callback)
        try:
            gc.collect()
            time.sleep(5)
        finally:
            gc.callbacks.remove(callback)
    assert swallowed
