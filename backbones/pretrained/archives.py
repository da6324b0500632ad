"""Zip archives of a whole directory, as packages carry them: unpacked for as long as they are read."""

import tempfile
import zipfile
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from backbones.errors import UserError
from backbones.pretrained.kinds import SUFFIXES

_SUFFIX = '.zip'
# Where macOS puts what its file system knows of each file, beside the directory that was packed.
_OF_MACOS = '__MACOSX/'


def is_archive(path: Path) -> bool:
    """Whether it is such an archive; files of torch and numpy are archives, too, and have other names."""
    return path.name.lower().endswith(_SUFFIX) and path.is_file()


@contextmanager
def unpacked(path: Path, weights: bool = True) -> Generator[Path]:
    """The directory in an archive, without what belongs to other runtimes.

    Args:
        path: the archive.
        weights: whether weights are wanted, or only the small files beside them.

    Raises:
        UserError: it is damaged, or there is no space to unpack it.
    """
    with tempfile.TemporaryDirectory() as temporary:
        try:
            with zipfile.ZipFile(path) as archive:
                names = [
                    name for name in archive.namelist() if not name.endswith('/') and not name.startswith(_OF_MACOS)
                ]
                start = _start(names)
                for name in names:
                    if _is_wanted(PurePosixPath(name.removeprefix(start)), weights):
                        archive.extract(name, temporary)  # never outside, whatever the name
        # Cut off within a file; encrypted, or packed in an unknown way.
        except (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
            reason = str(error) or 'it is cut off'
            raise UserError(f'{path} cannot be unpacked: {reason}; install or download it again') from None
        yield Path(temporary, start)


def _start(names: list[str]) -> str:
    """The one directory that holds everything, if there is one; none that lies outside."""
    firsts = {name.partition('/')[0] for name in names}
    inside = len(firsts) == 1 and firsts.isdisjoint(('', '.', '..')) and all('/' in name for name in names)
    return f'{firsts.pop()}/' if inside else ''


def _is_wanted(name: PurePosixPath, weights: bool) -> bool:
    """Files of the directory itself, and the configurations of its parts (``1_Pooling/config.json``)."""
    if len(name.parts) > 1:
        return len(name.parts) == 2 and name.name == 'config.json'
    return weights or not name.name.lower().endswith(SUFFIXES)
