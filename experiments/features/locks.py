"""Advisory locks on files (``flock``): released by the operating system, however their holder ends."""

import fcntl
import os
import weakref
from pathlib import Path


class Lock:
    """A lock that is held until it is closed, or nobody refers to it any more."""

    def __init__(self, descriptor: int):
        self.close = weakref.finalize(self, os.close, descriptor)

    def __enter__(self) -> 'Lock':
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def acquire(path: Path, shared: bool, wait: bool) -> Lock | None:
    """Lock a file, which is made if need be.

    Args:
        path: of the lock; whoever holds it alone may delete it.
        shared: several may hold it at once.
        wait: for others to release it; ``None`` is returned otherwise.

    Raises:
        OSError: the file can't be made.
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
        # The one who held it may have deleted it: then the lock is on a file that nobody else will find.
        if _same(os.fstat(descriptor), path):
            return lock
        lock.close()


def _same(status: os.stat_result, path: Path) -> bool:
    try:
        current = path.stat()
    except FileNotFoundError:
        return False
    return (current.st_ino, current.st_dev) == (status.st_ino, status.st_dev)
