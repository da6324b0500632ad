"""Files that are written of predictions: a picture of each image, and all results in one file."""

import contextlib
import json
from collections.abc import Callable, Generator
from pathlib import Path

from PIL import Image

from backbones.prediction.prediction import Prediction
from experiments.cli import atomic_files
from experiments.data.coco_ids import CocoIds
from experiments.prediction import telling

# Formats of pictures, and the largest side that each can have.
_LARGEST = {'.jpg': 65_500, '.jpeg': 65_500, '.webp': 16_383, '.png': 2**31 - 1}


class Pictures:
    """Pictures in a directory, each under the name of its image; of several with one name, the later have a number.

    Args:
        directory: made where it is not there.
    """

    def __init__(self, directory: Path):
        self._directory = directory
        self._used: set[str] = set()

    def save(self, image: str, picture: Image.Image) -> None:
        """Write the picture of an image.

        Raises:
            UserError: it cannot be written.
        """
        name = Path(image)
        suffix = name.suffix.lower()
        if suffix not in _LARGEST or max(picture.size) > _LARGEST[suffix]:
            suffix = '.png'
        stem, number = name.name.removesuffix(name.suffix), 1
        while (unique := f'{stem}{f"-{number}" if number > 1 else ""}{suffix}') in self._used:
            number += 1
        self._used.add(unique)
        with (
            atomic_files.os_errors_as_user_errors(lambda: 'the pictures before it are written'),
            atomic_files.atomic_write(self._directory / unique, 'wb') as stream,
        ):
            picture.save(stream, format={'.jpg': 'jpeg'}.get(suffix, suffix[1:]))


@contextlib.contextmanager
def writer(
    path: Path, names: tuple[str, ...], own: CocoIds | None = None
) -> Generator[Callable[[str, Prediction], None]]:
    """A function that adds a result to a file, which appears at the end, also where the command is interrupted.

    Args:
        path: of the file; its suffix tells the layout.
        names: of the model's classes.
        own: ids of the data set whose images are predicted, for the layout of COCO.
    """
    coco = telling.CocoResults(names, own)
    ended: BaseException | None = None
    count = 0
    with (
        atomic_files.os_errors_as_user_errors(lambda: 'choose another file for --json'),
        atomic_files.atomic_write(path) as stream,
    ):

        def write(image: str, prediction: Prediction) -> None:
            nonlocal count
            count += 1
            if path.suffix == '.json':
                coco.add(image, prediction)
            else:
                stream.write(f'{json.dumps({**prediction.as_json(), "path": image}, allow_nan=False)}\n')

        try:
            yield write
        except BaseException as error:
            if not count:
                raise  # an earlier file of this name stays
            ended = error
        if path.suffix == '.json':
            json.dump(coco.as_json(), stream)
    if ended is not None:
        raise ended
