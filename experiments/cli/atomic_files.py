"""Files that are never seen half written: they are written under a temporary name, then renamed."""

import errno
import json
import os
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from backbones.errors import UserError


class DiskError(UserError):
    """A file cannot be written or read (no space left, no permission, …), as it would be for whatever comes next."""


@contextmanager
def atomic_write(path: Path, mode: str = 'w') -> Generator[IO]:
    """Open a file for writing; it appears under its name only once it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A path in the text may hold bytes that are not UTF-8.
    text: dict[str, Any] = {} if 'b' in mode else {'encoding': 'utf-8', 'errors': 'surrogateescape'}
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.')
    except OSError as error:
        error.filename = str(path)  # not the temporary name
        raise
    try:
        with os.fdopen(descriptor, mode, **text) as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)  # the error of a full disk names no file
        raise


@contextmanager
def os_errors_as_user_errors(context: Callable[[], str]) -> Generator[None]:
    """Turn errors of the operating system (no space left, no permission, …) into one line for the user.

    Args:
        context: gives the rest of the line: what is kept, and which command continues.

    Raises:
        DiskError: instead of ``OSError``; names the reason, and the file if it is known.
    """
    try:
        yield
    except OSError as error:
        where = f' ({error.filename})' if error.filename else ''
        # Numpy's error of a full disk has a text of its own: 'N requested and M written'.
        reason = error.strerror or str(error) or type(error).__name__
        raise DiskError(f'{reason}{where}; {context()}{once_mended(error)}') from error


def once_mended(error: OSError) -> str:
    """When a command that continues can do so; empty if the error does not tell."""
    return ' once there is room' if error.errno in (errno.ENOSPC, errno.EDQUOT) else ''


def write_json(path: Path, value: object) -> None:
    """Write one JSON document."""
    with atomic_write(path) as stream:
        json.dump(value, stream, indent=2)
        stream.write('\n')


def read_jsonl(path: Path) -> list[dict]:
    """Rows of a JSON-lines file; none if the file does not exist."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line]


def write_jsonl(path: Path, rows: list[dict]) -> None:
    """Write all rows of a JSON-lines file."""
    with atomic_write(path) as stream:
        stream.writelines(json.dumps(row) + '\n' for row in rows)
