"""Ablations and trainings that read texts: what they refuse, and that a whole one is the same however it is run."""

import dataclasses

import pytest
from tiny_texts import NAME, ablation_config, make_texts, smaller, training_config

from backbones import UserError
from experiments.ablation import cells, estimate
from experiments.ablation.engine import Engine
from experiments.ablation.selection import Shard
from experiments.commands import ablate
from experiments.data.texts import Texts
from experiments.features import extractor, throughput
from experiments.features.store import Store
from experiments.results import rows
from experiments.training import session

LENGTH = 'config key text_length is {}, but text_micro takes 256 tokens at most'


@pytest.fixture(autouse=True)
def small(monkeypatch):
    smaller(monkeypatch)
    monkeypatch.setattr(throughput, 'BATCHES', 2)
    monkeypatch.setattr(throughput, 'OTHERS', 1.0)  # tests run beside others


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'image_size': 32}, 'config key image_size is 32, but text_micro reads texts; set text_length'),
        ({'image_size': 32, 'image_height': 16}, 'config key image_size is 32, but text_micro'),
        ({'text_length': 257}, LENGTH.format(257)),
        ({'text_length': 2}, "config key 'text_length' is 2; expected 0, or a number of tokens from 3 on"),
        ({'text_length': -1}, "config key 'text_length' is -1; expected 0, or a number of tokens from 3 on"),
        ({'mixup': 0.2}, "config key 'mixup' is 0.2, but it augments images, and text_micro reads texts; leave it"),
        ({'cutmix': 0.2}, "config key 'cutmix' is 0.2, but it augments images"),
        ({'shift': 2}, "config key 'shift' is 2, but it augments images"),
        ({'crop_scale': 0.5}, "config key 'crop_scale' is 0.5, but it augments images"),
        ({'rand_augment_layers': 1}, "config key 'rand_augment_layers' is 1, but it augments images"),
        ({'dataset': 'digits'}, "'digits' has images, but the backbone text_micro reads texts; choose a data set of"),
        ({'backbone': 'vit_micro'}, "'docstrings' has texts, but the backbone vit_micro reads images; choose a data"),
        ({'backbone': 'vit_micro', 'dataset': 'digits', 'text_length': 9}, 'text_length is 9, but vit_micro reads im'),
        (
            {'task': 'segmentation'},
            "text_micro reads texts, and the task segmentation .* set the config key task to 'c",
        ),
        ({'task': 'detection'}, 'text_micro reads texts, and the task detection is about places in images'),
        ({'regime': 'partial:7', 'weights': 'random'}, '7'),
    ],
)
def test_a_training_that_cannot_be(changes, message):
    with pytest.raises(UserError, match=message):
        session.check_without_data(training_config(**changes))


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'backbones': (f'{NAME}@random', 'vit_micro@random')}, "'docstrings' has texts, but the backbone vit_micro "),
        ({'backbones': ('pixels', f'{NAME}@random')}, "'docstrings' has texts, but pixels reads images; choose a data"),
        ({'backbones': ('tfidf', 'pixels'), 'datasets': ('digits',)}, "'digits' has images, but tfidf reads texts"),
        ({'datasets': ('docstrings', 'digits')}, "'digits' has images, but the backbone text_micro reads texts"),
        (
            {'backbones': ('pixels', f'{NAME}@random'), 'datasets': ('tfds:x',)},
            'backbones has pixels, which reads images, and text_micro, which reads texts; an ablation is of one',
        ),
        ({'corruptions': ('fog',)}, r"corruptions is \('fog',\), but text_micro reads texts, .* set corruptions=\(\)"),
        ({'corruptions': ('fog',), 'backbones': ('tfidf',)}, 'but tfidf reads texts'),
        ({'text_length': (16, 1)}, "config key 'text_length' is 1; expected 0, or a number of tokens from 3 on"),
        ({'tap': 'unpooled'}, "text_micro has no tap 'unpooled'; it has 'pooled', 'stages'"),
        ({'training.task': 'detection', 'regimes': ('linear',)}, 'text_micro reads texts, and the task detection'),
        ({'backbones': ('tfidf',), 'training.task': 'segmentation'}, 'tfidf reads texts, and the task segmentation'),
        ({'backbones': ('tfidf',), 'text_length': (16, 32)}, "'text_length' has 2 values, but no cell .* depends on"),
        ({'backbones': ('tfidf@random',)}, 'tfidf'),
        ({'backbones': ('tfidf',), 'regimes': ('attentive', 'finetune')}, 'the axes span no cell'),
    ],
)
def test_an_ablation_that_cannot_be(changes, message):
    config = ablation_config(datasets=('docstrings',))
    config.update_from_flattened_dict(changes)
    with pytest.raises(UserError, match=message):
        cells.plan(config)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'image_size': 32}, 'config key image_size is 32, but text_micro reads texts; set text_length'),
        ({'text_length': (16, 300)}, LENGTH.format(300)),
        ({'training.mixup': 0.2, 'regimes': ('scratch',)}, "config key 'training.mixup' is 0.2, but it augments imag"),
        ({'runtime': 'onnxruntime'}, "runtime='onnxruntime' cannot be used: its graphs are of one shape, and texts"),
    ],
)
def test_an_ablation_that_cannot_begin(tmp_path, changes, message):
    config = ablation_config(datasets=('docstrings',), regimes=('knn',))
    config.update_from_flattened_dict(changes)
    engine = Engine(config, tmp_path / 'work', lambda name: make_texts(), Store(tmp_path / 'store'))
    with pytest.raises(UserError, match=message):
        engine.check_without_data(cells.plan(config))


@pytest.mark.parametrize('values', [[f'{letter} ?' for letter in 'abcdefghijkl'], [f'w{n}' for n in range(72)]])
def test_texts_without_words_have_no_tfidf(tmp_path, values):
    dataset = dataclasses.replace(make_texts(len(values)), images=Texts(values))
    extract = extractor.Extractor(ablation_config(), Store(tmp_path / 'store'), tmp_path)
    with pytest.raises(
        UserError, match=r"'docstrings' has nothing for TF-IDF: no word .* in 2 of its \d+ training texts"
    ):
        extract(extractor.FrozenBackbone('tfidf', ''), dataset, lambda count: None)


def run(config, place, dataset):
    engine = Engine(config, place, lambda name: dataset, Store(place / 'store'))
    planned = cells.plan(config)
    engine.claim(planned)
    possible, _ = engine.possible(planned)
    engine.check_without_data(possible)
    engine.run(possible)
    return engine, planned


def test_a_plan_says_at_how_many_tokens_it_counts():
    config = ablation_config(datasets=('docstrings',), regimes=('ridge',), seeds=(0,), fractions=(1.0,))
    planned = cells.plan(config)
    caption = estimate.table(planned, 1, config, lambda name: make_texts()).caption
    assert 'GFLOP/text and times are for texts of 256 tokens, and shorter ones take less' in caption


@pytest.mark.parametrize(('regimes', 'trains'), [(('ridge', 'knn'), False), (('ridge', 'scratch'), True)])
def test_each_length_is_read_and_perhaps_trained_on(regimes, trains):
    config = ablation_config(datasets=('docstrings',), regimes=regimes, seeds=(0, 1), fractions=(1.0,))
    config.text_length = (16, 64)
    readers = ablate.readers(config, cells.plan(config))
    assert [(each.preprocessing.length, each.trains) for each in readers] == [(16, trains), (64, trains)]


@pytest.mark.slow
def test_lengths_are_an_axis(tmp_path):
    """What depends on them has a row for each; shots, and TF-IDF beside a backbone."""
    dataset = make_texts(longest=60)
    config = ablation_config(
        datasets=('docstrings',), backbones=(f'{NAME}@random', 'tfidf'), regimes=('knn', 'ridge'), seeds=(0,),
        fractions=(0.5, 1.0), text_length=(3, 64),
    )  # fmt: skip
    config.knn.neighbours = (1, 3)
    engine, planned = run(config, tmp_path, dataset)
    found = rows.read(tmp_path)
    # Two lengths and a baseline, two regimes, two fractions.
    assert len(found) == len(planned) == 3 * 2 * 2
    assert engine.pending(planned) == []
    scores = {
        (row.cell.variant.backbone, dict(row.cell.settings).get('text_length'), row.cell.regime): row.test
        for row in found
        if row.cell.fraction == 1
    }
    assert {key[:2] for key in scores} == {(NAME, 3), (NAME, 64), ('tfidf', None)}
    # The colour is one of the words, of which three tokens hold one letter at most.
    assert scores['tfidf', None, 'ridge']['accuracy'] > 0.85
    assert scores[NAME, 64, 'ridge']['accuracy'] > scores[NAME, 3, 'ridge']['accuracy']
    for row in found:
        assert row.costs['input'] == ([dict(row.cell.settings)['text_length']] if row.cell.settings else None)
        assert bool(row.costs['flops_per_image']) == (row.cell.variant.backbone == NAME)


@pytest.mark.exhaustive
def test_shards_make_the_table_of_the_whole(tmp_path):
    """Frozen heads, one that takes positions, and trainings, with shots."""
    dataset = make_texts(longest=28)
    config = ablation_config(
        datasets=('docstrings',), backbones=(f'{NAME}@random', 'tfidf'), regimes=('ridge', 'attentive', 'scratch'),
        seeds=(0,), fractions=(1.0,), shots=(4, 8), text_length=(16, 32),
    )  # fmt: skip
    config.attentive.steps, config.attentive.learning_rates, config.attentive.weight_decays = 5, (1e-2,), (0.0,)
    config.training.epochs, config.training.batch_size, config.training_extra_learning_rates = 1.0, 4, 0
    whole, planned = run(config, tmp_path / 'whole', dataset)
    assert whole.pending(planned) == []
    wanted = {row.cell: row.test for row in rows.read(tmp_path / 'whole')}
    # At two lengths, and two shots: two heads and a training of the backbone; and a head of the baseline.
    assert len(wanted) == 2 * (2 * 3 + 1)
    found = {}
    for number in (1, 2):
        place = tmp_path / str(number)
        engine = Engine(config, place, lambda name: dataset, Store(place / 'store'))
        part = engine.part(planned, Shard(number, 2))
        engine.claim(part, planned)
        engine.run(part)
        own = {row.cell: row.test for row in rows.read(place)}
        assert own and not own.keys() & found.keys()
        found |= own
    assert found == wanted
