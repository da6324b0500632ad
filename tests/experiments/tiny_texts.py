"""A small data set of texts that is quick to learn, an encoder that is quick to run, and configs for both."""

import dataclasses
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from tiny import make_config

import backbones
from backbones import registry
from backbones.text.byte_tokenizer import VOCABULARY
from backbones.text.encoder import TextEncoder
from backbones.text.tokenising import PADDING
from experiments.data.dataset import Dataset
from experiments.data.splits import split_by_hash
from experiments.data.texts import Texts
from experiments.training.config import default_config

NAME = 'text_micro'
CLASSES = ('blue', 'green', 'red')


def smaller(patch: pytest.MonkeyPatch, **options) -> None:
    """Make ``text_micro`` smaller than it is."""
    entry = registry.TABLE[NAME]
    given = {'channels': 8, 'depth': 4, 'heads': 2, 'positions': 256, 'hidden': 16, 'pooling': 'mean', **options}
    row = dataclasses.replace(entry, constructor=partial(TextEncoder, vocabulary=VOCABULARY, **given))
    patch.setitem(registry.TABLE, NAME, row)


def make_texts(examples=72, seed=0, longest=90, name='docstrings') -> Dataset:
    """Texts of many lengths, in no order of them, whose class is the colour that they name."""
    generator = np.random.default_rng(seed)
    labels = np.arange(examples, dtype=np.int32) % len(CLASSES)
    values = []
    for label in labels:
        words = ['so', 'it', 'was', 'naïve', 'a', 'house']
        rest = list(generator.choice(words, generator.integers(0, max(1, longest // 6))))
        rest.insert(generator.integers(0, len(rest) + 1), CLASSES[label])
        values.append(' '.join(rest)[: longest - 2])
    ids = tuple(f'texts:{index}' for index in range(examples))
    splits, how = split_by_hash(labels, ids)
    return Dataset(name, Texts(values), labels, ids, CLASSES, splits, f'made up; {how}')


def write_csv(file: Path, dataset: Dataset) -> Path:
    """The texts as a file of the user's own."""
    rows = [
        f'"{value}",{dataset.classes[target]}\n'
        for value, target in zip(dataset.images.values, dataset.targets, strict=True)
    ]
    file.write_text(''.join(['text,label\n', *rows]))
    return file


def tokens_of(text: str, length: int = 256) -> np.ndarray:
    """The tokens of one text, without padding."""
    tokens = backbones.preprocess(NAME).replace(length=length).encode([text])[0]
    return tokens[tokens != PADDING]


def ablation_config(**changes):
    return make_config(**{'backbones': (f'{NAME}@random',), 'image_size': 0, 'batch_size': 8, **changes})


def training_config(**changes):
    config = default_config()
    config.update(
        dataset='docstrings', backbone=NAME, batch_size=12, epochs=1.0, warmup_epochs=0.0, threads=1, dropout=0.0,
        learning_rate=3e-3,
    )  # fmt: skip
    config.update(changes)
    return config
