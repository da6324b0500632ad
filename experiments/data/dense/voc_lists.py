"""The images of a data set in the layout of Pascal VOC, and the splits that its lists or folders say."""

from collections.abc import Collection, Sequence
from pathlib import Path

from backbones.errors import UserError
from experiments.data.dense.annotations import AnnotatedImage
from experiments.data.dense.folder_files import Files
from experiments.data.folder_tree import SPLITS


class Listing:
    """The images of a data set by their names without suffix, and the split of each."""

    def __init__(self, files: Files, folder: str):
        self.root = files.root
        self.images: dict[str, Path] = {}
        self._torn: dict[str, tuple[Path, Path]] = {}
        images = self.root / 'JPEGImages'
        for path in files.images(images):
            other = self.images.setdefault(path.stem, path)
            if other != path:
                self._torn[path.stem] = other, path
            # Annotations may lie in folders like those of the images.
            self.images[path.relative_to(images).with_suffix('').as_posix()] = path
        self.lists: dict[str, list[str]] = {}
        for split in ('train', 'val', 'test'):
            self._read(self.root / 'ImageSets' / folder / f'{split}.txt', SPLITS[split])
        if 'train' not in self.lists and 'validation' not in self.lists:
            self._read(self.root / 'ImageSets' / folder / 'trainval.txt', 'train')
        self.guessed: list[str] = []
        self._folders = {path: path.relative_to(images).parts[0].lower() for path in self.images.values()}
        if not self.lists and {SPLITS.get(each) for each in self._folders.values()} >= {'train'}:
            self.guessed.append(f'there are no lists in ImageSets/{folder}, so folders of JPEGImages are the splits')

    def _read(self, file: Path, split: str) -> None:
        if not file.is_file():
            return
        lines = [line.strip() for line in file.read_text(encoding='utf-8-sig', errors='surrogateescape').splitlines()]
        # Lists of one class have a second column, which says whether the class is there.
        self.lists[split] = [line if line in self.images else line.split()[0] for line in lines if line]

    def image(self, name: str) -> Path | None:
        """The image of a name.

        Raises:
            UserError: there are two.
        """
        if name in self._torn:
            one, other = self._torn[name]
            raise UserError(f'{str(one)!r} and {str(other)!r} have the same name, so that no list tells them apart')
        return self.images.get(name)

    def names(self, annotated: Sequence[str]) -> list[tuple[str, str]]:
        """Name and split of every image that is listed, or else annotated."""
        if self.lists:
            return [(name, split) for split, names in self.lists.items() for name in names]
        if not self.guessed:
            return [(name, '') for name in annotated]
        found = []
        for name in annotated:
            path = self.image(name)
            split = None if path is None else SPLITS.get(self._folders[path])
            if split is not None:
                found.append((name, split))
        return found

    def left_out(self, used: Sequence[AnnotatedImage], files: Files) -> dict[str, tuple[str, ...]]:
        """The images that are in no list, or without an annotation where there are no lists."""
        paths = {each.path for each in used}
        others = sorted({files.name(path) for path in self.images.values() if path not in paths})
        return {'image in no list' if self.lists else 'image without an annotation': tuple(others)} if others else {}

    def unlabelled(self, names: Sequence[tuple[str, str]], annotated: Collection[str]) -> dict[str, tuple[str, ...]]:
        """Split → its images, where none of them has an annotation: a test split whose labels are not published."""
        splits = {split for _, split in names} - {split for name, split in names if name in annotated} - {'train', ''}
        return {each: tuple(name for name, split in names if split == each) for each in sorted(splits)}
