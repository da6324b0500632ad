"""Files that are never seen half written: written under a temporary name, then renamed."""

import json
import os
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from backbones.errors import UserError


@contextmanager
def atomic_write(path: Path, mode: str = 'w') -> Generator[IO]:
    """Open a file for writing; it appears under its name only once it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.')
    try:
        with os.fdopen(descriptor, mode) as stream:
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
    """Turn operating-system errors (no space left, no permission, …) into one line for the user.

    Args:
        context: says what the error means for the work done so far.

    Raises:
        UserError: instead of ``OSError``; names the file, if known, and the reason.
    """
    try:
        yield
    except OSError as error:
        if error.strerror is None:
            raise
        where = f' ({error.filename})' if error.filename else ''
        raise UserError(f'{error.strerror}{where}; {context()}') from error


def write_json(path: Path, value: object) -> None:
    """Write one JSON document."""
    with atomic_write(path) as stream:
        json.dump(value, stream, indent=2)
        stream.write('\n')


def read_jsonl(path: Path) -> list[dict]:
    """The rows of a JSON-lines file; none if there is no such file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line]


def write_jsonl(path: Path, rows: list[dict]) -> None:
    """Write all rows of a JSON-lines file."""
    with atomic_write(path) as stream:
        stream.writelines(json.dumps(row) + '\n' for row in rows)
