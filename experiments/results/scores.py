"""The scores kept for every row, so that any metric can be computed later without a rerun."""

import contextlib
import dataclasses
import zipfile
import zlib
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, get_args

import numpy as np
from jaxtyping import Bool, Float, Float16, Int

from backbones.errors import UserError
from experiments.cli import atomic_files
from experiments.data.truth import Boxes, Targets
from experiments.results import corrupted_scores
from experiments.results.detected_boxes import DetectedBoxes

# With more classes than this, only the ``KEPT`` largest scores are kept.
MANY_CLASSES = 100
KEPT = 20
# No data set has more; counts of pairs of classes would not fit into memory.
_MOST_CLASSES = 2**20
# Precedes the names of the arrays of the validation split.
_VALIDATION = 'validation_'
# Bootstrap samples of the test examples.
SAMPLES = 1000
_LARGEST = float(np.finfo(np.float16).max)

# What a classifier's scores are: logits, whose softmax are probabilities; probabilities; or neither (``'values'``).
ScoreKind = Literal['logits', 'probabilities', 'values']


class Predicted(NamedTuple):
    """What a model predicted for the examples of a split.

    Attributes:
        ids: name of each example.
        targets: target of each example.
        predictions: named as by ``Task.predict``, one row per example.
    """

    ids: Sequence[str]
    targets: Targets
    predictions: Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Scores:
    """A model's scores for each test example.

    Attributes:
        ids: name of each example.
        targets: its class.
        predictions: the class with the largest score before rounding.
        logits: the scores, or with many classes the ``KEPT`` largest ones in descending order; ``None`` in files of
            older versions and from ``write_compact``.
        classes: the class of each of the ``logits``; ``None`` if the logits of all classes are kept, in class order.
        resampled: see ``resampled``; ``None`` where the metric is a mean over examples. Then there are ``targets`` and
            ``predictions``, which other metrics keep in arrays of their own.
        score_kind: what the ``logits`` are; ``None`` in files of older versions.
        validation: the scores for the validation split; ``None`` in files of older versions, and where there are no
            ``logits``.
    """

    ids: np.ndarray
    targets: Int[np.ndarray, ' examples'] | None
    predictions: Int[np.ndarray, ' examples'] | None
    logits: Float16[np.ndarray, 'examples kept'] | None = None
    classes: Int[np.ndarray, 'examples kept'] | None = None
    resampled: Float[np.ndarray, ' samples'] | None = None
    score_kind: ScoreKind | None = None
    validation: 'Scores | None' = None

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
    score_kind: ScoreKind = 'logits',
    validation: Predicted | None = None,
    corrupted: Mapping[str, Bool[np.ndarray, ' examples']] | None = None,
) -> None:
    """Write the task's predictions for the test split to a compressed file.

    Args:
        file: ``.npz``.
        ids: name of each example.
        targets: target of each example; the arrays of boxes are named ``'truth_boxes'`` and so on.
        predictions: named as by ``Task.predict``, one row per example. ``'logits'`` are reduced as described in
            ``Scores``; all others are kept unchanged.
        samples: see ``resampled``.
        score_kind: what the ``'logits'`` are.
        validation: the same for the validation split, of which only ``'logits'`` are kept.
        corrupted: corruption and severity → whether each prediction for the corrupted example is right.

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
        arrays |= {'score_kind': np.array(score_kind), **_compact(predictions['logits'])}
    if validation is not None and 'logits' in validation.predictions:
        kept = _compact(validation.predictions['logits'])
        kept |= {'ids': np.array(validation.ids), 'targets': np.asarray(validation.targets)}
        arrays |= {f'{_VALIDATION}{name}': array for name, array in kept.items()}
    arrays |= corrupted_scores.packed(corrupted or {})
    with atomic_files.atomic_write(file, 'wb') as stream:
        np.savez_compressed(stream, **arrays)


def write_compact(
    file: Path, found: Scores, corrupted: Mapping[str, Bool[np.ndarray, ' examples']] | None = None
) -> None:
    """Write what intervals and comparisons need of scores, without those of the classes; ``read`` reads it.

    Args:
        file: ends in ``.npz``.
        found: the scores.
        corrupted: as of ``read_corrupted``.

    Raises:
        OSError: writing fails.
    """
    arrays: dict[str, Any] = {'ids': found.ids, **corrupted_scores.packed(corrupted or {})}
    if found.resampled is not None:
        arrays['resampled'] = found.resampled
    if found.targets is not None and found.predictions is not None:
        arrays |= {'targets': found.targets.astype(np.int32), 'predictions': found.predictions.astype(np.int32)}
    file.parent.mkdir(parents=True, exist_ok=True)
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


def _of_split(arrays: Mapping[str, np.ndarray], prefix: str = '') -> Scores:
    kind = arrays.get('score_kind')
    return Scores(
        *(arrays[f'{prefix}{name}'] for name in ('ids', 'targets', 'predictions')),
        arrays.get(f'{prefix}logits'),
        arrays.get(f'{prefix}classes'),
        score_kind=None if kind is None else kind.item(),
    )


def read(file: Path) -> Scores:
    """Read a file from ``write``, or from an older version that kept only the predicted classes.

    Raises:
        UserError: the file is missing or damaged.
    """
    with _reading(file) as arrays:
        if 'label' in arrays:
            return _checked(Scores(arrays['example'], arrays['label'], arrays['prediction']))
        if 'resampled' in arrays:
            return _checked(Scores(arrays['ids'], None, None, resampled=arrays['resampled']))
        validation = _checked(_of_split(arrays, _VALIDATION)) if f'{_VALIDATION}ids' in arrays else None
        return dataclasses.replace(_checked(_of_split(arrays)), validation=validation)


def _checked(found: Scores) -> Scores:
    """Scores, once their arrays are known to be as ``Scores`` says.

    Raises:
        ValueError: one of them is not; names it, and what was expected.
    """
    if found.ids.ndim != 1 or found.ids.dtype.kind not in 'US' or not len(found.ids):
        raise ValueError(f'ids are {_shown(found.ids)}, expected the name of each of at least one example')
    count = len(found.ids)
    for name, array in (('targets', found.targets), ('predictions', found.predictions)):
        if array is None:
            continue
        if array.shape != (count,) or array.dtype.kind not in 'iu':
            raise ValueError(f'{name} are {_shown(array)}, expected a class for each of {count} examples')
        if array.min() < 0 or array.max() >= _MOST_CLASSES:
            raise ValueError(f'{name} are from {array.min()} to {array.max()}, expected classes from 0')
    if found.resampled is not None and (found.resampled.shape != (SAMPLES,) or found.resampled.dtype.kind != 'f'):
        raise ValueError(f'resampled are {_shown(found.resampled)}, expected the metric of {SAMPLES} samples')
    logits, classes = found.logits, found.classes
    if logits is None:
        return found
    if logits.ndim != 2 or len(logits) != count or not logits.shape[1] or logits.dtype.kind != 'f':
        raise ValueError(f'logits are {_shown(logits)}, expected scores of classes for each of {count} examples')
    if classes is not None and (classes.shape != logits.shape or classes.dtype.kind not in 'iu'):
        raise ValueError(f'classes are {_shown(classes)}, expected one for each of the logits, {_shown(logits)}')
    if classes is None and found.targets is not None and found.targets.max() >= logits.shape[1]:
        raise ValueError(f'targets are up to {found.targets.max()}, but there are scores of {logits.shape[1]} classes')
    if found.score_kind not in (None, *get_args(ScoreKind)):
        raise ValueError(f'score_kind is {found.score_kind!r}, expected one of {", ".join(get_args(ScoreKind))}')
    return found


def _shown(array: np.ndarray) -> str:
    return f'an array of shape {array.shape} and type {array.dtype}'


def read_corrupted(file: Path) -> tuple[np.ndarray, dict[str, Bool[np.ndarray, ' examples']]]:
    """Names of the test examples, and by corruption and severity, such as ``fog/3``, which are predicted right with it.

    The second is empty where it was not asked for.

    Raises:
        UserError: the file is missing or damaged.
    """
    with _reading(file) as arrays:
        ids = arrays['example' if 'example' in arrays else 'ids']
        return ids, corrupted_scores.unpacked(arrays, len(ids))


def read_boxes(file: Path) -> tuple[Boxes, DetectedBoxes] | None:
    """The objects and the detections of a file from ``write``; ``None`` if it is not of a detector.

    Raises:
        UserError: the file is missing or damaged.
    """
    with _reading(file) as arrays:
        if 'truth_boxes' not in arrays:
            return None
        truth = Boxes(*(arrays[f'truth_{field.name}'] for field in dataclasses.fields(Boxes)))
        return truth, DetectedBoxes(*(arrays[name] for name in ('boxes', 'scores', 'labels', 'found')))


@contextlib.contextmanager
def _reading(file: Path) -> Generator[Mapping[str, np.ndarray]]:
    """The arrays of a file.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        with file.open('rb') as stream:
            found = np.load(stream)
            if not isinstance(found, np.lib.npyio.NpzFile):
                raise ValueError('it is a single array, expected an archive of several')
            with found as arrays:
                yield arrays
    except (
        OSError,
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        AttributeError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else f'{type(error).__name__}: {error}'
        raise UserError(
            f'the scores in {str(file)!r} cannot be read ({why}); remove their row from results.jsonl, and the same '
            'command computes them again'
        ) from None
