"""The scores of the test examples that every row keeps, so that any metric can be computed later without a rerun."""

import dataclasses
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float16, Int

from backbones.errors import UserError
from experiments.cli import atomic_files

# Of more classes than this, only the largest scores are kept.
MANY_CLASSES = 100
KEPT = 20
_LARGEST = float(np.finfo(np.float16).max)


@dataclasses.dataclass(frozen=True)
class Scores:
    """What a model said of each test example.

    Attributes:
        ids: name of each example.
        targets: its class.
        predictions: the class with the largest score before rounding.
        logits: the scores, or where there are many classes the ``KEPT`` largest, the largest first; ``None`` in files
            of older versions. Logits of linear heads and trainings, predicted targets of ``ridge``, and shares of the
            votes of ``knn``.
        classes: the class of each of ``logits``; ``None`` where they are all there, in their order.
    """

    ids: np.ndarray
    targets: Int[np.ndarray, ' examples']
    predictions: Int[np.ndarray, ' examples']
    logits: Float16[np.ndarray, 'examples kept'] | None = None
    classes: Int[np.ndarray, 'examples kept'] | None = None

    @property
    def correct(self) -> Bool[np.ndarray, ' examples']:
        """Whether the prediction is the target."""
        return self.predictions == self.targets


def write(file: Path, ids: Sequence[str], targets: np.ndarray, predictions: Mapping[str, np.ndarray]) -> None:
    """Write what a task predicted for a split, compressed.

    Args:
        file: ``.npz``.
        ids: name of each example.
        targets: of each example.
        predictions: as ``Task.predict`` names them, one row per example. ``'logits'`` are kept as ``Scores`` says, all
            others as they are.

    Raises:
        OSError: the disk refuses.
    """
    arrays: dict[str, Any] = {'ids': np.array(ids), 'targets': np.asarray(targets), **predictions}
    if 'logits' in predictions:
        arrays |= _compact(predictions['logits'])
    with atomic_files.atomic_write(file, 'wb') as stream:
        np.savez_compressed(stream, **arrays)


def _compact(logits: Float[np.ndarray, 'examples classes']) -> dict[str, np.ndarray]:
    # The prediction beside the logits: in half precision the largest two may be equal.
    arrays = {'predictions': logits.argmax(-1).astype(np.int32)}
    if logits.shape[1] > MANY_CLASSES:
        # Stable, so that the first of equal scores stays first, as for argmax.
        arrays['classes'] = np.argsort(-logits, axis=-1, kind='stable')[:, :KEPT].astype(np.int32)
        logits = np.take_along_axis(logits, arrays['classes'], -1)
    arrays['logits'] = np.clip(logits, -_LARGEST, _LARGEST).astype(np.float16)
    return arrays


def read(file: Path) -> Scores:
    """Read what ``write`` wrote, or a version before it, which kept the predicted classes only.

    Raises:
        UserError: the file is not there or damaged.
    """
    try:
        with file.open('rb') as stream, np.load(stream) as arrays:
            if 'label' in arrays:
                return Scores(arrays['example'], arrays['label'], arrays['prediction'])
            return Scores(
                arrays['ids'],
                arrays['targets'],
                arrays['predictions'],
                arrays['logits'],
                arrays.get('classes'),
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else f'{type(error).__name__}: {error}'
        raise UserError(
            f'the scores in {str(file)!r} cannot be read ({why}); remove their row from results.jsonl, and the same '
            'command computes them again'
        ) from None
