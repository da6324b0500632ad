"""TFDS data sets of texts, prepared as TFDS prepares them and read without TensorFlow."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_tfds_dense import write

from backbones import UserError
from experiments.data import examples_by_id, loading, record

NEWS = ('World', 'Sports')


def news(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [
        {
            'title': f'Title {number}'.encode(),
            'description': f'What happened the {number}. time, «so»'.encode(),
            'label': number % 2,
        }
        for number in range(start, start + count)
    ]


def write_news(directory: Path, splits: dict[str, list], **more: Any) -> None:
    import tensorflow_datasets as tfds

    features = {
        'title': tfds.features.Text(),
        'description': tfds.features.Text(),
        'label': tfds.features.ClassLabel(names=list(NEWS)),
        **more,
    }
    write(directory / 'agnews' / '1.0.0', 'agnews', features, splits)


def write_sentences(directory: Path, splits: dict[str, list[tuple[str, int]]], config: str = 'sst2') -> None:
    """As glue/sst2: a sentence, a label of which -1 is none, and a number."""
    import tensorflow_datasets as tfds

    features = {
        'sentence': tfds.features.Text(),
        'label': tfds.features.ClassLabel(names=['negative', 'positive']),
        'idx': tfds.features.Tensor(shape=(), dtype=np.int32),
    }
    records = {
        split: [
            {'sentence': text.encode(), 'label': label, 'idx': number} for number, (text, label) in enumerate(examples)
        ]
        for split, examples in splits.items()
    }
    write(directory / 'glue' / config / '2.0.0', 'glue', features, records)


def add_to_info(directory: Path, **values: Any) -> None:
    file = directory / 'dataset_info.json'
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


# ('description', 'label'), as TFDS writes it.
PAIR = {'tuple': {'items': [{'featureKey': 'description'}, {'featureKey': 'label'}]}}


def load(name: str, directory: Path, **values):
    return loading.load(f'tfds:{name}', directory, inputs='texts', **values)


def test_title_and_description(tmp_path):
    write_news(tmp_path, {'train': news(40), 'test': news(6, 40)})
    dataset = load('agnews', tmp_path)
    assert dataset.classes == NEWS
    assert dataset.images.values[1] == 'Title 1 What happened the 1. time, «so»'
    assert dataset.targets.tolist() == [number % 2 for number in range(46)]
    assert dataset.ids[0] == 'train/0000000'
    assert {name: len(rows) for name, rows in dataset.splits.items()} == {'train': 36, 'validation': 4, 'test': 6}
    assert 'TFDS agnews/1.0.0, title + description; official test split' in dataset.provenance
    assert dataset.account.guessed == ('the features title and description are joined by a space',)
    assert 'tensorflow' not in sys.modules


def test_texts_by_id(tmp_path):
    write_news(tmp_path, {'train': news(40), 'test': news(6, 40)})
    ids = ['test/0000002', 'train/0000001', 'test/0000099']
    found = examples_by_id.read_texts('tfds:agnews', ids, data_directory=tmp_path)
    assert found == {
        'test/0000002': 'Title 42 What happened the 42. time, «so»',
        'train/0000001': 'Title 1 What happened the 1. time, «so»',
    }
    with pytest.raises(UserError, match='tfds:nothing_like_it is not there'):
        examples_by_id.read_texts('tfds:nothing_like_it', ids, data_directory=tmp_path)


@pytest.mark.parametrize(
    ('column', 'text'),
    [('title', 'Title 1'), ('description,title', 'What happened the 1. time, «so» Title 1')],
)
def test_a_choice_of_features(tmp_path, column, text):
    write_news(tmp_path, {'train': news(40), 'test': news(6, 40)})
    dataset = load('agnews', tmp_path, text_column=column)
    assert dataset.images.values[1] == text
    assert dataset.account.guessed == ()
    with pytest.raises(
        UserError, match=r"column of tfds:agnews 'titel'; did you mean 'title'\? \(config key text_column"
    ):
        load('agnews', tmp_path, text_column='titel')


def test_a_configuration_with_hidden_test_labels(tmp_path):
    train = [(f'sentence {number} ', number % 2) for number in range(40)]
    test = [(f'hidden {number}', -1) for number in range(5)]
    write_sentences(tmp_path, {'train': train, 'validation': [('a b', 0), ('b c', 1)], 'test': test})
    dataset = load('glue/sst2', tmp_path)
    assert dataset.name == 'tfds:glue/sst2'
    assert len(dataset.ids) == 42
    assert len(dataset.splits['test']) == 2
    assert dataset.account.guessed == (
        'the test split has no labels, so it is not used (5 texts)',
        'there is no test split, so the validation split serves as one',
    )


def test_a_class_that_nothing_has(tmp_path):
    """The names of the classes are those of TFDS, whatever occurs."""
    write_sentences(tmp_path, {'train': [(f'sentence {number}', 1) for number in range(40)], 'test': [('x', 1)]})
    assert load('glue/sst2', tmp_path).classes == ('negative', 'positive')


def test_several_features_of_which_none_is_known(tmp_path):
    import tensorflow_datasets as tfds

    write_news(tmp_path, {'train': news(4)}, author=tfds.features.Text())
    with pytest.raises(UserError, match=r'several features of text \(.*author.*\); choose with --config.text_column'):
        load('agnews', tmp_path)


def test_the_feature_that_tfds_calls_the_input(tmp_path):
    """As definite_pronoun_resolution has it; what a known pair of features is joined from stays."""
    import tensorflow_datasets as tfds

    rows = [{**row, 'author': b'Somebody'} for row in news(40)]
    write_news(tmp_path, {'train': rows}, author=tfds.features.Text())
    add_to_info(tmp_path / 'agnews' / '1.0.0', supervisedKeys=PAIR)
    dataset = load('agnews', tmp_path)
    assert dataset.images.values[1] == 'What happened the 1. time, «so»'
    assert dataset.account.guessed == ('the feature description is the text, as TFDS says, not author, title',)
    assert examples_by_id.read_texts('tfds:agnews', ['train/0000001'], data_directory=tmp_path) == {
        'train/0000001': 'What happened the 1. time, «so»'
    }
    assert load('agnews', tmp_path, text_column='title').account.guessed == ()
    write_news(tmp_path / 'pair', {'train': news(40)})
    add_to_info(tmp_path / 'pair' / 'agnews' / '1.0.0', supervisedKeys=PAIR)
    assert load('agnews', tmp_path / 'pair').images.values[1] == 'Title 1 What happened the 1. time, «so»'


def test_bad_records_are_named_counted_and_skipped(tmp_path):
    records = news(40)
    records[3]['description'] = records[3]['title'] = b' '
    records[5]['title'] = b'caf\xe9'
    del records[7]['label']
    write_news(tmp_path, {'train': records, 'test': news(6, 40)})
    dataset = load('agnews', tmp_path)
    assert [name for name, _ in dataset.skipped] == ['train/0000003', 'train/0000005', 'train/0000007']
    assert dataset.skipped[0][1] == 'empty text'
    assert "can't decode byte 0xe9" in dataset.skipped[1][1]
    assert len(dataset.ids) == 43
    with pytest.raises(UserError, match=r'3 of 46 rows of .tfds:agnews. .*config key bad_files_limit'):
        load('agnews', tmp_path, bad_files_limit=2)


def test_images_where_texts_are_read_and_the_reverse(tmp_path):
    from test_loading import write_array_record_dataset

    write_array_record_dataset(tmp_path)
    write_news(tmp_path, {'train': news(4)})
    with pytest.raises(
        UserError, match="'tfds:blobs' has images, but the backbone reads texts; choose a data set of tex"
    ):
        load('blobs', tmp_path)
    with pytest.raises(
        UserError, match="'tfds:agnews' has texts, but the backbone reads images; choose a data set of i"
    ):
        loading.load('tfds:agnews', tmp_path)
    for key, value in (('text_column', 'x'), ('drop_duplicates', True)):
        with pytest.raises(
            UserError,
            match=f"'{key}' is {value!r}, but it is only for .*texts of tfds:NAME, and the data set is 'tfds:b",
        ):
            loading.load('tfds:blobs', tmp_path, **{key: value})


def test_copies_are_in_one_split(tmp_path):
    dataset = load_train(tmp_path / 'once', news(40))
    assert dataset.splits['test'].tolist() == [1, 4, 6, 15, 21, 23, 32, 34]
    assert dataset.splits['validation'].tolist() == [7, 11, 22, 24]
    assert 'split by a hash of the example id, stratified' in dataset.provenance
    dataset = load_train(tmp_path / 'twice', [*news(40), *news(40)])
    assert 'split by a hash of the text, stratified' in dataset.provenance
    assert dataset.provenance.endswith(', copies of a text together')
    for rows in dataset.splits.values():
        assert {row % 40 for row in rows if row < 40} == {row % 40 for row in rows if row >= 40}


def load_train(directory: Path, records: list):
    write_news(directory, {'train': records})
    return load('agnews', directory)


def test_repeated_texts_are_dropped_as_is_said(tmp_path):
    repeated = [*news(40), news(1)[0]]
    write_news(tmp_path, {'train': repeated, 'test': news(6, 40)})
    kept, dropped = (load('agnews', tmp_path, drop_duplicates=drop) for drop in (False, True))
    assert any('kept; --config.drop_duplicates=True drops them' in each for each in kept.account.noticed)
    both = [{*each.splits['train'], *each.splits['validation']} for each in (kept, dropped)]
    assert len(both[0] - both[1]) == 1


def test_features_without_a_class(tmp_path):
    import tensorflow_datasets as tfds

    write(tmp_path / 'plain' / '1.0.0', 'plain', {'text': tfds.features.Text()}, {'train': [{'text': b'x'}]})
    with pytest.raises(UserError, match='tfds:plain has no texts with a class; its features are text'):
        load('plain', tmp_path)


def test_changed_texts_are_named(tmp_path):
    for place, title in (('before', b'Title 4'), ('after', b'Another')):
        records = news(40)
        records[4]['title'] = title
        write_news(tmp_path / place, {'train': records, 'test': news(6, 40)})
    record.write(tmp_path / 'run', load('agnews', tmp_path / 'before'))
    with pytest.raises(UserError, match=r'1 text changed \(train/0000004\)'):
        record.check(tmp_path / 'run', load('agnews', tmp_path / 'after'))
    (file,) = (tmp_path / 'run' / 'data').glob('*.json')
    assert json.loads(file.read_text())['sizes'].startswith('46 texts of ')
