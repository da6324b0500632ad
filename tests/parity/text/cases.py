"""Encoders and texts that transformers and our tests both make from a seed; transformers' answers are kept.

Only numpy, and of it only ``RandomState``, whose stream of numbers is frozen for good.
"""

import dataclasses
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

DIRECTORY = Path(__file__).parent
# Our option → what BERT's configurations call it, and DistilBERT's.
NAMES = {
    'channels': ('hidden_size', 'dim'),
    'depth': ('num_hidden_layers', 'n_layers'),
    'heads': ('num_attention_heads', 'n_heads'),
    'hidden': ('intermediate_size', 'hidden_dim'),
    'vocabulary': ('vocab_size', 'vocab_size'),
    'positions': ('max_position_embeddings', 'max_position_embeddings'),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """An encoder and what it is asked.

    Attributes:
        backbone: a registered name.
        options: overrides of the backbone.
        length: tokens of the longest text.
        seed: of weights and texts.
    """

    backbone: str
    options: tuple[tuple[str, Any], ...] = ()
    length: int = 12
    seed: int = 0

    def __str__(self) -> str:
        return self.backbone

    @property
    def path(self) -> Path:
        """Where transformers' answers are kept."""
        return DIRECTORY / f'{self.backbone}.npz'


# Narrow, but with stages of several depths and a table of positions that a text fills.
_NARROW = (('channels', 48), ('depth', 5), ('heads', 3), ('hidden', 96), ('vocabulary', 150))
CASES = (
    Case('bert_base', (*_NARROW, ('positions', 40))),
    Case('distilbert_base', (*_NARROW, ('positions', 40))),
    Case('roberta_base', (*_NARROW, ('positions', 42))),
    Case('minilm_l6', (*_NARROW, ('positions', 40))),
)


def _random(case: Case, what: str) -> np.random.RandomState:
    return np.random.RandomState(zlib.crc32(f'{case.backbone}/{what}'.encode()) ^ case.seed)


def array(case: Case, key: str, shape: tuple[int, ...]) -> np.ndarray:
    """One entry of the state dictionary; what the first normalisation sees is small, for a wrong epsilon to show."""
    random = _random(case, key)
    noise = random.uniform(-(3**0.5), 3**0.5, shape)
    if 'embeddings.weight' in key:
        values = 0.01 * noise
    elif len(shape) > 1:
        values = noise * shape[1] ** -0.5
        # A softmax that prefers some tokens.
        values *= 1.5 if '.query.' in key or '.q_lin.' in key else 1.0
    elif key.endswith('weight'):
        values = 1 + 0.1 * noise
    else:
        values = 0.1 * noise
    return values.astype(np.float32)


def state_dict(case: Case, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """All entries, by transformers' keys."""
    return {key: array(case, key, tuple(shape)) for key, shape in shapes.items()}


@dataclasses.dataclass(frozen=True)
class Question:
    """One batch of texts: tokens, which of them count, and the type of each (``None``: all of the first)."""

    tokens: np.ndarray
    mask: np.ndarray
    types: np.ndarray | None = None


def questions(case: Case, vocabulary: int, longest: int, types: int) -> dict[str, Question]:
    """Texts of several lengths, padded on either side; as long as they may be; with holes; of two types.

    Args:
        vocabulary: number of tokens; the first three are not used.
        longest: the most tokens of a text.
        types: number of types of token.
    """
    random = _random(case, 'texts')
    length = case.length
    tokens = random.randint(3, vocabulary, (4, length))
    places = np.arange(length)
    counts = np.array([length, length - 1, max(length // 3, 2), 1])[:, None]
    found = {
        'right': Question(tokens, places < counts),
        'left': Question(tokens, places >= length - counts),
        'holes': Question(tokens, random.uniform(0, 1, tokens.shape) < 0.6),
        'longest': Question(random.randint(3, vocabulary, (1, longest)), np.ones((1, longest), bool)),
    }
    if types > 1:
        found['types'] = Question(tokens, places < counts, (places >= counts // 2).astype(np.int64))
    return found


def sample(values: np.ndarray) -> np.ndarray:
    """Up to 300 of the values, evenly spread."""
    flat = np.asarray(values).reshape(-1)
    return flat[:: max(len(flat) // 300, 1)]
