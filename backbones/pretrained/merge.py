"""Merging a file's arrays into the variables a model expects: strict, with a report of what happened."""

import dataclasses
from collections.abc import Mapping

import numpy as np


@dataclasses.dataclass(frozen=True)
class Report:
    """What became of every array on both sides; paths are ours, keys are the file's.

    Attributes:
        source: where the weights come from.
        layout: the naming that was recognised.
        matched: paths that were filled.
        missing: paths that the file has nothing for.
        unexpected: keys (paths, where a key map knows them) that the model has no place for.
        unused: paths of a classifier that was not asked for.
        reshaped: ``path, shape in the file, shape in the model`` of arrays that were resampled.
        misfit: ``path, shape in the file, shape in the model`` of arrays that do not fit.
        converted: ``path, what was done`` for every array that is not stored as we store it.
    """

    source: str
    layout: str
    matched: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    reshaped: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...] = ()
    misfit: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...] = ()
    converted: tuple[tuple[str, str], ...] = ()

    def problems(self) -> list[str]:
        """What keeps the file from being the model's, shapes first; empty if it fits."""
        lines = [
            f'{path} is {list(file)} in the file and {list(model)} in the model' for path, file, model in self.misfit
        ]
        lines += [f'{path} is missing in the file' for path in self.missing]
        lines += [f'{key} in the file has no place in the model' for key in self.unexpected]
        return lines

    def __str__(self) -> str:
        counts = [f'{len(self.matched)} matched']
        for name in ('missing', 'unexpected', 'unused', 'reshaped', 'misfit'):
            if count := len(getattr(self, name)):
                counts.append(f'{count} {name}')
        return f'{self.source} ({self.layout} layout): {", ".join(counts)}'


def resize_position_embedding(table: np.ndarray, tokens: int) -> np.ndarray | None:
    """Resample learned positions to another square grid, as timm's ``resample_abs_pos_embed`` does.

    Args:
        table: ``[1, prefix + side², channels]``.
        tokens: rows of the table wanted; the number of prefix tokens is kept.

    Returns:
        The new table, or ``None`` where one of the grids is not square.
    """
    import jax

    for prefix in (1, 0, 2):
        old, new = (round(max(count - prefix, 0) ** 0.5) for count in (table.shape[1], tokens))
        if old and new and old**2 + prefix == table.shape[1] and new**2 + prefix == tokens:
            grid = table[:, prefix:].reshape(1, old, old, -1)
            resized = jax.image.resize(grid, (1, new, new, grid.shape[-1]), 'cubic', antialias=True)
            return np.concatenate([table[:, :prefix], np.asarray(resized).reshape(1, new**2, -1)], axis=1)
    return None


def merge(
    expected: Mapping[str, tuple[int, ...]], arrays: Mapping[str, np.ndarray], report: Report
) -> tuple[dict[str, np.ndarray], Report]:
    """Fit translated arrays to the paths and shapes that a model expects.

    Args:
        expected: path → shape.
        arrays: path → array, already in our axes.
        report: what is known so far; keys without a place are already in it.

    Returns:
        The arrays that fit, and the completed report.
    """
    fitting, matched, missing, reshaped, misfit = {}, [], [], [], []
    for path, shape in expected.items():
        array = arrays.get(path)
        if array is None:
            missing.append(path)
            continue
        if array.shape != shape and path.endswith('/position_embedding') and array.ndim == len(shape) == 3:
            resized = resize_position_embedding(array, shape[1]) if array.shape[2] == shape[2] else None
            if resized is not None:
                reshaped.append((path, array.shape, shape))
                array = resized
        if array.shape != shape:
            misfit.append((path, array.shape, shape))
            continue
        matched.append(path)
        fitting[path] = array
    return fitting, dataclasses.replace(
        report,
        matched=tuple(matched),
        missing=tuple(missing),
        reshaped=tuple(reshaped),
        misfit=tuple(misfit),
        unexpected=(*report.unexpected, *sorted(set(arrays) - set(expected))),
    )
