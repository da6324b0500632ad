"""Links in a cache, or in a copy of one, that lead nowhere."""

from pathlib import Path

from backbones.errors import UserError


def is_broken(path: Path) -> bool:
    """Whether it is a link to something that is not there."""
    return path.is_symlink() and not path.exists()


def check(path: Path) -> None:
    """Refuse a link to something that is not there.

    Raises:
        UserError: it is one; the message says how that comes about.
    """
    if is_broken(path):
        raise UserError(
            f'{path} is a link to {str(path.readlink())!r}, which is not there: the download of it was cut off, or '
            'only the links of a cache were copied; remove the link and fetch the file again, or copy it with what it '
            'links to (cp -rL)'
        )
