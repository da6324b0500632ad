"""The config values that say how a data set is read, with their defaults and checks."""

import dataclasses
import difflib
import re
from typing import Any

import ml_collections
from PIL import ImageColor

from backbones.errors import UserError, unknown
from backbones.preprocessing import FITS
from experiments.data.folder_tree import LAYOUTS


def _option(default: Any, meaning: str, choices: tuple[str, ...] = ()) -> Any:
    return dataclasses.field(default=default, metadata={'meaning': meaning, 'choices': choices})


@dataclasses.dataclass(frozen=True)
class ReadingOptions:
    """How a data set is read: the table of these config keys, with their meanings.

    Raises:
        UserError: a value is not valid; its config key is named.
    """

    stored_size: int = _option(256, 'side of the squares that images become if large or of several sizes')
    bad_files_limit: int = _option(
        10, 'unreadable images are named and left out; the run ends if there are more than this'
    )
    fit: str = _option('crop', "how an image of another aspect ratio is made square; or 'squash', 'letterbox'", FITS)
    layout: str = _option(
        'auto', "what the folders in a folder are: 'splits', 'classes', or as their names say", LAYOUTS
    )
    exclude: str = _option('', 'patterns of files and folders that are left out, separated by commas')
    background: str = _option('white', 'colour that transparent images are put on, also as #rrggbb')
    group: str = _option('', 'regular expression on the path; images with the same match stay in one split')
    drop_duplicates: bool = _option(False, 'leave out training images that are also in validation or test')

    def __post_init__(self):
        if self.stored_size < 1:
            raise UserError(f"config key 'stored_size' must be positive, not {self.stored_size}")
        if self.bad_files_limit < 0:
            raise UserError(f"config key 'bad_files_limit' must not be negative, but is {self.bad_files_limit}")
        for field in dataclasses.fields(self):
            choices, value = field.metadata['choices'], getattr(self, field.name)
            if choices and value not in choices:
                raise unknown(field.name, value, choices)
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
            near = difflib.get_close_matches(self.background, ImageColor.colormap, n=3)
            hint = f'; did you mean {" or ".join(map(repr, near))}?' if near else ''
            raise UserError(
                f"unknown background {self.background!r}; expected a colour such as 'white' or '#808080'{hint}"
            ) from None

    @property
    def excluded(self) -> tuple[str, ...]:
        """The patterns of what is left out."""
        return tuple(pattern.strip() for pattern in self.exclude.split(',') if pattern.strip())


KEYS = tuple(field.name for field in dataclasses.fields(ReadingOptions))
