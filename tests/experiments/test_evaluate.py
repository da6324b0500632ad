"""experiments.evaluate: classes matched by name, every metric of a task, and mistakes."""

import json

import numpy as np
import pytest
import sklearn.metrics
from dense_files import write_image
from tiny_classifier import CLASSES, write_classifier

import backbones
from backbones import UserError
from backbones.prediction import class_names
from experiments import evaluate
from experiments.prediction import class_matching
from experiments.results import classification_metrics


def test_classes_are_matched_by_name_id_or_number():
    np.testing.assert_array_equal(class_matching.match(('a', 'b', 'c'), ('c', 'a')), [1, -1, 0])
    np.testing.assert_array_equal(
        class_matching.match(('__background__', 'Hot dog'), ('background', 'hot_dog')), [0, 1]
    )
    np.testing.assert_array_equal(class_matching.match(('a', 'b', 'c'), ('2', '0')), [1, -1, 0])
    ids = class_names.imagenet_wordnet_ids()
    found = class_matching.match(class_names.imagenet(), (ids[5], ids[980]))
    assert found[5] == 0 and found[980] == 1 and (found >= 0).sum() == 2
    np.testing.assert_array_equal(class_matching.match(class_names.imagenet(), ids), np.arange(1000))


def test_names_that_are_alike_are_kept_apart():
    for names in (('C', 'C++', 'C#'), ('+', '-'), ('-1', '1'), ('maillot', 'maillot'), ('1', '2', '3')):
        np.testing.assert_array_equal(class_matching.match(names, names), np.arange(len(names)))
    np.testing.assert_array_equal(class_matching.match(('C', 'C++', 'C#'), ('C#', 'C')), [1, -1, 0])
    with pytest.raises(UserError, match=r'1 of the 3 classes .*: 0'):
        class_matching.match(('1', '2', '3'), ('0', '1', '2'))
    with pytest.raises(UserError, match='red_cell, RedCell of the data set would be one class'):
        class_matching.match(('red cell', 'white cell'), ('red_cell', 'RedCell'))


def test_classes_that_the_model_does_not_have_are_named():
    with pytest.raises(UserError, match=r'2 of the 3 classes .*dgo, fish; the nearest are dog'):
        class_matching.match(CLASSES, ('cat', 'dgo', 'fish'))


def test_metrics_of_classification_are_scikit_learns():
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 3, 200)
    logits = rng.normal(size=(200, 8))
    logits[np.arange(200), targets] += 1.5
    found = classification_metrics.metrics(logits, targets, CLASSES)
    predicted = logits.argmax(-1)
    assert found['accuracy'] == np.mean(predicted == targets)
    assert found['top5_accuracy'] == sklearn.metrics.top_k_accuracy_score(targets, logits, k=5, labels=range(8))
    matrix = sklearn.metrics.confusion_matrix(targets, predicted, labels=range(8))
    recalls = [matrix[index, index] / matrix[index].sum() for index in range(3)]
    precisions = [matrix[index, index] / matrix[:, index].sum() for index in range(3)]
    assert found['balanced_accuracy'] == pytest.approx(np.mean(recalls))
    for index, name in enumerate(CLASSES):
        assert found[f'recall/{name}'] == pytest.approx(recalls[index])
        assert found[f'precision/{name}'] == pytest.approx(precisions[index])
    assert 'top5_accuracy' not in classification_metrics.metrics(logits[:, :3], targets, CLASSES)


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    return write_classifier(tmp_path_factory.mktemp('run'))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp('photographs')
    for name in ('dog', 'cat'):
        for number in range(6):
            write_image(root / name / f'{number}.png', (32, 32), seed=len(name) + number)
    return root


def test_a_folder_is_evaluated(weights, folder, tmp_path, capsys):
    command = ['--workdir', str(weights), '--dataset', f'folder:{folder}', '--split', 'all']
    evaluate.main([*command, '--json', str(tmp_path / 'a.json')])
    out = capsys.readouterr().out
    result = json.loads((tmp_path / 'a.json').read_text())
    predictor = backbones.load(weights)
    right = [predictor.names[each.probabilities.argmax()] in each.path for each in predictor(folder)]
    assert result['metrics']['accuracy'] == np.mean(right) and result['examples'] == 12
    assert 'all, 12 images' in out and 'balanced_accuracy' in out and 'recall' in out
    assert result['metrics'].keys() >= {'recall/cat', 'precision/dog'} and 'recall/newt' not in result['metrics']


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ([], 'name the model'),
        (['--model', 'resnet_micro'], 'name one with --dataset'),
        (['--workdir', '{weights}', '--ignore_label', '3'], "a run's own data set is read as the run read it"),
        (['--workdir', '{weights}'], 'no work directory of experiments.train'),
        (['--workdir', '{weights}', '--dataset', 'folder:{folder}', '--split', 'tets'], "unknown split 'tets'.*test"),
        (['--workdir', '{weights}', '--dataset', 'digits'], 'classes of the data set are not classes of the model'),
        (['--workdir', '{weights}', '--dataset', 'voc:{folder}'], 'has boxes'),
    ],
)
def test_a_mistake_is_one_line(arguments, message, weights, folder):
    with pytest.raises(UserError, match=message):
        evaluate.main([each.format(weights=weights, folder=folder) for each in arguments])
