"""Files that a reader never sees half of: written to a temporary name, then renamed."""

import json
import os
import tempfile
from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from backbones.errors import UserError

CONFIG = 'config.json'


@contextmanager
def atomic_write(path: Path, mode: str = 'w') -> Generator[IO]:
    """Open a file for writing that appears under its name only when everything is written."""
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
            error.filename = str(path)  # a full disk does not say where
        raise


@contextmanager
def refusals_told(context: Callable[[], str]) -> Generator[None]:
    """Errors of the operating system (no space left, no permission, ...) become one line for the user.

    Args:
        context: what to add: what they mean for the work that is done.

    Raises:
        UserError: instead of ``OSError``; names the file where that is known, and the reason.
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


def make_workdir(path: Path) -> Path:
    """Create the work directory if need be and make sure that it can be written.

    Raises:
        UserError: it can't be made or written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UserError(f'cannot write to the work directory {str(path)!r}: {error.strerror or error}') from None
    return path


def check_workdir(path: Path, config: dict, free: Collection[str] = ()) -> None:
    """Whether a work directory is free or already this config's; nothing is written.

    Args:
        path: the directory; it need not exist.
        config: what a run in it does.
        free: keys such as ``mesh.fsdp`` whose values may differ from those of earlier runs in it.

    Raises:
        UserError: it belongs to another config (the differing keys are named).
    """
    file = path / CONFIG
    if not file.exists():
        return
    try:
        earlier = json.loads(file.read_text())
    except ValueError:
        raise UserError(f'{file} is no JSON file; choose another --workdir') from None
    before, after = _flatten(earlier), _flatten(_as_read_back(config))
    absent = object()  # None is a value too
    differing = [
        key for key in sorted({*before, *after} - {*free}) if before.get(key, absent) != after.get(key, absent)
    ]
    if not differing:
        return

    def show(values: dict, key: str) -> str:
        return repr(values[key]) if key in values else 'nothing'

    shown = '; '.join(f'{key}: {show(before, key)} there, {show(after, key)} here' for key in differing[:3])
    more = f' and {len(differing) - 3} more' if len(differing) > 3 else ''
    raise UserError(
        f'the work directory {str(path)!r} belongs to another config ({shown}{more}); choose another --workdir'
    )


def claim_workdir(path: Path, config: dict, free: Collection[str] = ()) -> Path:
    """Make the work directory this config's, or check that it already is.

    Args:
        path: the directory.
        config: what a run in it does.
        free: see ``check_workdir``.

    Raises:
        UserError: it can't be written, or belongs to another config (the differing keys are named).
    """
    make_workdir(path)
    check_workdir(path, config, free)
    if not (path / CONFIG).exists():
        write_json(path / CONFIG, _as_read_back(config))
    return path


def _as_read_back(config: dict) -> dict:
    """Tuples become lists."""
    return json.loads(json.dumps(config))


def _flatten(value: object, prefix: str = '') -> dict[str, object]:
    if not isinstance(value, dict) or (prefix and not value):
        return {prefix.rstrip('.'): value}
    return {key: leaf for name, child in value.items() for key, leaf in _flatten(child, f'{prefix}{name}.').items()}
