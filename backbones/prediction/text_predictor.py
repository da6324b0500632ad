"""Classify texts of any lengths with few compiled programs and bounded memory."""

import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32

from backbones.errors import UserError, check_batch_size
from backbones.prediction.prediction import MOST_LIKELY
from backbones.prediction.trained_model import TrainedModel
from backbones.text.tokenising import PADDING, Tokenising, whole_characters

# Characters of a text that one line shows of it.
_SHOWN = 60


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class TextPrediction:
    """What a model sees in one text.

    Attributes:
        text: the text.
        names: of the classes.
        probabilities: of each class.
        tokens: how many tokens of it the model saw, with those that the tokenizer adds.
        is_cut: whether the text has more than these.
    """

    text: str
    names: tuple[str, ...]
    probabilities: Float[np.ndarray, ' names']
    tokens: int
    is_cut: bool

    def __repr__(self) -> str:
        """What the command prints of a text."""
        return f'<TextPrediction {self.summary()}>'

    @property
    def most_likely(self) -> list[tuple[str, float]]:
        """The most likely classes with their probabilities, most likely first."""
        best = np.argsort(-self.probabilities, kind='stable')[:MOST_LIKELY].tolist()
        return [(self.names[index], float(self.probabilities[index])) for index in best]

    def summary(self, name: str | None = None) -> str:
        """One line: name (by default how the text begins), the most likely classes, and where it was cut."""
        classes = ', '.join(f'{each} {share:.1%}' for each, share in self.most_likely)
        cut = f'  (cut at {self.tokens} tokens)' if self.is_cut else ''
        return f'{name or beginning(self.text)}  {classes}{cut}'

    def as_json(self) -> dict[str, Any]:
        """The result as JSON represents it."""
        classes = [{'name': name, 'probability': share} for name, share in self.most_likely]
        return {'text': self.text, 'tokens': self.tokens, 'is_cut': self.is_cut, 'classes': classes}

    def to_json(self) -> str:
        """The result as one line of JSON."""
        return json.dumps(self.as_json(), allow_nan=False)


class TextPredictor:
    """A classifier of texts with what belongs to it: ``predictor('a text')`` → a ``TextPrediction`` of each text.

    One program is compiled for each length that batches are padded to (``tokenising.BUCKETS``).

    Attributes:
        model: the model, its variables, its tokenizer and what its classes are called.
        batch_size: texts per call of the program; a batch that is not full is padded.
    """

    def __init__(self, model: TrainedModel, batch_size: int = 8):
        assert isinstance(model.input, Tokenising)
        self.model, self.batch_size = model, check_batch_size(batch_size)
        self._tokenising = model.input
        self._variables = jax.device_put(model.variables)
        self._program = jax.jit(self._on_device)

    def __repr__(self) -> str:
        return f'<TextPredictor of {len(self.names)} classes, from {self.model.source}>'

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.model.names

    @property
    def length(self) -> int:
        """The most tokens that are read of a text, with those that the tokenizer adds."""
        return self._tokenising.length

    def __call__(self, texts: str | Iterable[str]) -> list[TextPrediction]:
        """Classify texts, all results at once, in their order.

        Args:
            texts: a text, or several.

        Raises:
            UserError: something that is no text, or a model whose outputs are not finite.
        """
        found = [texts] if isinstance(texts, str) else list(texts)
        results = []
        for result in self.stream(found, 1 if len(found) == 1 else None):
            if isinstance(result, UserError):
                raise result
            results.append(result)
        return results

    def stream(self, texts: str | Iterable[str], batch_size: int | None = None) -> Iterator[TextPrediction | UserError]:
        """Classify texts one batch after the other; memory does not grow with their number.

        Args:
            texts: as for a call.
            batch_size: in place of the predictor's own.

        Yields:
            The result of each text, in their order; an error for what is no text, or where outputs are not finite.
        """
        size = self.batch_size if batch_size is None else check_batch_size(batch_size)
        for batch in _batches([texts] if isinstance(texts, str) else texts, size):
            good = [text for text in batch if isinstance(text, str)]
            results = iter(self._predict(good, size)) if good else iter(())
            for text in batch:
                yield (
                    next(results)
                    if isinstance(text, str)
                    else UserError(f'a text is a string, not {type(text).__name__}')
                )

    def _predict(self, texts: Sequence[str], size: int) -> list[TextPrediction | UserError]:
        tokens, cut = self._tokenising.encode_and_tell([*texts, *[texts[-1]] * (size - len(texts))])
        found = jax.device_get(self._program(self._variables, tokens))
        return [
            TextPrediction(text, self.names, shares, int((row != PADDING).sum()), bool(beyond))
            if np.isfinite(shares).all()
            else UserError(
                f'{beginning(text)!r}: outputs of {self.model.source} are not finite; its weights are damaged, or it '
                'was trained at too high a learning rate'
            )
            for text, shares, row, beyond in zip(texts, found, tokens, cut, strict=False)
        ]

    def _on_device(self, variables: Any, tokens: Int32[Array, 'batch length']) -> Float[Array, 'batch names']:
        outputs = self.model.model.apply(variables, tokens, train=False)
        return jax.nn.softmax(jnp.asarray(outputs, jnp.float32))


def _batches(texts: Iterable[str], size: int) -> Iterator[tuple[str, ...]]:
    remaining = iter(texts)
    while batch := tuple(itertools.islice(remaining, size)):
        yield batch


def beginning(text: str) -> str:
    """How a text begins, in one line."""
    line = ' '.join(whole_characters(text).split())
    return line if len(line) <= _SHOWN else f'{line[: _SHOWN - 1].rstrip()}…'
