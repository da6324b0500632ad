"""Compiled programs are kept for later runs, by JAX's persistent compilation cache; set before JAX is imported.

A run is the same with and without it: programs are kept under a hash of all that they are compiled from, and whatever
is wrong with the cache only means that a program is compiled. ``JAX_ENABLE_COMPILATION_CACHE=0`` switches it off.
"""

import contextlib
import hashlib
import importlib.metadata
import os
import platform
import re
import sys
import time
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

from experiments.cli import cache_directory

DIRECTORY_VARIABLE = 'JAX_COMPILATION_CACHE_DIR'
# Bytes of all programs together; a model of this project has about one million.
LIMIT = 2 * 10**9
# Every program is kept, however quickly it compiles: on a CPU most of a start is hundreds of small ones, each of some
# kilobytes and read in a hundredth of the time that it takes to compile.
_THRESHOLDS = {
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '0',
}
# Its modification time is that of the last check; younger files are still to be checked.
_CHECKED = 'checked'
# What the first bytes of a file say about its compression; JAX takes zstandard where it is installed.
_ZLIB = b'\x78'
# Seconds by which the clocks of a file system and of this machine may differ.
_TOLERANCE = 60.0
_MESSAGES = 'Error (reading|writing) persistent compilation cache entry'


def configure() -> None:
    """Let JAX keep compiled programs in the user's cache directory, and make room there.

    A directory that the user has set (``JAX_COMPILATION_CACHE_DIR``) takes precedence and is left alone; an empty one
    means none. Where the directory cannot be written, nothing is kept.
    """
    if 'jax' in sys.modules:  # it has read its settings: this is a program that only calls a command
        return
    given = os.environ.get(DIRECTORY_VARIABLE)
    if given is not None:
        if not given:
            # JAX would take it for the current directory in places.
            del os.environ[DIRECTORY_VARIABLE]
        return
    root = cache_directory.programs()
    if not _can_be_written(root):
        return
    # JAX warns of each program that it cannot read or write, and then compiles it: a disk that is full would fill a
    # terminal, and a file that is just being written by another process is nothing to worry about.
    warnings.filterwarnings('ignore', message=_MESSAGES)
    os.environ[DIRECTORY_VARIABLE] = str(root / _machine())
    for variable, value in _THRESHOLDS.items():
        os.environ.setdefault(variable, value)
    with contextlib.suppress(OSError):
        tidy(root)


def _can_be_written(path: Path) -> bool:
    with contextlib.suppress(OSError):
        nearest = next((each for each in (path, *path.absolute().parents) if each.exists()), None)
        return nearest is not None and nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
    return False


def _machine() -> str:
    """A name for what programs for the CPU are compiled for, beyond what JAX has in the names of their files.

    They hold instructions of this processor, which another one that shares the home directory may lack, and are split
    for its number of cores, on which the order of sums may depend.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    described = [platform.machine(), str(cores), _processor(), importlib.metadata.version('jaxlib')]
    return hashlib.sha256('\n'.join(described).encode()).hexdigest()[:16]


def _processor() -> str:
    """Model and instruction sets of the first core; where the system does not tell, the name of the machine."""
    try:
        text = Path('/proc/cpuinfo').read_text(encoding='utf-8', errors='replace')
    except OSError:
        return f'{platform.node()} {platform.processor()}'
    first = text.partition('\n\n')[0]
    # Not the clock rate and the like, which change.
    kept = re.findall(r'^(?:vendor_id|cpu family|model|model name|flags|Features|CPU \w+)\s*:.*$', first, re.MULTILINE)
    return '\n'.join(kept) or platform.node()


def tidy(root: Path, limit: int = LIMIT) -> None:
    """Remove what a killed process has left half written, and the least recently used programs beyond the limit.

    JAX's own limit (``jax_compilation_cache_max_size``) is not used: it writes each program in two files, and once a
    process was killed between the two, no later one keeps a program there; all processes wait for one lock, too.

    Args:
        root: the directory of all programs. Other processes may read it, write to it and tidy it meanwhile.
        limit: of all files together, in bytes.

    Raises:
        OSError: the directory cannot be read or written.
    """
    if not root.is_dir():
        return
    stamp = root / _CHECKED
    since = stamp.stat().st_mtime - _TOLERANCE if stamp.exists() else 0.0
    now = time.time()
    found = {file: status for file, status in _files(root) if file != stamp}
    if any(status.st_mtime >= since for status in found.values()):
        for file in [file for file, status in found.items() if status.st_mtime >= since and not _is_whole(file)]:
            _remove(file)
            del found[file]
        stamp.touch()
        os.utime(stamp, (now, now))
    size = sum(status.st_size for status in found.values())
    for file, status in sorted(found.items(), key=lambda each: _last_use(each[1])):
        if size <= limit:
            break
        _remove(file)
        size -= status.st_size


def _files(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for folder, _, names in os.walk(root):
        for name in names:
            with contextlib.suppress(OSError):  # another process has just removed it
                file = Path(folder, name)
                yield file, file.stat()


def _last_use(status: os.stat_result) -> float:
    """In seconds since 1970; where a file system does not record reading, the time of writing."""
    return max(status.st_atime, status.st_mtime)


def _is_whole(file: Path) -> bool:
    """Whether a program is complete; what is compressed in another way counts as such unless it is empty."""
    try:
        content = file.read_bytes()
        if content.startswith(_ZLIB):
            zlib.decompress(content)
    except zlib.error:
        return False
    except OSError:
        return True
    return bool(content)


def _remove(file: Path) -> None:
    with contextlib.suppress(OSError):
        file.unlink()
