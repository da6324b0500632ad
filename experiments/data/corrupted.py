"""Corrupted test images: a data set of its own, whose images are corrupted on the device when they are used."""

import hashlib
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from jaxtyping import Array, Int, UInt8

from experiments.data.corruptions import Corruption, seeds_of
from experiments.data.dataset import Dataset, Images


def corrupted(dataset: Dataset, corruption: Corruption) -> Dataset:
    """The examples of the test split alone, corrupted.

    What becomes of an image depends on its pixels and its id, so that it is the same for every backbone and seed.

    Args:
        dataset: its test split holds readable examples only.
    """
    test = dataset.splits['test']
    images = dataset.images
    return Dataset(
        name=dataset.name,
        images=images[test] if isinstance(images, np.ndarray) else _Selected(images, test),
        targets=dataset.targets[test],
        ids=tuple(dataset.ids[index] for index in test),
        classes=dataset.classes,
        splits={'test': np.arange(len(test))},
        provenance=f'{dataset.provenance}; test images with {corruption.label}',
        stored_size=dataset.stored_size,
        reading=dataset.reading,
        corruption=corruption,
    )


class _Selected:
    """Some of the images of a data set.

    Attributes:
        shape: ``(examples, height, width, channels)``.
        content: a digest of the images, or ``None``.
        modules: names of the modules whose code determines the pixels.
    """

    def __init__(self, images: Images, indices: Int[np.ndarray, ' selected']):
        self._images, self._indices = images, indices
        self.shape = (len(indices), *images.shape[1:])
        content = getattr(images, 'content', None)
        chosen = f'{content} {indices.tolist()}'
        self.content = content and hashlib.sha256(chosen.encode()).hexdigest()
        self.modules = getattr(images, 'modules', (type(images).__module__,))

    def __getitem__(self, indices: Int[np.ndarray, ' count']) -> UInt8[np.ndarray, 'count height width channels']:
        return self._images[self._indices[indices]]


def on_devices(
    batch: Mapping[str, Array],
    dataset: Dataset,
    ids: Sequence[str],
    place: Callable[[Mapping[str, np.ndarray]], Mapping[str, Array]],
) -> dict[str, Array]:
    """A batch of a data set with its images as the data set's corruption leaves them.

    Args:
        batch: its arrays on the devices, with ``'image'``.
        ids: ids of the rows that this process has read.
        place: puts arrays of these rows on the devices.
    """
    if dataset.corruption is None:
        return dict(batch)
    clean = batch['image']
    image = dataset.corruption(clean, place({'seed': seeds_of(ids)})['seed'])
    return {**batch, 'image': jax.device_put(image, clean.sharding)}
