"""The test scores kept for every row, so that any metric can be computed later without a rerun."""

import dataclasses
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Bool, Float, Float16, Int

from backbones.errors import UserError
from experiments.cli import atomic_files
from experiments.data.truth import Boxes, Targets

# With more classes than this, only the ``KEPT`` largest scores are kept.
MANY_CLASSES = 100
KEPT = 20
# Bootstrap samples of the test examples.
SAMPLES = 1000
_LARGEST = float(np.finfo(np.float16).max)


@dataclasses.dataclass(frozen=True)
class Scores:
    """A model's scores for each test example.

    Attributes:
        ids: name of each example.
        targets: its class.
        predictions: the class with the largest score before rounding.
        logits: the scores, or with many classes the ``KEPT`` largest ones in descending order; ``None`` in files of
            older versions. They are logits for linear heads and training runs, predicted targets for ``ridge``, and
            vote shares for ``knn``.
        classes: the class of each of the ``logits``; ``None`` if the logits of all classes are kept, in class order.
        resampled: see ``resampled``; ``None`` where the metric is a mean over examples. Then there are ``targets`` and
            ``predictions``, which other metrics keep in arrays of their own.
    """

    ids: np.ndarray
    targets: Int[np.ndarray, ' examples'] | None
    predictions: Int[np.ndarray, ' examples'] | None
    logits: Float16[np.ndarray, 'examples kept'] | None = None
    classes: Int[np.ndarray, 'examples kept'] | None = None
    resampled: Float[np.ndarray, ' samples'] | None = None

    @property
    def correct(self) -> Bool[np.ndarray, ' examples'] | None:
        """Whether the prediction is the target; ``None`` where an example is not simply right or wrong."""
        return None if self.predictions is None else self.predictions == self.targets


class Resampling(Protocol):
    """A task, as far as its metric is computed again from samples of the test examples."""

    def resampled(  # noqa: D102
        self, predictions: Mapping[str, np.ndarray], targets: Targets, samples: int, seed: int
    ) -> Float[np.ndarray, ' samples'] | None: ...


def resampled(
    task: Resampling, predictions: Mapping[str, np.ndarray], targets: Targets
) -> Float[np.ndarray, ' samples'] | None:
    """The primary metric of bootstrap samples of the test examples, the same for all cells of as many examples."""
    return task.resampled(predictions, targets, SAMPLES, seed=0)


def write(
    file: Path,
    ids: Sequence[str],
    targets: Targets,
    predictions: Mapping[str, np.ndarray],
    samples: Float[np.ndarray, ' samples'] | None = None,
) -> None:
    """Write the task's predictions for a split to a compressed file.

    Args:
        file: ``.npz``.
        ids: name of each example.
        targets: target of each example; the arrays of boxes are named ``'truth_boxes'`` and so on.
        predictions: named as by ``Task.predict``, one row per example. ``'logits'`` are reduced as described in
            ``Scores``; all others are kept unchanged.
        samples: see ``resampled``.

    Raises:
        OSError: writing fails.
    """
    arrays: dict[str, Any] = {'ids': np.array(ids), **predictions}
    if isinstance(targets, Boxes):
        arrays |= {f'truth_{field.name}': getattr(targets, field.name) for field in dataclasses.fields(targets)}
    else:
        arrays['targets'] = np.asarray(targets)
    if samples is not None:
        arrays['resampled'] = samples.astype(np.float32)
    if 'logits' in predictions:
        arrays |= _compact(predictions['logits'])
    with atomic_files.atomic_write(file, 'wb') as stream:
        np.savez_compressed(stream, **arrays)


def _compact(logits: Float[np.ndarray, 'examples classes']) -> dict[str, np.ndarray]:
    # The prediction is kept as well: in half precision the two largest logits may be equal.
    arrays = {'predictions': logits.argmax(-1).astype(np.int32)}
    if logits.shape[1] > MANY_CLASSES:
        # Stable, so that the first of several equal scores stays first, as in argmax.
        arrays['classes'] = np.argsort(-logits, axis=-1, kind='stable')[:, :KEPT].astype(np.int32)
        logits = np.take_along_axis(logits, arrays['classes'], -1)
    arrays['logits'] = np.clip(logits, -_LARGEST, _LARGEST).astype(np.float16)
    return arrays


def read(file: Path) -> Scores:
    """Read a file from ``write``, or from an older version that kept only the predicted classes.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        with file.open('rb') as stream, np.load(stream) as arrays:
            if 'label' in arrays:
                return Scores(arrays['example'], arrays['label'], arrays['prediction'])
            if 'resampled' in arrays:
                return Scores(arrays['ids'], None, None, resampled=arrays['resampled'])
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
