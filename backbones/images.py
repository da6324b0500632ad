"""One path from an image file to 8-bit RGB pixels: orientation, bit depth, transparency.

It is the same when a data set is checked, when it is read, and when a model is used, so that no number depends on who
reads a file.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class ImageReading:
    """How files become 8-bit RGB pixels, where a file leaves a choice.

    Attributes:
        grey_range: the values of deep grey images (more than 8 bits, or floating point) that become 0 and 255; values
            outside are clipped. ``None``: there are no such images, and none can be read.
        background: red, green and blue (0 to 255) of what transparent images are put on.
    """

    grey_range: tuple[float, float] | None = None
    background: tuple[int, int, int] = (255, 255, 255)

    def as_json(self) -> dict[str, Any]:
        """The reading as JSON represents it."""
        return {
            'grey_range': None if self.grey_range is None else list(self.grey_range),
            'background': list(self.background),
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> 'ImageReading':
        """The inverse of ``as_json``; what is absent has its default."""
        grey_range = value.get('grey_range')
        return ImageReading(
            None if grey_range is None else tuple(grey_range), tuple(value.get('background', (255, 255, 255)))
        )
