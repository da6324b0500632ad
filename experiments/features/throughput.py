"""Speed and memory under one stated procedure, so that each network has a single figure in a table."""

import contextlib
import dataclasses
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.cli import atomic_files
from experiments.features.collective_store import of_main_process
from experiments.features.frozen_pass import FrozenPass
from experiments.features.identity import address
from experiments.features.store import Store

FILE = 'throughput.json'
WARM_UP = 3
BATCHES = 20
SECONDS = 2.0
_FEWEST = 5

# For tables and documents that show the figure.
PROCEDURE = (
    f'images/s: forward passes of the frozen backbone alone, on inputs already on the device, at the batch size of '
    f'the config; the median of {BATCHES} batches after {WARM_UP} warm-up calls (fewer, but at least {_FEWEST}, if '
    f'they take longer than {SECONDS:g} s); measured once per backbone, input size and type. Peak memory: that of the '
    'same program on each device, as its compiler reports it: weights, inputs, outputs and everything temporary'
)


@dataclasses.dataclass(frozen=True)
class Measured:
    """What was measured of a network.

    Attributes:
        images_per_second: those of all devices together.
        peak_memory_bytes: memory of each device; ``None`` if the platform does not tell.
    """

    images_per_second: float
    peak_memory_bytes: int | None = None


def measure(frozen: FrozenPass, variables: Any, size: tuple[int, int]) -> Measured:
    """Measure a network, as ``PROCEDURE`` says.

    This process must not compute or read anything else meanwhile.

    Args:
        frozen: the backbone's programs.
        variables: arrays on the mesh.
        size: height and width of the model's input.
    """
    mesh, batch = frozen.device_mesh, frozen.batch_size
    rows = mesh.rows(batch)
    values = np.random.default_rng(0).standard_normal((1, *size, 3), np.float32)
    images = mesh.batch_arrays({'image': np.broadcast_to(values, (len(rows), *size, 3))}, rows, batch)['image']
    for _ in range(WARM_UP):
        jax.block_until_ready(frozen.program(variables, images))
    seconds: list[float] = []
    while not _enough(seconds):
        started = time.perf_counter()
        jax.block_until_ready(frozen.program(variables, images))
        seconds.append(time.perf_counter() - started)
    memory = frozen.memory(variables, images)
    return Measured(batch / statistics.median(seconds), None if memory is None else memory.peak)


def _enough(seconds: list[float]) -> bool:
    # All processes must call the program equally often, but their clocks differ.
    early = jax.process_count() == 1 and len(seconds) >= _FEWEST and sum(seconds) >= SECONDS
    return early or len(seconds) >= BATCHES


class Throughputs:
    """Measured figures, in a work directory and, for other work directories on this machine, in the store.

    Args:
        workdir: keeps ``throughput.json``: one table shows one figure, however often a run is resumed.
        store: the feature store; it keeps figures as notes.
    """

    def __init__(self, workdir: Path, store: Store):
        self._workdir = workdir / FILE
        self._store = store

    def get(self, document: dict, measured: Callable[[], Measured]) -> Measured:
        """The figures of a network; they are measured if there are none yet.

        Args:
            document: everything that the figures depend on; the machine is added.
            measured: measures them.
        """
        document = {**document, 'machine': platform.node(), 'processor': platform.machine()}
        name = address(document)
        mine, ours = _read(self._workdir), self._store.note('throughput', name)
        if name not in mine:
            mine[name] = _read(ours)
        noted = {each.name: mine[name][each.name] for each in dataclasses.fields(Measured) if each.name in mine[name]}
        known = of_main_process(json.dumps(noted) if len(noted) == len(dataclasses.fields(Measured)) else None)
        if known is None:
            # An earlier version noted the speed alone, which stays as it is.
            known = of_main_process(json.dumps({**dataclasses.asdict(measured()), **noted}))
            mine[name] = found = {**document, **json.loads(known or '{}')}
            if jax.process_index() == 0:
                with contextlib.suppress(OSError):  # the store may be read-only
                    atomic_files.write_json(ours, found)
        if jax.process_index() == 0:
            with atomic_files.os_errors_as_user_errors(lambda: 'the speed of a backbone could not be saved'):
                atomic_files.write_json(self._workdir, mine)
        return Measured(**json.loads(known or '{}'))


def _read(file: Path) -> dict:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
