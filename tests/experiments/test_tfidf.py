"""TF-IDF as features: scikit-learn's, fitted to the training texts alone, and what a head makes of them."""

import dataclasses

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from tiny_texts import ablation_config, make_texts

from experiments.data.texts import Texts
from experiments.features.extractor import Costs, Extractor
from experiments.features.frozen_backbone import FrozenBackbone
from experiments.features.store import Store
from experiments.probes import linear, sweeps
from experiments.probes.common import ProbeData, Subset

TFIDF = FrozenBackbone('tfidf', '')


@pytest.fixture(scope='module')
def dataset():
    """Words of which some speak for a class; a word of the test texts alone, and a text of no known word."""
    dataset = make_texts(600)
    generator = np.random.default_rng(0)
    words = np.array([f'word{number}' for number in range(60)])
    values = []
    for label in dataset.targets:
        weights = np.where(np.arange(60) % 3 == label, 2.5, 1.0)
        values.append(' '.join(generator.choice(words, 12, p=weights / weights.sum())))
    test = dataset.splits['test']
    for index in test:
        values[index] += ' unseen unseen'
    values[test[0]] = '…'
    return dataclasses.replace(dataset, images=Texts(values))


def extract(dataset, place):
    return Extractor(ablation_config(), Store(place / 'store'), place)(TFIDF, dataset, lambda count: None)


def test_features_are_those_of_scikit_learn_on_the_training_texts(dataset, tmp_path):
    extracted, costs = extract(dataset, tmp_path)
    texts = np.array(dataset.images.values, dtype=object)
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, max_features=4096, min_df=2)
    vectorizer.fit(texts[dataset.splits['train']])
    assert 'unseen' not in vectorizer.vocabulary_
    np.testing.assert_allclose(extracted.values, vectorizer.transform(texts).toarray(), atol=1e-6)
    assert not extracted.values[dataset.splits['test'][0]].any()
    assert extracted.values.dtype == np.float32
    assert costs == Costs()


def test_texts_of_other_splits_change_nothing_for_the_others(dataset, tmp_path):
    test = dataset.splits['test']
    values = list(dataset.images.values)
    for index in test:
        values[index] = 'words nobody trained on'
    others = np.setdiff1d(np.arange(len(values)), test)
    changed = dataclasses.replace(dataset, images=Texts(values))
    found = [extract(each, tmp_path)[0].values for each in (dataset, changed)]
    np.testing.assert_array_equal(found[0][others], found[1][others])
    # Other training texts have another vocabulary, and so features of their own.
    swapped = {**dataset.splits, 'train': dataset.splits['test'], 'test': dataset.splits['train']}
    assert extract(dataclasses.replace(dataset, splits=swapped), tmp_path)[0].values.shape != found[0].shape


def test_what_is_stored_is_known_without_a_fit(dataset, tmp_path, monkeypatch):
    fitted = []
    fit = TfidfVectorizer.fit
    monkeypatch.setattr(TfidfVectorizer, 'fit', lambda self, texts: fitted.append(len(texts)) or fit(self, texts))
    extractor = Extractor(ablation_config(), Store(tmp_path / 'store'), tmp_path)
    assert not extractor.is_stored(TFIDF, dataset)
    assert fitted == []
    first = extractor(TFIDF, dataset, lambda count: None)[0].values
    assert fitted == [len(dataset.splits['train'])]
    assert extractor.is_stored(TFIDF, dataset)
    assert len(fitted) == 1
    assert extractor(TFIDF, dataset, lambda count: None)[0].values.tobytes() == first.tobytes()


@pytest.mark.slow
def test_a_head_is_as_good_as_scikit_learns(dataset, tmp_path):
    """The best C of the same grid, selected on validation as ours is."""
    values = extract(dataset, tmp_path)[0].values
    train, validation, test = (dataset.splits[name] for name in ('train', 'validation', 'test'))
    labels = dataset.targets

    def right(scores, truth) -> float:
        return float((scores.argmax(-1) == truth).mean())

    config = sweeps.linear()
    config.update(smallest_c=1e-3, largest_c=1e3, values_of_c=13)
    data = ProbeData(values, labels, 3, validation, test, right, normalisation='none')
    (outcome,) = linear.run(data, [Subset(0, 1.0, train)], config, lambda text: None)
    heads = [
        LogisticRegression(C=c, max_iter=1000, tol=1e-6).fit(values[train], labels[train])
        for c in np.logspace(-3, 3, 13)
    ]
    best = max(
        heads,
        key=lambda head: (
            head.score(values[validation], labels[validation]),
            -log_loss(labels[validation], head.predict_proba(values[validation])),
        ),
    )
    theirs = best.score(values[test], labels[test])
    assert theirs > 0.5
    assert outcome.validation_score >= best.score(values[validation], labels[validation]) - 0.003
    assert abs(right(outcome.test_scores, labels[test]) - theirs) <= 0.003
