"""The training images whose pooled features are most similar to those of an image."""

import concurrent.futures
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from PIL import Image

from backbones.errors import UserError
from backbones.explanation.similarity import nearest
from backbones.prediction import fitting, image_sources
from experiments.cli import display
from experiments.data.dataset import Dataset
from experiments.explanation.explaining import Explainer
from experiments.prediction import splits

_BATCH = 32
_THREADS = 4


@dataclasses.dataclass(frozen=True)
class Neighbour:
    """A training image: its index in the data set, its name, its class (empty for a dense task), its similarity."""

    index: int
    name: str
    target: str
    similarity: float


def neighbours(
    explainer: Explainer,
    dataset: Dataset,
    images: Sequence[object],
    queries: Float[np.ndarray, 'images channels'],
    count: int,
) -> list[list[Neighbour]]:
    """The nearest training images of each image, by cosine similarity.

    Args:
        explainer: of the model.
        dataset: the training split of which is searched.
        images: where the images come from; a training image that is the same file is left out.
        queries: their pooled features.
        count: how many of each.

    Raises:
        UserError: no training image can be read.
    """
    indices, features = _features(explainer, dataset)
    # One more, in case the image itself is among them.
    found, similarities = nearest(jnp.asarray(queries), jnp.asarray(features), min(count + 1, len(indices)))
    result = []
    for image, rows, values in zip(images, np.asarray(found), np.asarray(similarities), strict=True):
        pairs = zip(indices[rows].tolist(), values.tolist(), strict=True)
        others = [pair for pair in pairs if not _same_file(dataset, pair[0], image)]
        result.append([_neighbour(dataset, *pair) for pair in others[:count]])
    return result


def picture(dataset: Dataset, index: int) -> Image.Image:
    """A training image."""
    (image,) = splits.images(dataset, np.array([index]))
    return Image.fromarray(image_sources.pixels(image, dataset.reading))


def _neighbour(dataset: Dataset, index: int, similarity: float) -> Neighbour:
    target = dataset.classes[dataset.targets[index]] if dataset.truth is None else ''
    return Neighbour(index, dataset.ids[index], target, similarity)


def _same_file(dataset: Dataset, index: int, image: object) -> bool:
    file = None if dataset.files is None else dataset.files[index]
    return file is not None and isinstance(image, Path | str) and Path(image).resolve() == file.resolve()


def _features(explainer: Explainer, dataset: Dataset) -> tuple[np.ndarray, Float[np.ndarray, 'examples channels']]:
    """Those of the training split that can be read, and their pooled features."""
    model = explainer.column.model
    indices = dataset.splits['train']

    def read(image: Path | np.ndarray) -> np.ndarray | UserError:
        try:
            return fitting.fit(image_sources.pixels(image, model.reading), model.input).pixels
        except UserError as error:
            return error

    kept, features, bad = [], [], []
    with display.progress() as bar, concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        task = bar.add_task(f'training images of {dataset.name}, {model.name}', total=len(indices), note='')
        for start in range(0, len(indices), _BATCH):
            batch = indices[start : start + _BATCH]
            pixels: list[np.ndarray] = []
            for index, each in zip(batch, pool.map(read, splits.images(dataset, batch, model.reading)), strict=True):
                if isinstance(each, UserError):
                    bad.append(each)
                else:
                    pixels.append(each)
                    kept.append(index)
            if len({each.shape for each in pixels}) > 1:  # inputs whose size follows the image's
                features += [explainer.pooled(each[None]) for each in pixels]
            elif pixels:
                filled = np.stack(pixels + [pixels[-1]] * (_BATCH - len(pixels)))
                features.append(explainer.pooled(filled)[: len(pixels)])
            bar.advance(task, len(batch))
    if not kept:
        raise UserError(f'none of the {len(indices):,} training images of {dataset.name} can be read: {bad[0]}')
    if bad:
        display.console.print(
            f'{len(bad):,} training images of {dataset.name} cannot be read and are left out: {bad[0]}',
            style='yellow', markup=False, soft_wrap=True,
        )  # fmt: skip
    return np.array(kept), np.concatenate(features)
