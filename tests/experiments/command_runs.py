"""Trainings as a user starts them: the command in a process of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from experiments import tasks
from experiments.cli import command_line
from experiments.data import loading
from experiments.training.checkpoints import Checkpoints, Restored
from experiments.training.session import Session

ROOT = Path(__file__).parents[2]
# For processes that tests start: what they compile is not what is tested.
COMPILED_QUICKLY = {'JAX_DISABLE_MOST_OPTIMIZATIONS': '1', 'XLA_FLAGS': '--xla_cpu_use_fusion_emitters=false'}
PATIENCE = 300.0  # seconds until a run that does not do what is waited for counts as stuck


class Runs:
    """Runs of one config file; compiled programs are kept, so that a restart takes seconds.

    Args:
        directory: where the config file and the work directories lie; compiled programs lie beside it.
        values: of the config, on top of a few that make it small.
    """

    def __init__(self, directory: Path, **values):
        self.directory = directory
        self._cache = directory.parent / 'compiled'
        values = {
            'dataset': 'digits', 'backbone': 'vit_micro', 'image_size': 8, 'fraction': 0.5, 'batch_size': 16,
            'warmup_epochs': 0.5, 'flip': False, 'shift': 1, 'threads': 1, 'log_steps': 1, **values,
        }  # fmt: skip
        lines = ['from experiments.training.config import default_config', 'def get_config():']
        lines += ['    config = default_config()', f'    config.update({values!r})', '    return config', '']
        self.config_file = directory / 'config.py'
        self.config_file.write_text('\n'.join(lines))

    def start(self, name: str, *arguments: str, devices: int = 1, before: tuple[str, ...] = ()) -> subprocess.Popen:
        """Start the command on a work directory; what it says goes to pipes."""
        interruptible()
        command = [sys.executable, '-m', 'experiments.train', '--config', str(self.config_file)]
        return subprocess.Popen(
            [*before, *command, '--workdir', str(self.directory / name), *arguments],
            cwd=ROOT,
            env={
                **os.environ,
                'JAX_PLATFORMS': 'cpu',
                **COMPILED_QUICKLY,
                'JAX_NUM_CPU_DEVICES': str(devices),
                'JAX_COMPILATION_CACHE_DIR': str(self._cache),
                'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
            },
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, name: str, *arguments: str, expected: int = 0, **options) -> str:
        """Run the command to its end; standard error."""
        return ended(self.start(name, *arguments, **options), expected)

    def checkpoints(self, name: str) -> Path:
        return self.directory / name / 'checkpoints'

    def newest(self, name: str) -> int:
        """Step of the newest checkpoint; 0 if there is none."""
        directory = self.checkpoints(name)
        names = [path.name for path in directory.iterdir()] if directory.is_dir() else []
        return max((int(name) for name in names if name.isdigit()), default=0)

    def saving(self, name: str, step: int) -> bool:
        """Whether a checkpoint of this step or a later one is being written."""
        return any(int(path.stem) >= step for path in self.checkpoints(name).glob('*.unfinished'))

    def events(self, name: str, kind: str) -> list[dict]:
        lines = (self.directory / name / 'events.jsonl').read_text().splitlines()
        return [event for event in map(json.loads, lines) if event['event'] == kind]

    def rows(self, name: str) -> list[dict]:
        return [json.loads(line) for line in (self.directory / name / 'metrics.jsonl').read_text().splitlines()]

    def result(self, name: str) -> dict:
        return json.loads((self.directory / name / 'result.json').read_text())

    def session(self, name: str) -> Session:
        config = command_line.load_config(str(self.config_file))
        return Session(config, loading.load(config.dataset, truth=tasks.find(config.task).truth), self.directory / name)

    def restored(self, name: str) -> Restored:
        """The newest checkpoint, on one device."""
        programs = self.session(name).programs
        with Checkpoints(self.checkpoints(name)) as checkpoints:
            restored = checkpoints.restore_latest(lambda metadata: programs.abstract_state(metadata['phase']))
        assert restored is not None
        return restored

    def assert_same(self, one: str, other: str) -> None:
        """Weights, metrics, the whole last state and the results are the same, bit by bit."""
        for file in ('weights.safetensors', 'metrics.jsonl', 'parameters.json'):
            assert (self.directory / one / file).read_bytes() == (self.directory / other / file).read_bytes(), file
        left, right = self.restored(one), self.restored(other)
        assert (left.step, left.metadata, left.warnings) == (right.step, right.metadata, right.warnings)
        assert_same_bits(left.state, right.state)
        # Some values of a config may differ between equal runs.
        results = [{**self.result(name), 'images_per_second': 0, 'config': {}} for name in (one, other)]
        assert results[0] == results[1]
        files = [self.directory / name / 'predictions' / 'test.npz' for name in (one, other)]
        with np.load(files[0]) as predictions, np.load(files[1]) as others:
            assert all((predictions[name] == others[name]).all() for name in predictions)


def interruptible() -> None:
    """Let new processes be interrupted, even if the tests run in a shell's background, where that is ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as free:
        free.bind(('localhost', 0))
        return free.getsockname()[1]


def ended(process: subprocess.Popen, expected: int) -> str:
    """Wait for the end of a process, which must have this exit status; its standard error."""
    try:
        _, error = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == expected, f'exit status {process.returncode}, not {expected}:\n{error}'
    return error


def wait_for(process: subprocess.Popen, condition: Callable[[], bool]) -> bool:
    """Return when a condition holds, or that the process ended before."""
    until = time.monotonic() + PATIENCE
    while process.poll() is None:
        if condition():
            return True
        assert time.monotonic() < until, 'stuck'
        time.sleep(0.001)
    return False


def only_error(text: str) -> str:
    """The one line that a user is told of an error; there is no traceback around it."""
    assert 'Traceback' not in text, text
    (line,) = [line for line in text.splitlines() if line.startswith('error: ')]
    return line


def assert_same_bits(one, other) -> None:
    for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        if jax.dtypes.issubdtype(left.dtype, jax.dtypes.prng_key):
            left, right = jax.random.key_data(left), jax.random.key_data(right)
        assert (left.dtype, left.shape) == (right.dtype, right.shape)
        assert np.asarray(left).tobytes() == np.asarray(right).tobytes()
