"""Devices by name, attached or not: ``local``, ``cpu:8``, ``v5e:16x16``."""

import importlib.util
import os
import re

import jax
from jax.experimental import topologies

from backbones.errors import UserError, unknown
from experiments.planning import memory

# GiB of high-bandwidth memory that a program may use, per device: a chip's (v5e 16, v4 and v6e 32, v5p 95: the tables
# "System architecture" at cloud.google.com/tpu/docs), less what the runtime keeps. From the messages of libtpu 0.0.42
# for a program that is too large: "exceeds available HBM (15.75G)". tpu7x chips are two devices each.
MEMORY_GIB = {'v2': 7.48, 'v3': 15.48, 'v4': 30.75, 'v5e': 15.75, 'v5p': 95.74, 'v6e': 31.25, 'tpu7x': 94.75}

_EXAMPLES = ('v4:2x2x2', 'v5e:1x1', 'v5e:2x4', 'v5e:16x16', 'v5p:2x2x2', 'v6e:4x4', 'tpu7x:2x2x1', 'cpu:8', 'local')
# A v4 chip's two cores work as one device.
_OPTIONS = {'v4': {'chip_config_name': 'megacore'}}
# A single v5e chip is a topology; all others come in hosts of four.
_BOUNDS = {'1x1': {'chips_per_host_bounds': (1, 1, 1)}}


def devices(name: str) -> tuple[list[jax.Device], int]:
    """Devices that programs can be compiled for, and the memory of each.

    Args:
        name: ``'local'``: the attached ones. ``'cpu:N'``: N emulated on this machine's processor; this must come
            before any other use of JAX. ``'GENERATION:SHAPE'``: a TPU slice of that many chips along each
            axis, which needs ``libtpu`` but no TPU.

    Returns:
        The devices, and the memory of each in bytes; 0 if unknown, as for emulated ones.

    Raises:
        UserError: no such topology, no ``libtpu``, or JAX already runs with another number of CPU devices.
    """
    if name == 'local':
        return jax.devices(), memory.of(jax.devices()).total
    kind, colon, shape = name.partition(':')
    if kind == 'cpu' and re.fullmatch('[1-9][0-9]*', shape):
        return _emulated(int(shape)), 0
    if not colon or kind not in MEMORY_GIB or not re.fullmatch(r'[1-9]\d*(x[1-9]\d*){1,2}', shape):
        raise unknown('topology', name, _EXAMPLES)
    return _tpus(name, kind, shape), round(MEMORY_GIB[kind] * 2**30)


def _emulated(count: int) -> list[jax.Device]:
    try:
        jax.config.update('jax_platforms', 'cpu')
        jax.config.update('jax_num_cpu_devices', count)
    except RuntimeError:
        # JAX has already started, which is fine if it has as many.
        pass
    found = jax.devices('cpu')
    if len(found) != count:
        raise UserError(
            f'JAX already runs with {len(found)} CPU device{"s" * (len(found) > 1)}, so it cannot have {count}; '
            f'start another process, without xla_force_host_platform_device_count in XLA_FLAGS'
        )
    return found


def _tpus(name: str, kind: str, shape: str) -> list[jax.Device]:
    if importlib.util.find_spec('libtpu') is None:
        raise UserError(f'compiling for {name} needs the TPU compiler, which is not installed: pip install libtpu')
    # There is no TPU to query, and none to claim: several plans can run at once.
    for variable, value in {
        'TPU_SKIP_MDS_QUERY': '1',
        'TPU_WORKER_HOSTNAMES': 'localhost',
        'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
        'TPU_LOG_DIR': 'disabled',
        # Only avoids a warning: the name of the topology decides.
        'TPU_ACCELERATOR_TYPE': 'v5litepod-4',
    }.items():
        os.environ.setdefault(variable, value)
    # The little that is executed runs on the CPU.
    jax.config.update('jax_platforms', 'cpu')
    options = {**_OPTIONS.get(kind, {}), **_BOUNDS.get(shape, {})}
    try:
        return list(topologies.get_topology_desc(name, platform='tpu', **options).devices)
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0].removeprefix('INVALID_ARGUMENT: ')
        near = ', '.join(example for example in _EXAMPLES if example.startswith(kind))
        raise UserError(f'libtpu knows no topology {name!r} ({reason}); it knows {near} and others') from None
