"""How processes find each other."""

import os
import subprocess
import sys

import pytest

from backbones import UserError
from experiments.training import distributed


def test_a_process_alone_joins_nobody(monkeypatch):
    monkeypatch.setattr(distributed.jax.distributed, 'initialize', lambda *_: pytest.fail('joined'))
    distributed.join(detect=False)


def test_the_three_belong_together():
    with pytest.raises(UserError, match='belong together; one is missing'):
        distributed.join(False, 'localhost:1', 2, None)


def test_no_cluster(monkeypatch):
    """What JAX says of missing variables becomes one line that says what to give."""

    def initialize(*_):
        raise ValueError('coordinator_address should be defined.')

    monkeypatch.setattr(distributed.jax.distributed, 'initialize', initialize)
    monkeypatch.setattr(distributed.jax.config, 'update', lambda *_: None)
    with pytest.raises(UserError, match=r'coordinator_address should be defined.*give --coordinator_address'):
        distributed.join(detect=True)


def test_several_processes_all_compile(monkeypatch):
    """None waits in a collective for one that has not found its program in the cache."""
    changed = {}
    monkeypatch.setattr(distributed.jax.distributed, 'initialize', lambda *_: None)
    monkeypatch.setattr(distributed.jax.config, 'update', changed.__setitem__)
    distributed.join(False)
    assert changed == {}
    distributed.join(False, 'localhost:1', 2, 0)
    assert changed == {'jax_enable_compilation_cache': False}


_JOIN = """
import jax
from experiments.training import distributed
distributed.join(detect=True)
print(jax.process_index(), jax.process_count(), jax.device_count())
"""


@pytest.mark.slow
def test_slurm_says_who_is_who():
    """Its variables, as ``srun`` sets them for two tasks on one node."""
    variables = {'SLURM_JOB_ID': str(os.getpid()), 'SLURM_STEP_NODELIST': 'localhost', 'SLURM_NTASKS': '2'}
    tasks = [
        subprocess.Popen(
            [sys.executable, '-c', _JOIN],
            env={
                **os.environ,
                **variables,
                'JAX_PLATFORMS': 'cpu',
                'SLURM_PROCID': str(number),
                'SLURM_LOCALID': str(number),
            },
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    outputs = [task.communicate(timeout=120)[0].split()[-3:] for task in tasks]
    assert outputs == [['0', '2', '2'], ['1', '2', '2']]
