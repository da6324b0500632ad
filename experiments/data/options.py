"""The config values that say how a data set is read, with their defaults and checks."""

import dataclasses
import difflib
import re
from typing import Any

import ml_collections
from PIL import ImageColor

from backbones.errors import UserError, unknown
from experiments.data.folder_tree import LAYOUTS
from experiments.data.texts import Inputs

# ``backbones.preprocessing.FITS``, whose module imports JAX; listing the options does not.
FITS = ('crop', 'squash', 'letterbox')
# Kinds of data sets that are folders of files: of images in class folders, and for dense tasks.
_DENSE = ('voc', 'coco', 'yolo', 'masks')
_FILES = ('folder', *_DENSE)
# Kinds that are files of texts, one to a row; and the keys that ``tfds`` heeds where it has texts, not images.
_ROWS = ('csv', 'jsonl')
_OF_TFDS_TEXTS = ('drop_duplicates', 'text_column', 'label_column')


def _option(default: Any, meaning: str, choices: tuple[str, ...] = (), kinds: tuple[str, ...] = ()) -> Any:
    """A config key; ``kinds``: of the only data sets that heed it."""
    return dataclasses.field(default=default, metadata={'meaning': meaning, 'choices': choices, 'kinds': kinds})


@dataclasses.dataclass(frozen=True)
class ReadingOptions:
    """How a data set is read: the table of these config keys, with their meanings.

    Raises:
        UserError: a value is not valid; its config key is named.
    """

    stored_size: int = _option(256, 'side of the squares that images become if large or of several sizes')
    bad_files_limit: int = _option(
        10, 'unreadable images or texts are named and left out; the run ends if there are more than this'
    )
    fit: str = _option('crop', "how an image of another aspect ratio is made square; or 'squash', 'letterbox'", FITS)
    layout: str = _option(
        'auto', "what the folders in a folder are: 'splits', 'classes', or as their names say", LAYOUTS, ('folder',)
    )
    exclude: str = _option('', 'patterns of files and folders that are left out, separated by commas', kinds=_FILES)
    background: str = _option('white', 'colour that transparent images are put on, also as #rrggbb')
    group: str = _option(
        '', 'regular expression on the path; images with the same match stay in one split', kinds=_FILES
    )
    drop_duplicates: bool = _option(
        False,
        'leave out training images or texts that are also in validation or test, and repeated training texts',
        kinds=(*_FILES, *_ROWS, 'tfds'),
    )
    text_column: str = _option(
        '',
        "column of the texts, several (a,b) are joined by spaces; empty: 'text', or as TFDS names it",
        kinds=(*_ROWS, 'tfds'),
    )
    label_column: str = _option(
        '', "column of the classes; empty: 'label', or as TFDS names it", kinds=(*_ROWS, 'tfds')
    )
    split_column: str = _option(
        '', "column that says train, validation or test of each text; empty: 'split' where there is one", kinds=_ROWS
    )
    bad_boxes_limit: float = _option(
        0.05,
        'objects that make no sense are counted and left out; the run ends if their share is larger',
        kinds=('voc', 'coco', 'yolo', 'tfds'),
    )
    ignore_label: int = _option(
        -1, 'value of mask pixels that count for nothing, besides 255; -1: no other', kinds=('voc', 'masks')
    )
    class_names: str = _option(
        '', 'names of the values of masks from 0, separated by commas; empty: those of a classes.txt', kinds=('masks',)
    )

    def __post_init__(self):
        if self.stored_size < 1:
            raise UserError(f"config key 'stored_size' must be positive, not {self.stored_size}")
        if self.bad_files_limit < 0:
            raise UserError(f"config key 'bad_files_limit' must not be negative, but is {self.bad_files_limit}")
        # A fault of all files (another unit, order or list of classes) spoils far more boxes than one in twenty, slips
        # of annotators far fewer; a share, since large data sets have more of these.
        if not 0 <= self.bad_boxes_limit <= 1:
            raise UserError(
                f"config key 'bad_boxes_limit' is a share of all objects, from 0 to 1, not {self.bad_boxes_limit}"
            )
        if not -1 <= self.ignore_label <= 255:
            raise UserError(f"config key 'ignore_label' is a value of 8 bits, or -1 for none, not {self.ignore_label}")
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


def check_kind(kind: str, name: str, options: ReadingOptions, inputs: Inputs = 'images') -> None:
    """Refuse values that data sets of a kind do not heed: who sets them counts on them.

    Args:
        kind: what precedes the colon in the name of a data set.
        name: that name.
        options: the values.
        inputs: what is read of it.

    Raises:
        UserError: names the key and the kinds that heed it.
    """
    for field in dataclasses.fields(options):
        kinds, value = field.metadata['kinds'], getattr(options, field.name)
        of_texts = field.name in _OF_TFDS_TEXTS
        unheeded = kind not in kinds or (kind == 'tfds' and of_texts and inputs == 'images')
        if kinds and unheeded and value != field.default:
            tfds = 'texts of tfds:NAME' if of_texts else 'tfds:NAME'
            heeding = ', '.join(tfds if each == 'tfds' else f'{each}:PATH' for each in kinds)
            raise UserError(
                f'config key {field.name!r} is {value!r}, but it is only for {heeding}, and the data set is {name!r}; '
                f'leave it at {field.default!r}'
            )
    if kind in _DENSE and options.fit == 'squash':
        raise UserError(
            f"config key 'fit' is 'squash', but images of {name!r} keep their aspect ratio, as boxes and masks lie in "
            "them; choose 'letterbox'"
        )


KEYS = tuple(field.name for field in dataclasses.fields(ReadingOptions))
