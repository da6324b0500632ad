"""Work directories: each is created, checked and claimed by one config."""

import json
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from backbones.errors import UserError
from experiments.cli.atomic_files import os_errors_as_user_errors, write_json

CONFIG = 'config.json'


def make(path: Path) -> Path:
    """Create a work directory if it does not exist, and check that it can be written.

    Raises:
        UserError: it cannot be created or written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UserError(f'cannot write to the work directory {str(path)!r}: {error.strerror or error}') from None
    return path


def read_config(path: Path) -> dict[str, Any] | None:
    """The config that a work directory belongs to, or ``None``.

    Raises:
        UserError: ``config.json`` is damaged.
    """
    file = path / CONFIG
    try:
        return json.loads(file.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError:
        raise UserError(f'{file} is not a JSON file; choose another --workdir') from None


def write_config(path: Path, config: Mapping[str, Any]) -> None:
    """Record a config as the work directory's, replacing any earlier one.

    Raises:
        UserError: the write fails; the earlier config is intact.
    """
    with os_errors_as_user_errors(lambda: 'nothing was computed yet or lost, and the same command continues'):
        write_json(path / CONFIG, as_read_back(config))


def check(path: Path, config: dict, free: Collection[str] = (), defaults: Mapping[str, Any] | None = None) -> None:
    """Check that a work directory is unclaimed or already belongs to this config; nothing is written.

    Args:
        path: the directory; it need not exist.
        config: the config of a run in it.
        free: keys such as ``mesh.fsdp`` whose values may differ from those of earlier runs in it.
        defaults: values for keys that the directory's config lacks because a later version introduced them.

    Raises:
        UserError: it belongs to another config (the differing keys are named).
    """
    earlier = read_config(path)
    if earlier is None:
        return
    before, after = flatten(earlier), flatten(as_read_back(config))
    if defaults is not None:
        before = {**{key: value for key, value in flatten(as_read_back(defaults)).items() if key in after}, **before}
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


def claim(path: Path, config: dict, free: Collection[str] = (), defaults: Mapping[str, Any] | None = None) -> Path:
    """Claim a work directory for this config, or check that it already belongs to it.

    Args:
        path: the directory.
        config, free, defaults: see ``check``.

    Raises:
        UserError: it cannot be written, or belongs to another config (the differing keys are named).
    """
    make(path)
    check(path, config, free, defaults)
    if not (path / CONFIG).exists():
        write_config(path, config)
    return path


def as_read_back(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config as ``config.json`` returns it: tuples become lists."""
    return json.loads(json.dumps(config))


def flatten(config: Mapping[str, Any]) -> dict[str, Any]:
    """``{'mesh': {'data': 1}}`` → ``{'mesh.data': 1}``; an empty group is a value."""
    return _flatten(config, '')


def _flatten(value: Any, prefix: str) -> dict[str, Any]:
    if not isinstance(value, Mapping) or (prefix and not value):
        return {prefix.rstrip('.'): value}
    return {key: leaf for name, child in value.items() for key, leaf in _flatten(child, f'{prefix}{name}.').items()}
