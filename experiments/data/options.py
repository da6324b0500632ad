"""The config values that say how a data set is read, with their defaults and checks."""

import dataclasses
import re

import ml_collections
from PIL import ImageColor

from backbones.errors import UserError, unknown
from backbones.preprocessing import FITS
from experiments.data.folder_tree import LAYOUTS


@dataclasses.dataclass(frozen=True)
class ReadingOptions:
    """How a data set is read.

    Attributes:
        stored_size: side in pixels of the squares that images become if they are larger or of several sizes.
        bad_files_limit: unreadable files or records are named, counted and left out up to this number.
        fit: how images become square: ``'crop'``, ``'squash'`` or ``'letterbox'``.
        layout: whether the folders in a folder are ``'splits'`` or ``'classes'``; ``'auto'``: as their names say.
        exclude: patterns of paths below a folder that are left out, separated by commas.
        background: colour that transparent images are put on, such as ``'white'`` or ``'#808080'``.
        group: regular expression on the path of an image; images with the same match are never split up.
        drop_duplicates: whether training (and validation) images that are also in a later split are left out.

    Raises:
        UserError: a value is not valid; its config key is named.
    """

    stored_size: int = 256
    bad_files_limit: int = 10
    fit: str = 'crop'
    layout: str = 'auto'
    exclude: str = ''
    background: str = 'white'
    group: str = ''
    drop_duplicates: bool = False

    def __post_init__(self):
        if self.stored_size < 1:
            raise UserError(f"config key 'stored_size' must be positive, not {self.stored_size}")
        if self.bad_files_limit < 0:
            raise UserError(f"config key 'bad_files_limit' must not be negative, but is {self.bad_files_limit}")
        for key, choices in (('fit', FITS), ('layout', LAYOUTS)):
            if getattr(self, key) not in choices:
                raise unknown(key, getattr(self, key), choices)
        self.colour  # noqa: B018 raises for an unknown one
        try:
            re.compile(self.group)
        except re.error as error:
            raise UserError(f"config key 'group' is not a regular expression: {self.group!r} ({error})") from None

    @staticmethod
    def of(config: ml_collections.ConfigDict) -> 'ReadingOptions':
        """The values of a config."""
        return ReadingOptions(**{key: config[key] for key in KEYS})

    @property
    def colour(self) -> tuple[int, int, int]:
        """Red, green and blue of the background."""
        try:
            return ImageColor.getrgb(self.background)[:3]
        except ValueError:
            raise unknown('background', self.background, ImageColor.colormap) from None

    @property
    def excluded(self) -> tuple[str, ...]:
        """The patterns of what is left out."""
        return tuple(pattern.strip() for pattern in self.exclude.split(',') if pattern.strip())


KEYS = tuple(field.name for field in dataclasses.fields(ReadingOptions))
