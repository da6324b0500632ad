"""The files of an annotated data set, without what is hidden, excluded, or this program's own output."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from backbones import images
from backbones.errors import UserError
from experiments.data.folder_tree import is_noise, is_own_output, matches, printable


class Files:
    """Files below a folder.

    Args:
        root: the folder.
        exclude: patterns of files and folders that are left out, as for ``folder:PATH``.
    """

    def __init__(self, root: Path, exclude: Sequence[str] = ()):
        self.root = root
        self._exclude, self._unused = tuple(exclude), set(exclude)
        self.excluded: dict[str, None] = {}

    def name(self, path: Path) -> str:
        """Its path from the root, printable."""
        return printable(os.path.relpath(path, self.root).replace(os.sep, '/'))

    def is_used(self, path: Path) -> bool:
        """Whether neither a file nor a folder above it is excluded."""
        if not self._exclude:
            return True
        parts = Path(os.path.relpath(path, self.root)).parts
        for end in range(1, len(parts) + 1):
            name = '/'.join(parts[:end])
            hits = {pattern for pattern in self._exclude if matches(name, [pattern])}
            self._unused -= hits
            if hits:
                self.excluded[printable(name)] = None
                return False
        return True

    def below(self, folder: Path, suffixes: frozenset[str]) -> list[Path]:
        """All files with one of the suffixes (in lower case), also in folders, sorted; links are followed.

        Raises:
            UserError: a folder cannot be listed.
        """
        return sorted(path for path in self._walk(folder, frozenset()) if path.suffix.lower() in suffixes)

    def images(self, folder: Path) -> list[Path]:
        """All files below a folder that should be images, by their suffix."""
        return self.below(folder, images.suffixes())

    def folders(self, folder: Path) -> list[Path]:
        """The folders in a folder, sorted."""
        return sorted(Path(each.path) for each in _scan(folder) if each.is_dir() and self._is_wanted(each))

    def check_patterns(self) -> None:
        """Refuse a pattern that matches nothing.

        Raises:
            UserError: one does; it is named.
        """
        if self._unused:
            raise UserError(
                f'the pattern {sorted(self._unused)[0]!r} of config key exclude matches nothing in {str(self.root)!r}; '
                'a pattern without a slash is compared with the name of every file and folder, one with a slash with '
                'the path below'
            )

    def _is_wanted(self, entry: os.DirEntry) -> bool:
        return not is_noise(entry.name) and self.is_used(Path(entry.path))

    def _walk(self, folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[Path]:
        status = folder.stat()
        own = (status.st_dev, status.st_ino)
        if own in above:  # a link back to a folder above
            return
        for entry in _scan(folder):
            if not self._is_wanted(entry):
                continue
            path = Path(entry.path)
            if entry.is_file():
                yield path
            elif entry.is_dir() and not is_own_output(path):
                yield from self._walk(path, above | {own})


def _scan(folder: Path) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise UserError(
            f'the folder {printable(str(folder))!r} cannot be listed ({error.strerror}); give yourself the '
            'permission, or leave it out with --config.exclude'
        ) from None
