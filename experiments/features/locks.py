"""Advisory file locks (``flock``), which the operating system releases however their holder ends."""

import fcntl
import os
import weakref
from pathlib import Path


class Lock:
    """A lock that is held until it is closed or garbage-collected."""

    def __init__(self, descriptor: int):
        self.close = weakref.finalize(self, os.close, descriptor)

    def __enter__(self) -> 'Lock':
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def acquire(path: Path, shared: bool, wait: bool) -> Lock | None:
    """Lock a file, creating it if necessary.

    Args:
        path: the lock file; a process that holds it exclusively may delete it.
        shared: whether several processes may hold it at once.
        wait: whether to wait for others to release it; if not, ``None`` is returned while they hold it.

    Raises:
        OSError: the file cannot be created.
    """
    operation = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        lock = Lock(descriptor)
        try:
            fcntl.flock(descriptor, operation)
        except BlockingIOError:
            lock.close()
            return None
        # The previous holder may have deleted the file; nobody else would find the lock on a deleted file.
        if _same(os.fstat(descriptor), path):
            return lock
        lock.close()


def _same(status: os.stat_result, path: Path) -> bool:
    try:
        current = path.stat()
    except FileNotFoundError:
        return False
    return (current.st_ino, current.st_dev) == (status.st_ino, status.st_dev)
