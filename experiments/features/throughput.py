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
import psutil

from experiments.cli import atomic_files, display
from experiments.features.addresses import address
from experiments.features.collective_store import of_main_process
from experiments.features.frozen_pass import FrozenPass
from experiments.features.store import Store

FILE = 'throughput.json'
WARM_UP = 3
BATCHES = 20
SECONDS = 2.0
OTHERS = 0.1
ATTEMPTS = 3
_FEWEST = 5
# Seconds over which processors are watched at the least: their clocks tick a hundred times a second.
_WATCHED = 0.3
# Share of the processors above which the next attempt would be no better.
_FAR_TOO_MUCH = 0.3

# For tables and documents that show the figure.
PROCEDURE = (
    f'images/s: forward passes of the frozen backbone alone, on inputs already on the device, at the batch size of '
    f'the config; the median of {BATCHES} batches after {WARM_UP} warm-up calls (fewer, but at least {_FEWEST}, if '
    f'they take longer than {SECONDS:g} s); measured once per backbone, input size and type; on a CPU not given where '
    f'other processes took more than {OTHERS:.0%} of the processors in up to {ATTEMPTS} attempts. Peak memory: that '
    'of the same program on each device, as its compiler reports it: weights, inputs, outputs and everything temporary'
)


@dataclasses.dataclass(frozen=True)
class Measured:
    """What was measured of a network.

    Attributes:
        images_per_second: those of all devices together; ``None`` if other processes disturbed it.
        peak_memory_bytes: memory of each device; ``None`` if the platform does not tell.
    """

    images_per_second: float | None
    peak_memory_bytes: int | None = None


def measure(frozen: FrozenPass, variables: Any, size: tuple[int, ...]) -> Measured:
    """Measure a network, as ``PROCEDURE`` says.

    This process must not compute or read anything else meanwhile.

    Args:
        frozen: the backbone's programs.
        variables: arrays on the mesh.
        size: height and width of the model's input, or the length of texts.
    """
    mesh, batch = frozen.device_mesh, frozen.batch_size
    rows = mesh.rows(batch)
    values = _example(size)
    images = mesh.batch_arrays({'image': np.broadcast_to(values, (len(rows), *values.shape))}, rows, batch)['image']
    for _ in range(WARM_UP):
        jax.block_until_ready(frozen.program(variables, images))
    memory = frozen.memory(variables, images)
    peak = None if memory is None else memory.peak
    watch = Watch() if mesh.platform == 'cpu' and jax.process_count() == 1 else None
    for _ in range(ATTEMPTS):
        seconds: list[float] = []
        while not _enough(seconds):
            started = time.perf_counter()
            jax.block_until_ready(frozen.program(variables, images))
            seconds.append(time.perf_counter() - started)
        others = watch.others(lambda: frozen.program(variables, images)) if watch else 0.0
        if others <= OTHERS:
            return Measured(batch / statistics.median(seconds), peak)
        if others > _FAR_TOO_MUCH:
            break
    return Measured(None, peak)


def _example(size: tuple[int, ...]) -> np.ndarray:
    """An input of noise, or of tokens that every vocabulary has."""
    if len(size) == 1:
        return np.zeros(size, np.int32)
    return np.random.default_rng(0).standard_normal((*size, 3), np.float32)


def _inputs(document: dict) -> str:
    return 'texts' if len(document.get('input', ())) == 1 else 'images'


class Watch:
    """What other processes, of this machine or of its host, take of the processors from now on."""

    def __init__(self):
        self._process = psutil.Process()
        self._begin()

    def others(self, work: Callable[[], Any]) -> float:
        """Share of the processors that other processes took since the last call.

        Args:
            work: what this process does meanwhile; called until the processors were watched for long enough.
        """
        while time.monotonic() - self._started < _WATCHED:
            jax.block_until_ready(work())
        every, own = self._seconds()
        others = every - self._every - (own - self._own)
        share = others / (psutil.cpu_count() or 1) / (time.monotonic() - self._started)
        self._begin()
        return share

    def _begin(self) -> None:
        self._started = time.monotonic()
        self._every, self._own = self._seconds()

    def _seconds(self) -> tuple[float, float]:
        """Seconds of processors that were not idle, and those of them that this process had."""
        every, own = psutil.cpu_times()._asdict(), self._process.cpu_times()
        # Those of guests are counted by Linux in those of users too.
        idle = ('idle', 'iowait', 'guest', 'guest_nice')
        return sum(value for name, value in every.items() if name not in idle), own.user + own.system


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
        # Of networks whose speed is not known; another process may find the machine quiet.
        self._disturbed: dict[str, Measured] = {}

    def get(self, document: dict, what: str, measured: Callable[[], Measured]) -> Measured:
        """The figures of a network; they are measured if there are none yet.

        Args:
            document: everything that the figures depend on, as the shape of the ``input``; the machine is added.
            what: the network, for a message.
            measured: measures them.
        """
        document = {**document, 'machine': platform.node(), 'processor': platform.machine()}
        name = address(document)
        if name in self._disturbed:
            return self._disturbed[name]
        mine, ours = _read(self._workdir), self._store.note('throughput', name)
        if name not in mine:
            mine[name] = _read(ours)
        noted = {each.name: mine[name][each.name] for each in dataclasses.fields(Measured) if each.name in mine[name]}
        known = of_main_process(json.dumps(noted) if len(noted) == len(dataclasses.fields(Measured)) else None)
        if known is None:
            # An earlier version noted the speed alone, which stays as it is.
            known = of_main_process(json.dumps({**dataclasses.asdict(measured()), **noted}))
            mine[name] = found = {**document, **json.loads(known or '{}')}
            if found['images_per_second'] is None:
                speed = f'{_inputs(document)}/s of {what}'
                return self._without_speed(name, speed, Measured(**json.loads(known or '{}')))
            if jax.process_index() == 0:
                with contextlib.suppress(OSError):  # the store may be read-only
                    atomic_files.write_json(ours, found)
        if jax.process_index() == 0:
            with atomic_files.os_errors_as_user_errors(lambda: 'the speed of a backbone could not be saved'):
                atomic_files.write_json(self._workdir, mine)
        return Measured(**json.loads(known or '{}'))

    def _without_speed(self, name: str, what: str, measured: Measured) -> Measured:
        self._disturbed[name] = measured
        text = f'{what} is left out: other processes took more than {OTHERS:.0%} of the processors'
        display.console.print(text, style='yellow', soft_wrap=True)
        return measured


def _read(file: Path) -> dict:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
