"""Checksums of a directory's files, kept inside it, so that a reader can tell whether it is intact."""

import hashlib
import json
import os
from pathlib import Path

CHECKSUMS = 'checksums.json'


def write_checksums(directory: Path) -> None:
    """Write ``checksums.json``: size in bytes and SHA-256 of every other file below ``directory``.

    All files and directories are flushed to the disk (``fsync``) before it returns.

    Raises:
        OSError: a file cannot be read or written.
    """
    paths = [path for path in sorted(directory.rglob('*')) if path != directory / CHECKSUMS]
    files = {
        path.relative_to(directory).as_posix(): {'bytes': path.stat().st_size, 'sha256': _sha256(path)}
        for path in paths
        if path.is_file()
    }
    (directory / CHECKSUMS).write_text(_rendered(files))
    for path in (*paths, directory / CHECKSUMS, directory):
        flush(path)


def flush(path: Path) -> None:
    """Make sure that a file's content, or a directory's entries, survive a power cut (``fsync``).

    Raises:
        OSError: the disk refuses.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def find_damage(directory: Path) -> str | None:
    """The first file below ``directory`` that is not what ``checksums.json`` says, and how; ``None`` if all are.

    The file is named relative to ``directory``: ``'default/manifest.ocdbt is truncated: 12 of 80 bytes'``. Files that
    ``checksums.json`` does not list are not looked at; a missing or damaged ``checksums.json`` is damage itself.
    """
    try:
        text = (directory / CHECKSUMS).read_text()
    except (OSError, UnicodeDecodeError) as error:
        return f'{CHECKSUMS} {_why(error)}'
    try:
        files = json.loads(text)['files']
        intact = text == _rendered(files)
    except (ValueError, KeyError, TypeError):
        intact, files = False, {}
    # Otherwise a changed byte in ``checksums.json`` would be blamed on the file that its line describes.
    if not intact:
        return f'{CHECKSUMS} is not as it was written'
    for name, expected in files.items():
        problem = _compared(directory / name, expected['bytes'], expected['sha256'])
        if problem:
            return f'{name} {problem}'
    return None


def _compared(path: Path, size: int, digest: str) -> str | None:
    try:
        found = path.stat().st_size
        if found != size:
            return f'is {"truncated" if found < size else "too long"}: {found} of {size} bytes'
        return None if _sha256(path) == digest else 'has changed: its SHA-256 is another'
    except OSError as error:
        return _why(error)


def _why(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return 'is missing'
    return f'cannot be read: {getattr(error, "strerror", None) or error}'


def _sha256(path: Path) -> str:
    with path.open('rb') as stream:
        return hashlib.file_digest(stream, 'sha256').hexdigest()


def _rendered(files: dict) -> str:
    own = hashlib.sha256(json.dumps(files).encode()).hexdigest()
    return json.dumps({'files': files, 'sha256': own}, indent=1) + '\n'
