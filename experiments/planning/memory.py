"""The memory that a program may use here: that of an accelerator, or that of the machine for its processor."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import psutil

# Version 1 of control groups writes a number near 2^63 for 'no limit'.
_UNLIMITED = 2**60


@dataclasses.dataclass(frozen=True)
class Memory:
    """The memory of one device.

    Attributes:
        total: bytes that a program may use; 0: unknown.
        available: those of them that are free now.
        owner: whose memory it is, for messages.
    """

    total: int
    available: int
    owner: str


def of(devices: Sequence[jax.Device]) -> Memory:
    """The memory of each of some devices, as this process knows it.

    CPU devices share the memory of their machine, or as much of it as its control groups (containers, batch systems)
    let this process use.
    """
    own = [device for device in devices if device.process_index == jax.process_index()]
    if not own:
        return Memory(0, 0, 'a device')
    if own[0].platform == 'cpu':
        whole = of_machine()
        return Memory(whole.total // len(own), whole.available // len(own), whole.owner)
    statistics = own[0].memory_stats() or {}
    total = statistics.get('bytes_limit', 0)
    return Memory(total, max(0, total - statistics.get('bytes_in_use', 0)), f'a device ({own[0].device_kind})')


def of_machine(processes: Path = Path('/proc'), groups: Path = Path('/sys/fs/cgroup')) -> Memory:
    """The memory of this machine, or of this process's control group where that is less.

    Args:
        processes, groups: where Linux shows processes and control groups; other systems have neither.
    """
    memory = psutil.virtual_memory()
    total, available = memory.total, memory.available
    owner = 'this machine'
    for limit, used in _limits(processes, groups):
        if limit < total:
            total, owner = limit, 'this process (by its control group)'
        available = min(available, max(0, limit - used))
    return Memory(total, available, owner)


def _limits(processes: Path, groups: Path) -> Iterator[tuple[int, int]]:
    """Limit and use, in bytes, of every control group around this process that has a limit."""
    try:
        lines = (processes / 'self' / 'cgroup').read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(':', 2)
        if not controllers:
            names, root = ('memory.max', 'memory.current', 'inactive_file'), groups
        elif 'memory' in controllers.split(','):
            names = ('memory.limit_in_bytes', 'memory.usage_in_bytes', 'total_inactive_file')
            root = groups / 'memory'
        else:
            continue
        inside = root / path.lstrip('/')
        # In a container the path may be one of the host: then only the root is there.
        for directory in (inside, *inside.parents):
            limit = _number(directory / names[0])
            if limit is not None and limit < _UNLIMITED:
                # What was read from files is given up when memory is needed.
                yield limit, (_number(directory / names[1]) or 0) - _statistic(directory / 'memory.stat', names[2])
            if directory == root:
                break


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # absent, or 'max'
        return None


def _statistic(file: Path, name: str) -> int:
    try:
        return next((int(line.split()[1]) for line in file.read_text().splitlines() if line.split()[0] == name), 0)
    except (OSError, ValueError, IndexError):
        return 0
