"""Merging a file's arrays into the variables a model expects: strict, with a report of what happened."""

import dataclasses
from collections.abc import Callable, Collection, Mapping

import numpy as np

from backbones.inputs import AnyPreprocessing
from backbones.pretrained.description import Description
from backbones.pretrained.keymaps.native import part_of
from backbones.pretrained.keymaps.rules import Translation, match

Shape = tuple[int, ...]
Resize = Callable[[str, np.ndarray, Shape], np.ndarray | None]


@dataclasses.dataclass(frozen=True)
class Report:
    """What became of every array on both sides; paths are ours, keys are the file's.

    Attributes:
        source: where the weights come from.
        layout: the naming that was recognised.
        preprocessing: what these weights expect of images, or of texts: what was kept with them, else from their
            configuration, else from our table.
        matched: paths that were filled from the file.
        missing: paths that the file has nothing for.
        unexpected: keys that the layout does not know, and paths that the model has no place for.
        unused: paths of parts that were not asked for (a neck, a head, auxiliary heads).
        dropped: keys that hold nothing of ours (counters, indices, the neck of a detector).
        filled: ``path, value`` of arrays that this layout never has.
        reshaped: ``path, shape in the file, shape in the model`` of arrays that were resampled.
        misfit: ``path, shape in the file, shape in the model`` of arrays that do not fit.
        converted: ``path, what was done`` for every array that is not stored as we store it.
        differences: in what the model that the file's configuration describes differs from ours.
        description: what a training kept with the weights; ``None`` for weights of others.
    """

    source: str
    layout: str
    preprocessing: AnyPreprocessing
    matched: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    filled: tuple[tuple[str, float], ...] = ()
    reshaped: tuple[tuple[str, Shape, Shape], ...] = ()
    misfit: tuple[tuple[str, Shape, Shape], ...] = ()
    converted: tuple[tuple[str, str], ...] = ()
    differences: tuple[str, ...] = ()
    description: Description | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """The name of each class, in the order of the outputs; empty if they are not known."""
        return () if self.description is None else self.description.classes

    def problems(self) -> list[str]:
        """What keeps the file from fitting the model, configuration and shapes first; empty if it fits."""
        lines = list(self.differences)
        lines += [
            f'{path} is {list(file)} in the file and {list(model)} in the model' for path, file, model in self.misfit
        ]
        lines += [f'{path} is missing from the file' for path in self.missing]
        lines += [f'{key} in the file has no place in the model' for key in self.unexpected]
        return lines

    def __str__(self) -> str:
        counts = [f'{len(self.matched)} matched']
        for name in ('missing', 'unexpected', 'unused', 'dropped', 'filled', 'reshaped', 'misfit', 'differences'):
            if count := len(getattr(self, name)):
                counts.append(f'{count} {name}')
        return f'{self.source} ({self.layout} layout): {", ".join(counts)}'


def adapt_input_channels(path: str, kernel: np.ndarray, shape: Shape) -> np.ndarray | None:
    """A first convolution trained on RGB for another number of input channels, as timm's ``adapt_input_conv`` does.

    One channel gets the sum over the three; ``n`` channels get the three in turn, scaled by ``3 / n``. For one channel
    and for multiples of three, an image whose channels are equal then gives the same result as before.

    Returns:
        The new kernel ``[height, width, channels, out]``, or ``None`` if it is not such a kernel.
    """
    if not path.endswith('/kernel') or kernel.ndim != 4 or kernel.shape[2] != 3:
        return None
    channels = shape[2]
    if kernel.shape[:2] + kernel.shape[3:] != shape[:2] + shape[3:]:
        return None
    if channels == 1:
        return kernel.sum(2, keepdims=True)
    return (kernel[:, :, np.arange(channels) % 3] * (3 / channels)).astype(np.float32)


def merge(
    expected: Mapping[str, Shape],
    translation: Translation,
    report: Report,
    resize: Resize,
    lenient: Collection[str] = ('head',),
) -> tuple[dict[str, np.ndarray], Report]:
    """Fit translated arrays to the paths and shapes that a model expects.

    Args:
        expected: path → shape.
        translation: the file's arrays in our axes, and what is known about its keys.
        report: source, layout and preprocessing.
        resize: ``(path, array, shape)`` → the array resampled to the shape, or ``None`` if it cannot be.
        lenient: parts of which the file may hold more than is expected.

    Returns:
        The arrays that fit, and the completed report.
    """
    arrays = translation.arrays
    fitting, matched, missing, filled, reshaped, misfit = {}, [], [], [], [], []
    for path, shape in expected.items():
        array = arrays.get(path)
        if array is None:
            absent = next((line for line in translation.absent if match(line.path, path) is not None), None)
            if absent is None:
                keys = translation.incomplete.get(path)
                missing.append(f'{path} ({", ".join(keys)})' if keys else path)
            else:
                filled.append((path, absent.value))
                fitting[path] = np.full(shape, absent.value, np.float32)
            continue
        if array.shape != shape and array.ndim == len(shape):
            resized = resize(path, array, shape)
            if resized is None:
                resized = adapt_input_channels(path, array, shape)
            if resized is not None:
                reshaped.append((path, array.shape, shape))
                array = resized
        if array.shape != shape:
            misfit.append((path, array.shape, shape))
            continue
        matched.append(path)
        fitting[path] = array
    homeless = sorted((set(arrays) | set(translation.incomplete)) - set(expected))
    wanted = {part_of(path) for path in expected}.difference(lenient)
    unused = [path for path in homeless if path in translation.optional or part_of(path) not in wanted]
    return fitting, dataclasses.replace(
        report,
        matched=tuple(matched),
        missing=tuple(missing),
        unexpected=(*translation.unexpected, *(path for path in homeless if path not in unused)),
        unused=tuple(unused),
        dropped=translation.dropped,
        filled=tuple(filled),
        reshaped=tuple(reshaped),
        misfit=tuple(misfit),
        converted=tuple(translation.converted.items()),
    )
