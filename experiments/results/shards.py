"""The parts of an ablation: its work directory, and those of its shards, which lie in it as NUMBER-of-COUNT."""

from pathlib import Path, PurePosixPath

DIRECTORY = 'shards'


def of(workdir: Path) -> list[Path]:
    """The work directories of the shards, which several processes run at the same time."""
    return sorted((workdir / DIRECTORY).glob('*-of-*'))


def parts(workdir: Path) -> list[Path]:
    """The work directory itself, then those of its shards."""
    return [workdir, *of(workdir)]


def holder(workdir: Path, file: str) -> tuple[Path, str]:
    """The part that holds a file, and the file relative to it.

    Args:
        workdir: of the ablation.
        file: relative to it, as ``Row.predictions`` is.
    """
    names = PurePosixPath(file).parts
    if len(names) > 2 and names[0] == DIRECTORY:
        return workdir / DIRECTORY / names[1], PurePosixPath(*names[2:]).as_posix()
    return workdir, file


def whole(part: Path) -> Path:
    """The work directory of the ablation that a part belongs to."""
    return part.parent.parent if part.parent.name == DIRECTORY else part
