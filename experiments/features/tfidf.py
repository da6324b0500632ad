"""TF-IDF as features of texts, the baseline for heads without a backbone: what pixels are to images."""

import hashlib
import importlib.metadata
from collections.abc import Generator
from typing import Any

import numpy as np
from jaxtyping import Int

from backbones.errors import UserError
from experiments.data.dataset import Dataset
from experiments.data.texts import Texts
from experiments.features import identity
from experiments.features.frozen_pass import PassedBatch
from experiments.results.axes import TFIDF

# Features of a text, of which there are fewer where the training texts have fewer words.
MOST_FEATURES = 4096
# Words and pairs of words, the most frequent of the training texts; ``sublinear_tf``: 1 + log of the count.
_OPTIONS: dict[str, Any] = {'ngram_range': (1, 2), 'sublinear_tf': True, 'max_features': MOST_FEATURES, 'min_df': 2}


class TfidfPass:
    """Gives the features of texts as a ``FrozenPass`` does; the vocabulary is that of the training texts.

    It is fitted to all training texts, whatever share of their labels a head sees.

    Raises:
        UserError: no word is in two of the training texts.
    """

    def __init__(self, dataset: Dataset, batch_size: int):
        from sklearn.feature_extraction.text import TfidfVectorizer  # imported late: it takes a second

        assert isinstance(dataset.images, Texts)
        self._batch_size = batch_size
        vectorizer = TfidfVectorizer(**_OPTIONS, dtype=np.float32)
        try:
            vectorizer.fit(dataset.images[dataset.splits['train']])
        except ValueError as error:  # as scikit-learn says that no word is left
            raise UserError(
                f'{dataset.name!r} has nothing for TF-IDF: no word of two letters is in {_OPTIONS["min_df"]} of '
                f'its {len(dataset.splits["train"]):,} training texts; leave {TFIDF!r} out of config key backbones'
            ) from error
        self._rows = vectorizer.transform(dataset.images.values)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the features of one text."""
        return self._rows.shape[1:]

    def run(
        self, variables: Any, dataset: Dataset, indices: Int[np.ndarray, ' examples'], **reading: int
    ) -> Generator[PassedBatch]:
        """The features of some examples, batch by batch, in order."""
        for start in range(0, len(indices), self._batch_size):
            members = indices[start : start + self._batch_size]
            yield PassedBatch(members, (self._rows[members].toarray(),), {})


def document(dataset: Dataset) -> dict[str, Any]:
    """What the features depend on, except for the texts; nothing is fitted for it."""
    training = np.ascontiguousarray(dataset.splits['train'], np.int64)
    return {
        'backbone': TFIDF,
        'code': identity.source_version(__name__),
        'options': {name: str(value) for name, value in _OPTIONS.items()},
        'training_examples': hashlib.sha256(training.tobytes()).hexdigest(),
        'scikit-learn': importlib.metadata.version('scikit-learn'),
        'numpy': importlib.metadata.version('numpy'),
        'scipy': importlib.metadata.version('scipy'),
    }
