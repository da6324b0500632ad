"""What a model sees in one image: as arrays, as a picture, as JSON."""

import collections
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from backbones.errors import UserError
from backbones.images import ImageReading, Source
from backbones.prediction import drawing, labels
from backbones.prediction.image_sources import pixels

# Classes that a picture and a table name for an image as a whole.
MOST_LIKELY = 5

_DEFAULT_READING = ImageReading()


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """What a model sees in one image, in the image's own pixels, upright as a person sees it.

    A model fills what it predicts; the rest is ``None``.

    Attributes:
        source: the file, or whatever the image was given as.
        size: height and width of the image in pixels.
        names: of the classes.
        probabilities: of each class, for the image as a whole.
        boxes: left, top, right and bottom, best first.
        scores: of the boxes, from 0 to 1.
        classes: of the boxes; indices of ``names``.
        mask: the class of each pixel.
        reading: how the file became pixels.
    """

    source: Source | np.ndarray
    size: tuple[int, int]
    names: tuple[str, ...]
    probabilities: Float[np.ndarray, ' names'] | None = None
    boxes: Float[np.ndarray, 'n 4'] | None = None
    scores: Float[np.ndarray, 'n'] | None = None
    classes: Int[np.ndarray, 'n'] | None = None
    mask: Int[np.ndarray, 'height width'] | None = None
    reading: ImageReading = _DEFAULT_READING

    def __repr__(self) -> str:
        """What the command prints of an image."""
        return f'<Prediction {self.summary()}>'

    def summary(self, name: str | None = None) -> str:
        """One line: name (by default its file) and size of the image, and what it shows."""
        height, width = self.size
        parts = [f'{name} {share:.1%}' for name, share in self.most_likely or self.shares]
        if self.classes is not None:
            counts = collections.Counter(self.names[index] for index in self.classes)
            parts = [f'{count} {name}' for name, count in counts.most_common()] or ['nothing']
        return f'{name or self.path or "image"}  {width}x{height}  {", ".join(parts)}'

    @property
    def path(self) -> str | None:
        """The file that the image came from; ``None`` if it came from none."""
        return str(self.source) if isinstance(self.source, Path | str) else None

    @property
    def image(self) -> UInt8[np.ndarray, 'height width 3']:
        """The image; a file is read again, so that many results take little memory.

        Raises:
            UserError: it cannot be read any more.
        """
        return pixels(self.source, self.reading)

    @property
    def most_likely(self) -> list[tuple[str, float]]:
        """The most likely classes with their probabilities, most likely first; none without ``probabilities``."""
        if self.probabilities is None:
            return []
        return [(self.names[index], float(self.probabilities[index])) for index in _largest(self.probabilities)]

    @property
    def shares(self) -> list[tuple[str, float]]:
        """The classes of the mask with their share of the pixels, largest first; none without ``mask``."""
        if self.mask is None:
            return []
        counts = np.bincount(self.mask.ravel(), minlength=len(self.names))
        order = [index for index in np.argsort(-counts, kind='stable') if counts[index]]
        return [(self.names[index], float(counts[index] / self.mask.size)) for index in order]

    def plot(self, scale: int | None = None) -> Image.Image:
        """The image with what was seen in it.

        Args:
            scale: whole number by which the image is enlarged before; ``None``: small ones so that text fits on them.

        Raises:
            UserError: the file cannot be read any more.
        """
        scale = drawing.enlargement(self.size) if scale is None else scale
        if not isinstance(scale, int) or scale < 1:
            raise UserError(f'scale must be a positive whole number, not {scale!r}')
        picture = drawing.enlarged(Image.fromarray(self.image), scale)
        if self.mask is not None:
            picture = drawing.with_mask(picture, self.mask.repeat(scale, 0).repeat(scale, 1), self.names)
        if self.boxes is not None and self.scores is not None and self.classes is not None:
            names = [self.names[each] for each in self.classes]
            picture = drawing.with_boxes(picture, self.boxes * scale, names, self.classes, self.scores)
        if self.probabilities is not None:
            best = _largest(self.probabilities)
            names = [labels.written(self.names[index], index) for index in best]
            picture = drawing.with_lines(picture, names, [f'{self.probabilities[index]:.1%}' for index in best])
        return picture

    def save(self, path: str | Path) -> Path:
        """Write the picture; its suffix says the format.

        Raises:
            UserError: there is no format with this suffix.
            OSError: it cannot be written.
        """
        path = Path(path)
        formats = Image.registered_extensions()
        if formats.get(path.suffix.lower()) not in Image.SAVE:
            raise UserError(f'{str(path)!r} does not say which format the picture shall have; end it in .png or .jpg')
        path.parent.mkdir(parents=True, exist_ok=True)
        self.plot().save(path)
        return path

    def show(self) -> None:
        """Open the picture in the system's viewer, or in the notebook that asks for it."""
        try:
            from IPython import get_ipython
            from IPython.display import display
        except ImportError:
            self.plot().show()
            return
        if get_ipython() is None:
            self.plot().show()
        else:
            display(self.plot())

    def as_json(self) -> dict[str, Any]:
        """The result as JSON represents it; a mask as COCO's run lengths of each class that is there."""
        value: dict[str, Any] = {'path': self.path, 'height': self.size[0], 'width': self.size[1]}
        if self.probabilities is not None:
            value['classes'] = [{'name': name, 'probability': share} for name, share in self.most_likely]
        if self.boxes is not None and self.scores is not None and self.classes is not None:
            value['objects'] = [
                {'name': self.names[index], 'class': int(index), 'score': float(score), 'box': [float(x) for x in box]}
                for box, score, index in zip(self.boxes, self.scores, self.classes, strict=True)
            ]
        if self.mask is not None:
            value['segments'] = [
                {'name': self.names[index], 'class': int(index), 'run_lengths': run_lengths(self.mask == index)}
                for index in np.unique(self.mask)
            ]
        return value

    def to_json(self) -> str:
        """The result as one line of JSON."""
        return json.dumps(self.as_json(), allow_nan=False)


def _largest(probabilities: Float[np.ndarray, ' names']) -> list[int]:
    return np.argsort(-probabilities, kind='stable')[:MOST_LIKELY].tolist()


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """A mask as COCO's compressed run lengths: ``{'size': [height, width], 'counts': text}``."""
    from pycocotools import mask as coco_masks  # only masks need it

    encoded = coco_masks.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {'size': [int(side) for side in encoded['size']], 'counts': encoded['counts'].decode()}
