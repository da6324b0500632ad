"""A work directory: made, checked, and claimed by one config."""

import json
import tempfile
from collections.abc import Collection
from pathlib import Path

from backbones.errors import UserError
from experiments.cli.atomic_files import write_json

CONFIG = 'config.json'


def make(path: Path) -> Path:
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


def check(path: Path, config: dict, free: Collection[str] = ()) -> None:
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


def claim(path: Path, config: dict, free: Collection[str] = ()) -> Path:
    """Make the work directory this config's, or check that it already is.

    Args:
        path: the directory.
        config: what a run in it does.
        free: see ``check``.

    Raises:
        UserError: it can't be written, or belongs to another config (the differing keys are named).
    """
    make(path)
    check(path, config, free)
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
