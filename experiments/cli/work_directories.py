"""Work directories: each is created, checked and claimed by one config."""

import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Collection, Generator, Mapping
from pathlib import Path
from typing import Any

from backbones.errors import UserError, listed
from experiments.cli import commands, display, json_files
from experiments.cli.atomic_files import DiskError, os_errors_as_user_errors, write_json

CONFIG = 'config.json'
# What a run leaves once it has computed something: rows, metrics, checkpoints and weights, those of an ablation's
# trainings included.
_COMPUTED = (
    'results.jsonl', 'result.json', 'metrics.jsonl', 'weights.safetensors', 'checkpoints/*', 'predictions/*',
    'trainings/*/*/metrics.jsonl', 'trainings/*/*/checkpoints/*', 'shards/*/results.jsonl',
)  # fmt: skip


def make(path: Path, what: str = 'work directory') -> Path:
    """Create a work directory, or what else it is called, if it does not exist, and check that it can be written.

    Raises:
        DiskError: it cannot be created or written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise DiskError(f'cannot write to the {what} {str(path)!r}: {error.strerror or error}') from None
    return path


def check_writable(path: Path, what: str = 'work directory') -> None:
    """Check that a work directory, or what else it is called, can be made and written, without making it.

    Raises:
        UserError: it cannot.
    """
    nearest = path.absolute()
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise UserError(f'cannot write to the {what} {str(path)!r}: {str(nearest)!r} is not a directory')
    if nearest == path.absolute():
        make(path, what)
    elif not os.access(nearest, os.W_OK | os.X_OK):
        raise UserError(f'cannot write to the {what} {str(path)!r}: {str(nearest)!r} cannot be written')


def read_config(path: Path) -> dict[str, Any] | None:
    """The config that a work directory belongs to, or ``None``.

    Raises:
        UserError: ``config.json`` is damaged, or no file.
    """
    return json_files.read(path / CONFIG, 'choose another --workdir')


def write_config(path: Path, config: Mapping[str, Any], without: str = '') -> None:
    """Record a config as the work directory's, replacing any earlier one, and the command that set it.

    The commands before it stay where something has been computed.

    Args:
        path: the work directory.
        config: the config.
        without: an option that the command is recorded without, such as ``--shard``.

    Raises:
        UserError: the write fails; the earlier config is intact.
    """
    with os_errors_as_user_errors(lambda: 'nothing was computed yet or lost, and the same command continues'):
        write_json(path / CONFIG, as_read_back(config))
        commands.record(path, without, keep=not is_unused(path))


def record_command(path: Path) -> None:
    """Record the command that continues in a work directory with the config that it has.

    Raises:
        UserError: the write fails; nothing is lost.
    """
    with os_errors_as_user_errors(lambda: 'nothing that was computed is lost, and the same command continues'):
        commands.record(path, keep=not is_unused(path))


def check(path: Path, config: dict, free: Collection[str] = (), defaults: Mapping[str, Any] | None = None) -> None:
    """Check that a work directory is unclaimed, unused or already belongs to this config; nothing is written.

    Args:
        path: the directory; it need not exist.
        config: the config of a run in it.
        free: keys such as ``mesh.fsdp`` whose values may differ from those of earlier runs in it.
        defaults: values for keys that the directory's config lacks because a later version introduced them.

    Raises:
        UserError: another config has computed something in it, or does so now (the differing keys are named).
    """
    differing = _differing(path, config, free, defaults)
    if differing and not is_unused(path):
        raise UserError(
            f'the work directory {str(path)!r} belongs to another config ({differing}); choose another --workdir'
        )


def _differing(path: Path, config: dict, free: Collection[str], defaults: Mapping[str, Any] | None) -> str:
    """The first keys whose values differ from those of the config that a directory belongs to; empty if none do."""
    earlier = read_config(path)
    if earlier is None:
        return ''
    before, after = flatten(earlier), flatten(as_read_back(config))
    if defaults is not None:
        before = {**{key: value for key, value in flatten(as_read_back(defaults)).items() if key in after}, **before}
    absent = object()  # None is a value too
    differing = [
        key for key in sorted({*before, *after} - {*free}) if before.get(key, absent) != after.get(key, absent)
    ]

    def show(values: dict, key: str) -> str:
        return repr(values[key]) if key in values else 'nothing'

    return listed((f'{key}: {show(before, key)} there, {show(after, key)} here' for key in differing), 3, '; ')


def is_unused(path: Path) -> bool:
    """Whether nothing has been computed in a claimed directory: a run in it failed at once, and none is under way."""
    return not any(next(path.glob(pattern), None) for pattern in _COMPUTED) and not in_use(path)


@contextlib.contextmanager
def used(path: Path, shared: bool = False) -> Generator[None]:
    """A context in which no other process can run in a directory: two would overwrite each other's files.

    Args:
        shared: whether others may be in such a context too, if theirs is shared as well.

    Raises:
        UserError: another process is in such a context.
    """
    with contextlib.ExitStack() as stack:
        # Some file systems have no locks; then only what is in the directory counts.
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, descriptor)
            try:
                fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    f'another run is under way in the work directory {str(path)!r}; wait for it, end it, or choose '
                    'another --workdir'
                ) from None
            _ours.add(path.resolve())
            stack.callback(_ours.discard, path.resolve())
        yield


# Directories that this process has locked, which does not make them those of another run.
_ours: set[Path] = set()


def in_use(path: Path) -> bool:
    """Whether another process is in the context ``used``, as far as the file system has locks."""
    if path.resolve() in _ours:
        return False
    with contextlib.ExitStack() as stack:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, descriptor)
            # Shared, so that two that look at the same time do not take each other for a run.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            pass
    return False


def take_over(path: Path, differing: str) -> None:
    """Say that a claimed directory passes to another config, and remove what the earlier one has begun in it.

    Args:
        path: a directory that ``is_unused``.
        differing: how the configs differ.
    """
    # Otherwise a run of Weights & Biases would continue that of the earlier config.
    (path / 'wandb_id').unlink(missing_ok=True)
    display.console.print(
        f'the work directory {str(path)!r} belonged to another config ({differing}), but nothing has been computed in '
        'it: it now belongs to this one',
        style='yellow',
        soft_wrap=True,
        markup=False,
    )


def claim(path: Path, config: dict, free: Collection[str] = (), defaults: Mapping[str, Any] | None = None) -> Path:
    """Claim a work directory for this config, or check that it already belongs to it.

    One in which nothing has been computed for another config is taken over, with a line that says so.

    Args:
        path: the directory.
        config, free, defaults: see ``check``.

    Raises:
        UserError: it cannot be written, or belongs to another config (the differing keys are named).
    """
    make(path)
    check(path, config, free, defaults)
    differing = _differing(path, config, free, defaults)
    if differing:
        take_over(path, differing)
    if differing or not (path / CONFIG).exists():
        write_config(path, config)
    else:
        record_command(path)
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
