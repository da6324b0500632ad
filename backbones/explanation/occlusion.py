"""Which tokens of a text a classifier decides by: what its output loses without each of them.

Source: Zeiler and Fergus 2014, "Visualizing and Understanding Convolutional Networks", section 4.2; for words, Li,
Monroe and Jurafsky 2016, "Understanding Neural Networks through Representation Erasure".
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32

from backbones.model import Model
from backbones.text.tokenising import PADDING, Piece

# Copies of a text, each without one of its tokens, that are computed together.
_TOGETHER = 32


def attributions(
    model: Model,
    variables: Mapping[str, Any],
    tokens: Int32[np.ndarray, ' length'],
    pieces: Sequence[Piece],
    class_index: int | None = None,
) -> tuple[Float[np.ndarray, ' length'], int]:
    """By how much the score of a class falls where one token is not attended to.

    The others keep their positions. Positive: the token speaks for the class. Tokens without characters, which the
    tokenizer added, are always attended to: an encoder that pools the first of them would read the next one in its
    place.

    Args:
        model: a classifier of texts.
        variables: its variables.
        tokens: of one text, ``PADDING`` after its end.
        pieces: where in the text each of them lies; none of padding.
        class_index: of the class; ``None``: the predicted one.

    Returns:
        A difference of log-probabilities for each token, and the class. It is zero for tokens without characters, and
        at padding.
    """
    there = tokens != PADDING
    score = _scores(model)  # ty: ignore[invalid-argument-type] modules are hashable
    (whole,) = np.asarray(score(variables, tokens[None], there[None]))
    chosen = int(whole.argmax()) if class_index is None else class_index
    found = np.zeros(len(tokens), np.float32)
    places = np.array([place for place, piece in enumerate(pieces) if piece.stop > piece.start], int)
    for start in range(0, len(places), _TOGETHER):
        left_out = places[start : start + _TOGETHER]
        masks = np.repeat(there[None], _TOGETHER, 0)
        masks[np.arange(len(left_out)), left_out] = False
        scores = np.asarray(score(variables, np.repeat(tokens[None], _TOGETHER, 0), masks))
        found[left_out] = whole[chosen] - scores[: len(left_out), chosen]
    return found, chosen


@functools.lru_cache(4)
def _scores(model: Model) -> Any:
    """``(variables, tokens, mask)`` → log-probabilities; compiled once for each length."""

    def compute(
        variables: Any, tokens: Int32[Array, 'batch length'], mask: Bool[Array, 'batch length']
    ) -> Float[Array, 'batch classes']:
        part = {name: {'params': variables['params'][name]} for name in ('backbone', 'head')}
        features = model.backbone.apply(part['backbone'], tokens, train=False, mask=mask)
        logits = model.head.apply(part['head'], features, train=False)
        return jax.nn.log_softmax(jnp.asarray(logits, jnp.float32))

    return jax.jit(compute)
