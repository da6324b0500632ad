"""What lies in a folder of images: which file is an image of which class and split, and what is something else.

Nothing is decoded here. Whatever is not used is kept with the reason, so that it can be said.
"""

import dataclasses
import difflib
import fnmatch
import hashlib
import json
import os
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from backbones import images
from backbones.errors import UserError, listed, unknown

SPLITS: Mapping[str, str] = {
    'train': 'train',
    'training': 'train',
    'val': 'validation',
    'valid': 'validation',
    'validation': 'validation',
    'dev': 'validation',
    'test': 'test',
    'testing': 'test',
}
LAYOUTS = ('auto', 'splits', 'classes')

_SYSTEM_NAMES = frozenset(
    {'__macosx', '@eadir', '#recycle', 'lost+found', '$recycle.bin', 'system volume information', '__pycache__',
     'thumbs.db', 'desktop.ini', 'icon\r'}
)  # fmt: skip
# Images of kinds that are not read here: they count as unreadable, which has a limit, and the reason says what to do.
_OTHER_IMAGES = frozenset({
    '.dcm', '.dicom', '.heic', '.heif', '.nii', '.svg', '.cr2', '.cr3', '.nef', '.arw', '.dng', '.orf', '.rw2',
    '.raf', '.jxl', '.svs', '.ndpi', '.mrxs', '.czi', '.nd2',
})  # fmt: skip
_RAW = frozenset(['.cr2', '.cr3', '.nef', '.arw', '.dng', '.orf', '.rw2', '.raf'])
# Never images, so they need not be opened to know it.
_NO_IMAGES = frozenset({
    '.txt', '.md', '.rst', '.csv', '.tsv', '.json', '.jsonl', '.xml', '.yaml', '.yml', '.toml', '.ini', '.cfg',
    '.log', '.html', '.htm', '.css', '.js', '.py', '.ipynb', '.sh', '.zip', '.tar', '.gz', '.bz2', '.xz', '.7z',
    '.rar', '.npy', '.npz', '.mat', '.pkl', '.pickle', '.h5', '.hdf5', '.pt', '.pth', '.onnx', '.safetensors',
    '.tfrecord', '.parquet', '.db', '.cache', '.pdf', '.doc', '.docx', '.xls', '.xlsx', '.ppt', '.pptx', '.mp4',
    '.avi', '.mov', '.mkv', '.webm', '.mp3', '.wav', '.part', '.crdownload', '.tmp', '.bak', '.lock', '.lnk', '.url',
    '.aux', '.cpg', '.prj',
})  # fmt: skip


@dataclasses.dataclass(frozen=True)
class ImageFile:
    """A file that should be an image.

    Attributes:
        split: ``'train'``, ``'validation'``, ``'test'``, or empty if no folder names one.
        label: name of the class.
        path: where it is.
        name: its path below the root, printable whatever its bytes.
        problem: why it cannot be read, as far as its name or kind tells.
    """

    split: str
    label: str
    path: Path
    name: str
    problem: str | None = None


@dataclasses.dataclass(frozen=True)
class Tree:
    """A folder of images as understood.

    Attributes:
        files: all images, split by split and class by class, sorted by name.
        classes: names of the class folders of the training images, sorted.
        left_out: kind of what is not used → names.
        guessed: how names were understood, one sentence each.
    """

    files: tuple[ImageFile, ...]
    classes: tuple[str, ...]
    left_out: Mapping[str, tuple[str, ...]]
    guessed: tuple[str, ...]


def printable(name: str) -> str:
    r"""A file name as text that every terminal and file can take: bytes that are not UTF-8 become ``\xff``."""
    text = os.fsencode(name).decode('utf-8', 'backslashreplace')
    return ''.join(each if each.isprintable() else each.encode('unicode_escape').decode() for each in text)


def read(root: Path, layout: str = 'auto', exclude: Sequence[str] = ()) -> Tree:
    """Understand a folder.

    Args:
        root: the folder.
        layout: ``'splits'`` (``root/SPLIT/CLASS``), ``'classes'`` (``root/CLASS``), or ``'auto'``: as the names say.
        exclude: patterns such as ``docs`` or ``*/thumbnails``, of paths below ``root`` that are left out.

    Raises:
        UserError: it can be understood in two ways (both are named), a folder cannot be listed, or it has no class
            folders.
    """
    if layout not in LAYOUTS:
        raise unknown('layout', layout, LAYOUTS)
    return _Reader(root, tuple(exclude)).read(layout)


def stamp(root: Path, exclude: Sequence[str] = ()) -> str | None:
    """A hash of the names, sizes and times of everything below a folder that may be used; ``None`` if it has none.

    The times include that of the last change of a file's name or place on the disk, which no copy keeps.
    """
    digest = hashlib.sha256()
    waiting, seen = [root], set()
    try:
        while waiting:
            folder = waiting.pop()
            with os.scandir(folder) as entries:
                ordered = sorted(entries, key=lambda each: each.name)
            for entry in ordered:
                name = os.path.relpath(entry.path, root)
                if is_noise(entry.name) or matches(name, exclude):
                    continue
                if not entry.is_dir():
                    status = entry.stat(follow_symlinks=entry.is_file())
                    line = f'{name} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}\n'
                    digest.update(os.fsencode(line))
                elif not is_own_output(Path(entry.path)):
                    status = entry.stat()
                    if (status.st_dev, status.st_ino) not in seen:
                        seen.add((status.st_dev, status.st_ino))
                        waiting.append(Path(entry.path))
    except OSError:
        return None
    return digest.hexdigest()


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a path below the root matches a pattern: one with a slash as a whole, any other in any of its parts."""
    if not patterns:
        return False
    name = name.replace(os.sep, '/')
    return any(
        fnmatch.fnmatchcase(name, pattern.strip('/'))
        if '/' in pattern.strip('/')
        else fnmatch.fnmatchcase(name.rpartition('/')[2], pattern.strip('/'))
        for pattern in patterns
    )


def is_own_output(folder: Path) -> bool:
    """Whether a folder is a work directory or a feature store of this project."""
    try:
        if (folder / 'manifest.json').is_file() and next(folder.glob('*.npy'), None) is not None:
            return True
        config = json.loads((folder / 'config.json').read_text())
    except (OSError, ValueError):  # that it cannot be listed is said where it is
        return False
    return isinstance(config, dict) and (
        {'backbone', 'dataset'} <= config.keys() or {'backbones', 'datasets'} <= config.keys()
    )


def is_noise(name: str) -> bool:
    """Whether a file or folder is hidden or of an operating system, by its name."""
    return name.startswith('.') or name.lower() in _SYSTEM_NAMES


class _Reader:
    def __init__(self, root: Path, exclude: tuple[str, ...]):
        self._root, self._exclude = root, exclude
        self._unmatched = set(exclude)
        # Kind → names, as the keys of a dictionary: some folders are looked at twice.
        self._left_out: dict[str, dict[str, None]] = {}
        self._guessed: list[str] = []

    # --- Splits and classes. ------------------------------------------------------------------------------------------

    def read(self, layout: str) -> Tree:
        tops = self._folders(self._root)
        for name in self._loose_images(self._root):
            self._leave_out('image in no class folder', name)
        splits = self._splits(tops, layout)
        files: list[ImageFile] = []
        if not splits:
            files = [each for folder in tops for each in self._class('', folder)]
            found = {file.label for file in files}
            classes = [self._label(folder) for folder in tops if self._is_class(folder, found)]
        else:
            classes = []
            for split, folder in sorted(splits.items(), key=lambda item: list(SPLITS.values()).index(item[0])):
                unlabelled = list(self._loose_images(folder))
                for name in unlabelled:
                    self._leave_out(f'image in no class folder of {printable(folder.name)}/', name)
                inside = self._folders(folder)
                if unlabelled and not inside:
                    self._guessed.append(
                        f'{printable(folder.name)}/ has no class folders, so its images have no labels and are not '
                        f'used ({len(unlabelled):,})'
                    )
                for each in inside:
                    files += self._class(split, each)
                if not unlabelled and not any(file.split == split for file in files):
                    self._guessed.append(f'{printable(folder.name)}/ has no images, so it is no split')
                if split == 'train':
                    found = {file.label for file in files}
                    classes = [self._label(each) for each in inside if self._is_class(each, found)]
            for folder in tops:
                if not {folder, self._unwrapped(folder)} & {*splits.values()}:
                    self._leave_out('folder that is no split', f'{printable(folder.name)}/')
        if self._unmatched:
            raise UserError(
                f'the pattern {sorted(self._unmatched)[0]!r} of config key exclude matches nothing in '
                f'{str(self._root)!r}; a pattern without a slash is compared with the name of every file and folder, '
                'one with a slash with the path below'
            )
        self._check_names(classes, files)
        self._guess_what_classes_hide(files)
        return Tree(
            tuple(files),
            tuple(sorted(set(classes))),
            {kind: tuple(names) for kind, names in sorted(self._left_out.items())},
            tuple(self._guessed),
        )

    def _guess_what_classes_hide(self, files: Sequence[ImageFile]) -> None:
        """Say where the folders in all classes have the same names: they may be splits, folds or the real classes."""
        inside: dict[tuple[str, str], set[str]] = {}
        for file in files:
            parts = file.name.split('/')[1 if not file.split else 2 :]
            inside.setdefault((file.split, file.label), set()).update(parts[:1] if len(parts) > 1 else [''])
        if (
            len(inside) > 1
            and (shared := set.intersection(*inside.values()) - {''})
            and shared == set.union(*inside.values())
        ):
            names = _listed(sorted(shared))
            self._guessed.append(f'every class has {names}, whose images all belong to the class')

    def _splits(self, tops: Sequence[Path], layout: str) -> dict[str, Path]:
        """Split → its folder; empty if the folders are classes."""
        if layout == 'classes':
            return {}
        named = split_names([folder.name for folder in tops])
        if not named:
            if layout == 'splits':
                raise UserError(
                    f'layout is splits, but no folder in {str(self._root)!r} is named {", ".join(SPLITS)}; there are '
                    f'{_listed([folder.name for folder in tops])}'
                )
            self._refuse_wrapped(tops)
            return {}
        shape = {folder: self._holds(folder) for folder in tops}
        split_folders = [folder for folder in tops if folder.name in named]
        others = [folder for folder in tops if folder.name not in named and any(shape[folder])]
        nested = [folder for folder in split_folders if shape[folder][1]]
        if layout == 'auto':
            self._refuse_ambiguous(split_folders, others, nested, named, shape)
            if not nested:
                names = _listed([folder.name for folder in split_folders])
                self._guessed.append(f'{names}: a class, not a split, as it has no class folders')
                return {}
        found: dict[str, Path] = {}
        for folder in split_folders:
            split = named[folder.name]
            if split in found:
                raise UserError(
                    f'both {found[split].name}/ and {folder.name}/ in {str(self._root)!r} name the {split} split; move '
                    'one away, or leave it out with --config.exclude'
                )
            found[split] = self._unwrapped(folder)
            if folder.name.lower() not in ('train', 'validation', 'val', 'test'):
                self._guessed.append(f'{printable(folder.name)}/ is the {split} split')
        if 'train' not in found:
            raise UserError(
                f'{str(self._root)!r} has {_listed([folder.name for folder in split_folders])} but no folder of '
                'training images named train or training; rename it, or, if these are classes, --config.layout=classes'
            )
        return found

    def _refuse_ambiguous(
        self,
        split_folders: Sequence[Path],
        others: Sequence[Path],
        nested: Sequence[Path],
        named: Mapping[str, str],
        shape: Mapping[Path, tuple[bool, bool]],
    ) -> None:
        """Raise an error that names both ways to understand the folder, if there are two."""
        names = _listed([folder.name for folder in split_folders])
        where = str(self._root)
        if nested and others:
            classes = {self._label(each) for folder in nested for each in self._folders(folder)}
            alike = [folder for folder in others if classes & {self._label(each) for each in self._folders(folder)}]
            if any(named[folder.name] == 'train' for folder in nested) and not alike:
                shared = [{self._label(each) for each in self._folders(self._unwrapped(folder))} for folder in nested]
                if len(nested) > 1 and set.intersection(*shared):
                    return  # the others are something else, and named among what is left out
            raise UserError(
                f'{where!r} can be understood in two ways: what is in {names} are the classes, and '
                f'{_listed([folder.name for folder in others])} is left out (--config.layout=splits; a split is named '
                f'{", ".join(SPLITS)}); or all of them are classes (--config.layout=classes)'
            )
        if not nested and not others:
            raise UserError(
                f'{where!r} can be understood in two ways: {names} as splits, but then their images have no labels '
                'because there are no class folders in them; or as the classes (--config.layout=classes)'
            )
        unlabelled = [folder for folder in split_folders if named[folder.name] != 'train']
        if not nested and unlabelled:
            raise UserError(
                f'{where!r} can be understood in two ways: {_listed([folder.name for folder in unlabelled])} is a '
                'class like the others (--config.layout=classes); or it is a split without labels (then leave it out: '
                f'--config.exclude={unlabelled[0].name})'
            )

    def _refuse_wrapped(self, tops: Sequence[Path]) -> None:
        """A single folder that holds everything, as archives unpack it, is not a class."""
        inner = None
        inside = tops
        while len(inside) == 1 and not self._holds(inside[0])[0]:
            inner = inside[0]
            inside = self._folders(inner)
        if inner is not None and len(inside) > 1:
            raise UserError(
                f'{str(self._root)!r} holds nothing but the folder {os.path.relpath(inner, self._root)!r}; the data '
                f'set seems to be folder:{inner}'
            )

    def _unwrapped(self, folder: Path) -> Path:
        """The folder, or the one of the same name in it that holds everything, as archives unpack it."""
        inside = self._folders(folder)
        if len(inside) == 1 and inside[0].name.lower() == folder.name.lower() and not self._holds(folder)[0]:
            return inside[0]
        return folder

    def _holds(self, folder: Path) -> tuple[bool, bool]:
        """Whether a folder has images of its own, and whether it has folders with images."""
        direct = next(self._loose_images(folder), None) is not None
        below = any(True for each in self._folders(folder) for _ in self._files(each))
        return direct, below

    def _is_class(self, folder: Path, found: set[str]) -> bool:
        """Whether a folder is a class; one that holds nothing but this project's own output is none."""
        label = self._label(folder)
        inside = [Path(entry.path) for entry in _scan(folder) if _is_directory(entry)]
        if label in found or not any(map(is_own_output, inside)):
            return True
        self._leave_out('output of this program', f'{printable(folder.name)}/')
        return False

    def _check_names(self, classes: Sequence[str], files: Sequence[ImageFile]) -> None:
        strangers = sorted({file.label for file in files} - set(classes))
        if strangers and classes:
            near = difflib.get_close_matches(strangers[0], classes, n=3, cutoff=0.5)
            hint = f'; did you mean {" or ".join(map(repr, near))}?' if near else ''
            raise UserError(
                f'the class {strangers[0]!r} is in a test or validation folder of {str(self._root)!r}, but has no '
                f'training images{hint}'
            )

    # --- Files. -------------------------------------------------------------------------------------------------------

    def _label(self, folder: Path) -> str:
        # The same name is stored in two ways, by macOS and by all others.
        return unicodedata.normalize('NFC', printable(folder.name))

    def _name(self, path: Path | str) -> str:
        return printable(os.path.relpath(path, self._root).replace(os.sep, '/'))

    def _leave_out(self, kind: str, name: str) -> None:
        self._left_out.setdefault(kind, {})[name] = None

    def _excluded(self, path: str) -> bool:
        if not self._exclude:
            return False
        name = os.path.relpath(path, self._root)
        hit = [pattern for pattern in self._exclude if matches(name, [pattern])]
        self._unmatched.difference_update(hit)
        return bool(hit)

    def _folders(self, folder: Path) -> list[Path]:
        """The folders in a folder that may hold images, sorted."""
        found = []
        for entry in _scan(folder):
            if not _is_directory(entry):
                continue
            path = Path(entry.path)
            if self._excluded(entry.path):
                self._leave_out('excluded', f'{self._name(path)}/')
            elif is_noise(entry.name):
                self._leave_out('hidden or of the system', f'{self._name(path)}/')
            elif is_own_output(path):
                self._leave_out('output of this program', f'{self._name(path)}/')
            else:
                found.append(path)
        return sorted(found, key=lambda each: each.name)

    def _loose_images(self, folder: Path) -> Iterator[str]:
        """Names of the images that lie in a folder itself."""
        for file in self._files_in(folder):
            if file[1] not in (_NOT_AN_IMAGE, _NO_FILE):
                yield self._name(file[0])

    def _class(self, split: str, folder: Path) -> Iterator[ImageFile]:
        label = self._label(folder)
        for path, problem in self._files(folder):
            yield ImageFile(split, label, path, self._name(path), problem)

    def _files(
        self, folder: Path, above: frozenset[tuple[int, int]] = frozenset()
    ) -> Iterator[tuple[Path, str | None]]:
        """Every image below a folder, with the problem that its name or kind shows; links to folders are followed."""
        status = folder.stat()
        own = (status.st_dev, status.st_ino)
        if own in above:
            self._leave_out('link back to its own folder', f'{self._name(folder)}/')
            return
        for path, problem in self._files_in(folder):
            if problem is _NOT_AN_IMAGE:
                self._leave_out(f'{problem} ({path.suffix.lower() or "no suffix"})', self._name(path))
            elif problem is _NO_FILE:
                self._leave_out(problem, self._name(path))
            else:
                yield path, problem
        for inside in self._folders(folder):
            yield from self._files(inside, above | {own})

    def _files_in(self, folder: Path) -> Iterator[tuple[Path, str | None]]:
        for entry in sorted(_scan(folder), key=lambda each: each.name):
            if _is_directory(entry):
                continue
            path = Path(entry.path)
            if self._excluded(entry.path):
                self._leave_out('excluded', self._name(path))
            elif is_noise(entry.name):
                self._leave_out('hidden or of the system', self._name(path))
            else:
                yield path, _problem(path)


# What need not be read, and so has no limit.
_NOT_AN_IMAGE = 'not an image'
_NO_FILE = 'not a regular file'


def _problem(path: Path) -> str | None:
    """Why a file cannot be read, as far as its name and kind tell, or that it need not be."""
    suffix = path.suffix.lower()
    if suffix in _NO_IMAGES:
        return _NOT_AN_IMAGE
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return 'a broken link' if path.is_symlink() else error.strerror or str(error)
    if not stat.S_ISREG(mode):
        return _NO_FILE  # opening a pipe would wait for ever
    if suffix in images.suffixes():
        return None
    if suffix in _RAW:
        return "a camera's raw file: convert it to JPEG, PNG or TIFF"
    try:
        with path.open('rb') as stream:
            head = stream.read(512)
    except OSError as error:
        return error.strerror or str(error)
    if images.is_image(head):
        return None
    what = images.what_it_is(head)
    if suffix in _OTHER_IMAGES:
        return what or f'{suffix} is not read here: convert it to PNG, TIFF or JPEG'
    return what if what and not suffix else _NOT_AN_IMAGE


def _scan(folder: Path) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise UserError(
            f'the folder {printable(str(folder))!r} cannot be listed ({error.strerror}), so its images would be '
            'missing; give yourself the permission, or leave it out with --config.exclude'
        ) from None


def _is_directory(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def split_names(names: Sequence[str]) -> dict[str, str]:
    """Folder or file → split, for the names that mean one.

    ``seg_train`` and ``test_set`` are understood if what they have besides ``train`` and ``test`` is the same.
    """
    exact = {name: SPLITS[name.lower()] for name in names if name.lower() in SPLITS}
    if exact:
        return exact
    words = {name: re.findall('[a-z]+', name.lower()) for name in names}
    with_split = {name: [word for word in found if word in SPLITS] for name, found in words.items()}
    candidates = {name: found[0] for name, found in with_split.items() if len(found) == 1}
    rests = Counter(tuple(word for word in words[name] if word not in SPLITS) for name in candidates)
    if len(rests) != 1 or len(candidates) < 2 or 'train' not in {SPLITS[word] for word in candidates.values()}:
        return {}
    return {name: SPLITS[word] for name, word in candidates.items()}


def _listed(names: Sequence[str], most: int = 6) -> str:
    """Names of folders, ``'a/, b/ and c/'``."""
    shown = [f'{printable(name)}/' for name in names]
    if not 1 < len(shown) <= most:
        return listed(shown, most) or 'nothing'
    return f'{", ".join(shown[:-1])} and {shown[-1]}'
