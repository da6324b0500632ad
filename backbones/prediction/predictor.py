"""Predict images of any sizes with few compiled programs and bounded memory."""

import collections
import concurrent.futures
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from backbones.errors import UserError, check_batch_size
from backbones.images import Source
from backbones.prediction import fitting, image_sources, outputs, trained_model
from backbones.prediction.fitting import Fitted
from backbones.prediction.image_sources import Images
from backbones.prediction.prediction import Prediction
from backbones.prediction.text_predictor import TextPredictor
from backbones.prediction.trained_model import TrainedModel
from backbones.text.tokenising import Tokenising

# Images that wait for others of their shape, in batches: then they are predicted although the batch is not full.
_WAITING = 4
# Threads that read and resize, which Pillow does without holding up the others.
_THREADS = 4


@dataclasses.dataclass(frozen=True)
class _Read:
    """An image that was read: number in the order given, what it was given as, its size, and the model's input."""

    number: int
    source: Source | np.ndarray
    size: tuple[int, int]
    fitted: Fitted


class Predictor:
    """A model with what belongs to it: ``predictor('photos/*.jpg')`` → a ``Prediction`` of each image.

    One program is compiled for each shape of the model's input, of which there are few: inputs are fitted on the host.

    Attributes:
        model: the model, its variables, what it expects of images and what its classes are called.
        batch_size: images per call of the program; a batch that is not full is padded.
    """

    def __init__(self, model: TrainedModel, batch_size: int = 8, score_threshold: float | None = 0.25):
        self.batch_size = check_batch_size(batch_size)
        if score_threshold is not None and not (isinstance(score_threshold, Real) and 0 <= score_threshold <= 1):
            raise UserError(f'score_threshold must lie between 0 and 1, not {score_threshold!r}')
        if model.task == 'detection':
            changes: dict[str, Any] = dict(model.evaluation)
            if score_threshold is not None:
                changes = {'score_threshold': float(score_threshold)}
            model = dataclasses.replace(model, model=model.model.clone(head=model.model.head.clone(**changes)))
        self.model = model
        self._reading = outputs.READINGS[model.task]
        self._variables = jax.device_put(model.variables)
        self._program = jax.jit(self._on_device)

    def __repr__(self) -> str:
        return f'<Predictor {self.model.task} of {len(self.names)} classes, from {self.model.source}>'

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.model.names

    def __call__(self, images: Images) -> list[Prediction]:
        """Predict images, all results at once, in their order.

        Args:
            images: a path, a directory, a pattern, an array, bytes, a Pillow image, or several of them
                (``image_sources.expand``).

        Raises:
            UserError: an image that cannot be read or predicted, or see ``image_sources.expand``.
        """
        found = list(image_sources.expand(images))
        results = []
        # One image alone is the usual call, and should not cost as much as a batch.
        for result in self.stream(found, 1 if len(found) == 1 else None):
            if isinstance(result, UserError):
                more = '' if len(found) == 1 else '; stream(images) gives the results of the others'
                raise UserError(f'{result}{more}')
            results.append(result)
        return results

    def stream(self, images: Images, batch_size: int | None = None) -> Iterator[Prediction | UserError]:
        """Predict images one batch after the other; memory does not grow with their number.

        Args:
            images: as for a call.
            batch_size: in place of the predictor's own.

        Yields:
            The result of each image, in their order; an error for one that cannot be read, or predicted.

        Raises:
            UserError: see ``image_sources.expand``.
        """
        size = self.batch_size if batch_size is None else check_batch_size(batch_size)
        # Those of one shape wait for each other; results wait for those of images that came before.
        waiting: dict[tuple, list[_Read]] = collections.defaultdict(list)
        done: dict[int, Prediction | UserError] = {}
        following = 0
        for number, read in enumerate(self._read(image_sources.expand(images), 2 * size)):
            if isinstance(read, UserError):
                done[number] = read
            else:
                group = waiting[read.fitted.pixels.shape]
                group.append(read)
                if len(group) == size:
                    done |= self._predict(group, size)
                    group.clear()
            if number - following >= _WAITING * size:
                done |= self._predict_all(waiting, size)
            while following in done:
                yield done.pop(following)
                following += 1
        done |= self._predict_all(waiting, size)
        yield from (done[number] for number in sorted(done))

    def _read(self, images: Iterable[Source | np.ndarray], ahead: int) -> Iterator['_Read | UserError']:
        """Read images in several threads, some of them ahead of when they are needed."""
        waiting: collections.deque = collections.deque()
        with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
            try:
                for number, source in enumerate(images):
                    waiting.append(pool.submit(self._fit, number, source))
                    if len(waiting) > ahead:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _fit(self, number: int, source: Source | np.ndarray) -> '_Read | UserError':
        try:
            image = image_sources.pixels(source, self.model.reading)
        except UserError as error:
            return error
        return _Read(number, source, image.shape[:2], fitting.fit(image, self.model.image_input))

    def _predict_all(self, waiting: dict[tuple, list[_Read]], size: int) -> dict[int, Prediction | UserError]:
        done: dict[int, Prediction | UserError] = {}
        for group in waiting.values():
            done |= self._predict(group, size) if group else {}
            group.clear()
        return done

    def _predict(self, group: list[_Read], size: int) -> dict[int, Prediction | UserError]:
        padded = [each.fitted for each in group] + [group[-1].fitted] * (size - len(group))
        extents = np.array([each.extent for each in padded], np.float32)
        values = jax.device_get(self._program(self._variables, fitting.of_one_shape(padded), extents))
        rows = [{key: value[row] for key, value in values.items()} for row in range(len(group))]
        return {each.number: self._told(each, row) for each, row in zip(group, rows, strict=True)}

    def _told(self, read: _Read, values: dict[str, np.ndarray]) -> Prediction | UserError:
        if not values.pop('finite'):
            place = read.source if isinstance(read.source, Path | str) else 'an image'
            return UserError(
                f'{place}: outputs of {self.model.source} are not finite; its weights are damaged, or it was trained '
                'at too high a learning rate'
            )
        fields: dict[str, Any] = self._reading.on_host(values, read.fitted)
        return Prediction(read.source, read.size, self.names, reading=self.model.reading, **fields)

    def _on_device(self, variables: Any, pixels: jax.Array, extents: jax.Array) -> dict[str, jax.Array]:
        _, *size, _ = pixels.shape
        normalise = fitting.normalisation(self.model.image_input, size)
        images = pixels if normalise is None else normalise(pixels)
        images = images.astype(jnp.float32)
        result = self.model.model.apply(variables, images, train=False, extents=extents)
        return self._reading.on_device(self.model.model, result, size, extents) | {'finite': _finite(result)}


def _finite(outputs: Any) -> Bool[Array, ' batch']:
    """Of each image, whether all outputs are finite numbers."""
    numbers = [leaf for leaf in jax.tree.leaves(outputs) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.stack([jnp.isfinite(leaf).all(range(1, leaf.ndim)) for leaf in numbers]).all(0)


def load(
    source: str | Path,
    name: str | None = None,
    batch_size: int = 8,
    score_threshold: float | None = 0.25,
    image_size: int | tuple[int, int] | None = None,
    classes: Sequence[str] | None = None,
    **changes: Any,
) -> Predictor | TextPredictor:
    """Load a model that predicts images, ``load('runs/x')('photo.jpg')[0].plot()``, or classifies texts.

    Args:
        source: a run of ``experiments.train``, its file of weights or one of its checkpoints; published weights, as
            ``load_weights`` takes them; or a name, whose usual weights are then taken.
        name: which model published weights are of: a registered backbone (with the classifier in the file), or a row
            of ``published_models.TABLE``.
        batch_size: images per call of the compiled program.
        score_threshold: scores of detections are above it; ``None``: above that with which the model is evaluated.
        image_size: height and width of the input in pixels, in place of those that the weights expect; of a detector of
            torchvision's, whose input follows each image, the shorter side, or the shorter and at most the longer one.
        classes: names of the classes of published weights that were tuned to others.
        **changes: of published detectors and segmenters: see ``create_published``.

    Raises:
        UserError: see ``trained_model.read``, or a value out of its range.
    """
    model = trained_model.read(source, name, image_size, classes, **changes)
    if isinstance(model.input, Tokenising):
        return TextPredictor(model, batch_size)
    return Predictor(model, batch_size, score_threshold)
