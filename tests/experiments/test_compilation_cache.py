"""Compiled programs of earlier runs: the same numbers, and nothing that is wrong with them ends a run."""

import json
import os
import subprocess
import sys
import time
import warnings
import zlib
from pathlib import Path

import pytest

from experiments.cli import cache_directory, compilation_cache

ROOT = Path(__file__).parents[2]

# A step of a small network with donated arguments: its costs, its result to the bit, and how many programs were read.
PROGRAM = """
import dataclasses, json, sys
from experiments.cli import compilation_cache
compilation_cache.configure()
import jax, numpy as np
from jax import monitoring
from experiments.planning import program_costs

events = []
monitoring.register_event_listener(lambda name, **_: events.append(name.rpartition('/')[2]))

def loss(kernel, images):
    convolved = lambda images: jax.numpy.tanh(jax.lax.conv(images, kernel, (1, 1), 'SAME'))
    return jax.lax.fori_loop(0, 3, lambda _, x: convolved(x), images).var()

def step(kernel, images):
    value, gradient = jax.value_and_grad(loss)(kernel, images)
    return kernel - 0.1 * gradient, value

kernel = np.linspace(-1, 1, 144, dtype='f').reshape(4, 4, 3, 3)
images = np.linspace(0, 1, 2048, dtype='f').reshape(2, 4, 16, 16)
program = jax.jit(step, donate_argnums=0).lower(kernel, images).compile()
kernel, value = program(jax.numpy.asarray(kernel), images)
found = {
    'analysis': dataclasses.asdict(program_costs.analyse(program)),
    'memory': str(program.memory_analysis()),
    'kernel': np.asarray(kernel).tobytes().hex(),
}
print(json.dumps([found, events.count('cache_hits'), events.count('cache_misses')], default=str))
"""


def start(cache: Path | str, **environment: str) -> subprocess.Popen:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith('JAX_COMPILATION_CACHE')}
    return subprocess.Popen(
        [sys.executable, '-c', PROGRAM],
        env={**inherited, 'PYTHONPATH': str(ROOT), 'VISION_BACKBONES_CACHE': str(cache), **environment},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def ended(process: subprocess.Popen) -> tuple[dict, int, int]:
    """What it found, and how many programs it read and wrote; nothing else is printed."""
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert errors == ''
    return tuple(json.loads(output))


def programs(cache: Path) -> list[Path]:
    return sorted((cache / 'programs').rglob('*-cache'))


def test_a_program_that_is_read_has_the_same_costs_and_the_same_bits(tmp_path):
    compiled, hits, misses = ended(start(tmp_path))
    assert hits == 0
    assert misses == len(programs(tmp_path)) > 0
    # A process that was killed while it wrote.
    damaged = programs(tmp_path)[0]
    damaged.write_bytes(damaged.read_bytes()[:-20])
    read, hits, again = ended(start(tmp_path))
    assert (hits, again) == (misses - 1, 1)
    assert read == compiled
    assert {program.name for program in programs(tmp_path)} >= {damaged.name}


@pytest.mark.slow
def test_without_a_cache_and_several_at_once(tmp_path):
    (tmp_path / 'file').touch()
    switched_off = start(tmp_path / 'off', JAX_ENABLE_COMPILATION_CACHE='0')
    unwritable = start(tmp_path / 'file')
    empty = start(tmp_path / 'empty', JAX_COMPILATION_CACHE_DIR='')
    together = [start(tmp_path / 'cache') for _ in range(3)]
    found = [ended(each) for each in (switched_off, unwritable, empty, *together)]
    assert all(each[0] == found[0][0] for each in found)
    assert [each[1:] for each in found[:3]] == [(0, 0)] * 3
    assert {file.name for file in tmp_path.iterdir()} == {'file', 'cache'}
    assert ended(start(tmp_path / 'cache'))[2] == 0


class TestConfigure:
    @pytest.fixture(autouse=True)
    def before_jax(self, monkeypatch, tmp_path):
        monkeypatch.delitem(sys.modules, 'jax')
        for name in ('JAX_COMPILATION_CACHE_DIR', *compilation_cache._THRESHOLDS):
            monkeypatch.setenv(name, 'x')  # so that it is restored
            monkeypatch.delenv(name)
        monkeypatch.setenv('VISION_BACKBONES_CACHE', str(tmp_path / 'cache'))
        with warnings.catch_warnings():
            yield

    def test_the_directory_is_that_of_this_machine(self, monkeypatch, tmp_path):
        compilation_cache.configure()
        place = Path(os.environ['JAX_COMPILATION_CACHE_DIR'])
        assert place.parent == tmp_path / 'cache' / 'programs'
        # Nothing is made before something is compiled.
        assert not any(tmp_path.iterdir())
        monkeypatch.delenv('JAX_COMPILATION_CACHE_DIR')
        monkeypatch.setattr(compilation_cache, '_processor', lambda: 'another one')
        compilation_cache.configure()
        assert Path(os.environ['JAX_COMPILATION_CACHE_DIR']).name != place.name

    def test_the_users_own_directory(self, monkeypatch):
        monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', '/own')
        compilation_cache.configure()
        assert os.environ['JAX_COMPILATION_CACHE_DIR'] == '/own'
        assert 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS' not in os.environ

    @pytest.mark.parametrize('given', ['', None])
    def test_no_directory(self, monkeypatch, tmp_path, given):
        if given is None:
            (tmp_path / 'cache').touch()  # a file is in the way
        else:
            monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', given)
        compilation_cache.configure()
        assert 'JAX_COMPILATION_CACHE_DIR' not in os.environ

    def test_the_platforms_directory(self, monkeypatch, tmp_path):
        monkeypatch.setenv('VISION_BACKBONES_CACHE', '')
        monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'xdg'))
        if sys.platform.startswith('linux'):
            assert cache_directory.programs() == tmp_path / 'xdg' / 'vision-backbones' / 'programs'
        assert cache_directory.programs().parent == cache_directory.features().parent


def write(file: Path, size: int, age: float = 0.0) -> Path:
    """A program whose compressed bytes have about this size, last used some seconds ago."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(zlib.compress(os.urandom(size)))
    os.utime(file, (time.time() - age,) * 2)
    return file


class TestTidy:
    def test_what_is_cut_or_empty_is_removed(self, tmp_path):
        whole, cut, empty = (write(tmp_path / 'machine' / f'{name}-cache', 1000) for name in ('whole', 'cut', 'empty'))
        other = tmp_path / 'machine' / 'zstandard-cache'
        other.write_bytes(b'\x28\xb5\x2f\xfd and so on')
        cut.write_bytes(cut.read_bytes()[:500])
        empty.write_bytes(b'')
        compilation_cache.tidy(tmp_path)
        assert set(tmp_path.rglob('*-cache')) == {whole, other}

    def test_files_are_checked_once(self, tmp_path, monkeypatch):
        old = write(tmp_path / 'old-cache', 10, age=3600)
        compilation_cache.tidy(tmp_path)
        checked = []
        monkeypatch.setattr(compilation_cache, '_is_whole', lambda file: checked.append(file) or True)
        compilation_cache.tidy(tmp_path)
        assert checked == []
        new = write(tmp_path / 'new-cache', 10)
        compilation_cache.tidy(tmp_path)
        assert checked == [new] != [old]

    def test_the_least_recently_used_go_first(self, tmp_path):
        files = [write(tmp_path / f'machine{age}' / f'{age}-cache', 1000, age=3600 * age) for age in range(5)]
        os.utime(files[4], (time.time(), files[4].stat().st_mtime))  # it was read just now
        compilation_cache.tidy(tmp_path, limit=3500)
        assert [file.exists() for file in files] == [True, True, False, False, True]

    def test_no_directory(self, tmp_path):
        compilation_cache.tidy(tmp_path / 'none')
        assert not any(tmp_path.iterdir())
