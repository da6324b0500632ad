"""The training images whose pooled features are most similar to those of an image."""

import concurrent.futures
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from PIL import Image

from backbones.errors import UserError
from backbones.explanation import observation
from backbones.explanation.observation import backbone_variables
from backbones.explanation.similarity import nearest
from backbones.images import ImageReading
from backbones.model import Model
from backbones.prediction import fitting, image_sources
from experiments.cli import display
from experiments.data.dataset import Dataset
from experiments.explanation.explained_models import ExplainedModel
from experiments.explanation.explaining import Explainer
from experiments.features import identity
from experiments.features.entry_files import Shard
from experiments.features.network import data_document
from experiments.features.store import Store, Wanted
from experiments.prediction import splits
from experiments.training import mesh

_BATCH = 32
# Whole batches, which are kept when an interrupted pass begins again.
_SHARD = 64 * _BATCH
# What makes features of files, besides the backbone.
_CODE = (
    fitting.__name__,
    image_sources.__name__,
    observation.__name__,
    splits.__name__,
    ImageReading.__module__,
)
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
    store: Store,
) -> list[list[Neighbour]]:
    """The nearest training images of each image, by cosine similarity.

    Args:
        explainer: of the model.
        dataset: the training split of which is searched.
        images: where the images come from; a training image that is the same file is left out.
        queries: their pooled features.
        count: how many of each.
        store: keeps the features of the training images, so that another call runs the backbone on none of them.

    Raises:
        UserError: no training image can be read, or the store cannot be written.
    """
    indices, features = _features(explainer, dataset, queries.shape[1], store)
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


def _features(
    explainer: Explainer, dataset: Dataset, channels: int, store: Store
) -> tuple[np.ndarray, Float[np.ndarray, 'examples channels']]:
    """Those of the training split that can be read, and their pooled features, which are kept in the store."""
    model = explainer.column.model
    indices = dataset.splits['train']
    bounds = [(start, min(start + _SHARD, len(indices))) for start in range(0, len(indices), _SHARD)]
    with display.progress() as bar:
        task = bar.add_task(f'training images of {dataset.name}, {model.name}', total=len(indices), note='')

        def compute(missing: Sequence[Sequence[int]]) -> Iterator[tuple[int, Shard]]:
            for number in missing[0]:
                rows = np.arange(*bounds[number])
                values, bad = _computed(explainer, dataset, indices[rows], channels, lambda n: bar.advance(task, n))
                yield 0, Shard(number, values, {int(rows[place]): reason for place, reason in bad.items()})

        def announce(found: Sequence[Sequence[int]]) -> None:
            for number in found[0]:
                bar.advance(task, bounds[number][1] - bounds[number][0])

        about = {
            'backbone': f'{model.name} · {model.about}',
            'data': f'{dataset.name}, to show similar images of',
            'tap': 'pooled',
            'examples': f'{len(indices):,}',
        }
        (stored,) = store.fetch([Wanted(_identity(model, dataset), about, bounds)], compute, announce)
    bad = [reason for _, reason in sorted(stored.unreadable.items())]
    kept = np.setdiff1d(np.arange(len(indices)), list(stored.unreadable))
    if not len(kept):
        raise UserError(f'none of the {len(indices):,} training images of {dataset.name} can be read: {bad[0]}')
    if bad:
        display.console.print(
            f'{len(bad):,} training images of {dataset.name} cannot be read and are left out: {bad[0]}',
            style='yellow', markup=False, soft_wrap=True,
        )  # fmt: skip
    return indices[kept], stored[kept]


def _identity(model: ExplainedModel, dataset: Dataset) -> dict[str, Any]:
    """Everything that these features depend on.

    They are not those of an ablation, which sees images as they are stored, at the sizes and in the batches of its
    config; here training images are read as the ones that are explained.
    """
    backbone = model.network.backbone if isinstance(model.network, Model) else model.network
    train = np.asarray(dataset.splits['train'], np.int64)
    document = {
        'use': 'similar images',
        'backbone': identity.module_document(backbone),
        'weights': identity.variables_digest(backbone_variables(model.network, model.variables)),
        'input': {'class': type(model.input).__name__, **dataclasses.asdict(model.input)},
        'reading': [model.reading.as_json(), dataset.reading.as_json()],
        'code': identity.source_version(__name__, *_CODE),
        'data': data_document(dataset),
        'examples': hashlib.sha256(train.tobytes()).hexdigest(),
        'computation': identity.computation_document(mesh.make(), _BATCH, 'float32'),
    }
    return json.loads(json.dumps(document))


def _computed(
    explainer: Explainer, dataset: Dataset, indices: np.ndarray, channels: int, advance: Callable[[int], None]
) -> tuple[Float[np.ndarray, 'examples channels'], dict[int, str]]:
    """Pooled features of some examples, zero where one cannot be read, and why not, by its place."""
    model = explainer.column.model

    def read(image: Path | np.ndarray) -> np.ndarray | UserError:
        try:
            return fitting.fit(image_sources.pixels(image, model.reading), model.input).pixels
        except UserError as error:
            return error

    values = np.zeros((len(indices), channels), np.float32)
    bad: dict[int, str] = {}
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(indices), _BATCH):
            batch = indices[start : start + _BATCH]
            places: list[int] = []
            pixels: list[np.ndarray] = []
            for place, each in enumerate(pool.map(read, splits.images(dataset, batch, model.reading)), start):
                if isinstance(each, UserError):
                    bad[place] = str(each)
                else:
                    places.append(place)
                    pixels.append(each)
            if len({each.shape for each in pixels}) > 1:  # inputs whose size follows the image's
                values[places] = np.concatenate([explainer.pooled(each[None]) for each in pixels])
            elif pixels:
                filled = np.stack(pixels + [pixels[-1]] * (_BATCH - len(pixels)))
                values[places] = explainer.pooled(filled)[: len(pixels)]
            advance(len(batch))
    return values, bad
