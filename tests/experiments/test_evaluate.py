"""experiments.evaluate: classes matched by name, every metric of a task, and mistakes."""

import dataclasses
import json
import re
import types

import numpy as np
import pytest
import scipy.special
import sklearn.metrics
from dense_files import write_image
from PIL import Image
from tiny_classifier import CLASSES, write_classifier
from tiny_dense import make_dense

import backbones
from backbones import UserError
from backbones.prediction import class_names
from backbones.prediction.prediction import Prediction
from experiments import evaluate, tasks
from experiments.data import contents, loading
from experiments.data.truth import IGNORE
from experiments.prediction import class_matching
from experiments.prediction.evaluation import _together as together
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


def test_a_class_of_which_nothing_is_evaluated_need_not_be_the_models():
    needed = np.array([True, False, True])
    np.testing.assert_array_equal(class_matching.match(CLASSES, ('newt', 'yak', 'Cat'), needed), [2, -1, 0])
    with pytest.raises(UserError, match=r'1 of the 3 classes of the data set is not a class of the model: emu\W'):
        class_matching.match(CLASSES, ('emu', 'yak', 'cat'), needed)
    with pytest.raises(UserError, match=r'2 of the 2 classes .* are not classes of the model: emu, yak'):
        class_matching.match(CLASSES, ('emu', 'yak'), np.zeros(2, bool))


@pytest.mark.parametrize('name', ['classification', 'detection', 'segmentation'])
def test_what_classes_are_evaluated(name):
    if name == 'classification':
        dataset = loading.load('digits')
        wanted = [{int(dataset.targets[index])} for index in range(4)]
    else:
        dataset = make_dense(name)
        there = dataset.truth.classes if name == 'detection' else dataset.images[:, ..., 3]
        wanted = [set(there[index].ravel().tolist()) - {-1, IGNORE} for index in range(4)]
    for index in range(4):
        assert set(np.flatnonzero(contents.present(dataset, np.array([index]))).tolist()) == wanted[index]


def test_logits_of_classes_that_the_model_does_not_have():
    dataset = types.SimpleNamespace(classes=('newt', 'yak', 'cat'))
    result = Prediction(np.zeros((4, 4, 3), np.uint8), (4, 4), CLASSES, np.array([0.2, 0.3, 0.5], np.float32))
    kept = tasks.find('classification').kept(result, dataset, 0, np.array([2, -1, 0]))
    np.testing.assert_allclose(np.exp(kept['logits']), [0.5, 0, 0.2, 0.3], rtol=1e-6)
    logits = np.repeat(np.r_[-np.inf, np.arange(5)][None], 2, 0)
    assert 'top5_accuracy' not in classification_metrics.metrics(logits, np.array([1, 2]), tuple('abcdef'))


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
    few = classification_metrics.metrics(logits[:, :3], targets, CLASSES)
    assert 'top5_accuracy' not in few
    shares = scipy.special.softmax(logits[:, :3], -1)
    assert few['auroc'] == pytest.approx(sklearn.metrics.roc_auc_score(targets, shares, multi_class='ovr'))
    two = targets < 2
    difference = logits[two, 1] - logits[two, 0]
    shares = scipy.special.softmax(logits[two, :2], -1)
    binary = classification_metrics.metrics(shares, targets[two], CLASSES, 'probabilities')
    assert binary['auroc'] == pytest.approx(sklearn.metrics.roc_auc_score(targets[two], difference))


def test_equal_scores_share_their_place_in_the_area_under_the_curve():
    rng = np.random.default_rng(1)
    targets, scores = rng.integers(0, 3, 90), rng.integers(0, 4, (90, 3)) / 4
    areas = classification_metrics.areas_under_roc(scores, targets, np.arange(3))
    expected = [sklearn.metrics.roc_auc_score(targets == index, scores[:, index]) for index in range(3)]
    np.testing.assert_allclose(areas, expected, rtol=1e-12)


def test_a_mask_that_is_right_is_all_right():
    dataset = make_dense('segmentation')
    task, truth = tasks.find('segmentation'), dataset.images[0, ..., 3]
    order = np.roll(np.arange(len(dataset.classes)), 1)  # the model counts its classes otherwise
    mask = np.argsort(order)[np.where(truth == IGNORE, 0, truth)]
    result = Prediction(dataset.images[0, ..., :3], truth.shape, dataset.classes, mask=mask)
    kept = task.kept(result, dataset, 0, order)
    targets = dataset.targets_of(np.array([0]))
    metrics = task.every_metric({'confusion': kept['confusion'][None]}, targets, dataset.classes)
    assert metrics['pixel_accuracy'] == pytest.approx(1)
    with pytest.raises(UserError, match='a pixel of another class has no place'):
        task.kept(result, dataset, 0, np.where(order == 1, -1, order))


@pytest.mark.parametrize('pixels', ['stored', 'own'])
def test_boxes_that_are_right_are_all_right(pixels):
    """Found in the images as they are stored, or in their own pixels."""
    dataset = make_dense('detection', objects=(3, 3))
    truth = dataset.truth
    sizes = np.full_like(truth.sizes, 64) * [1, 2]
    truth = dataclasses.replace(truth, boxes=truth.boxes * np.array([4, 2, 4, 2], np.float32), sizes=sizes)
    dataset = dataclasses.replace(dataset, truth=truth, stored_size=(32, 32))
    task, indices = tasks.find('detection'), np.arange(4)
    kept = []
    for index in indices:
        there = truth.classes[index] >= 0
        boxes = truth.boxes[index][there] if pixels == 'own' else truth.of(np.array([index])).stored((32, 32))[0][there]
        size = (64, 128) if pixels == 'own' else (32, 32)
        image = np.zeros((*size, 3), np.uint8)
        scores, classes = np.linspace(0.9, 0.5, len(boxes)), truth.classes[index][there]
        result = Prediction(image, size, dataset.classes, None, boxes, scores, classes)
        kept.append(task.kept(result, dataset, index, np.arange(len(dataset.classes))))
    metrics = task.every_metric(together(kept), dataset.targets_of(indices), dataset.classes)
    assert metrics['AP'] == pytest.approx(1)


def test_what_could_not_be_guessed_is_said(weights, folder, tmp_path, capsys):
    numbered = tmp_path / 'numbered'
    for index in range(2):
        for number in range(3):
            write_image(numbered / str(index) / f'{number}.png', (32, 32))
    evaluate.main(['--workdir', str(weights), '--dataset', f'folder:{numbered}', '--split', 'all'])
    assert 'classes are matched by their numbers: 0 is cat, and so on' in capsys.readouterr().err
    evaluate.main(['--workdir', str(weights), '--dataset', f'folder:{folder}', '--split', 'all'])
    assert 'matched by their numbers' not in capsys.readouterr().err


def test_a_class_without_images_in_the_split_is_ignored(weights, tmp_path, capsys):
    for split, names in (('train', ('cat', 'dog', 'yak')), ('val', ('cat', 'dog', 'yak')), ('test', ('cat', 'dog'))):
        for name in names:
            for number in range(3):
                write_image(tmp_path / split / name / f'{number}.png', (32, 32), seed=len(split) + number)
    (tmp_path / 'test' / 'yak').mkdir()
    command = ['--workdir', str(weights), '--dataset', f'folder:{tmp_path}']
    evaluate.main([*command, '--json', str(tmp_path / 'metrics.json')])
    told = capsys.readouterr()
    assert 'ignored, as the model lacks it and nothing of it is in test: yak' in told.err and 'yak' not in told.out
    assert re.search(r'^splits +\S', told.err, re.MULTILINE)
    metrics = json.loads((tmp_path / 'metrics.json').read_text())['metrics']
    predictor = backbones.load(weights)
    right = [predictor.names[each.probabilities.argmax()] in each.path for each in predictor(tmp_path / 'test')]
    assert metrics['accuracy'] == np.mean(right)
    with pytest.raises(UserError, match=r'1 of the 3 classes of the data set is not a class of the model: yak'):
        evaluate.main([*command, '--split', 'all'])


def test_what_was_left_out_and_guessed_is_said(weights, tmp_path, capsys):
    for name in CLASSES:
        for number in range(5):
            write_image(tmp_path / 'train' / name / f'{number}.png', (32, 32), seed=number)
        write_image(tmp_path / 'val' / name / '9.png', (32, 32), seed=9)
    (tmp_path / 'val' / 'cat' / 'broken.png').write_bytes(b'no image')
    evaluate.main(['--workdir', str(weights), '--dataset', f'folder:{tmp_path}'])
    told = capsys.readouterr().err
    assert re.search(r'^left out +.*broken\.png', told, re.MULTILINE)
    assert re.search(r'^guessed +there is no test split, so the validation folder serves as one', told, re.MULTILINE)
    assert 'stored ' not in told and 'images without' not in told


def test_deep_grey_images_are_read_in_the_range_of_the_data_set(weights, tmp_path, capsys):
    for name in CLASSES[:2]:
        for number in range(3):
            file = tmp_path / 'deep' / name / f'{number}.png'
            file.parent.mkdir(parents=True, exist_ok=True)
            values = np.random.default_rng(number).integers(0, 4096, (32, 32), np.uint16)
            Image.fromarray(values).save(file)
    evaluate.main(['--workdir', str(weights), '--dataset', f'folder:{tmp_path / "deep"}', '--split', 'all'])
    assert 'all, 6 images' in capsys.readouterr().out


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
        (['--workdir', '{weights}', '--dataset', 'digits', '--json', '{folder}'], 'is a directory; name a file'),
        (['--workdir', 'x', '--dataset', 'folder:none', '--split', 'tets'], "unknown split 'tets'.*test"),
        (['--workdir', '{weights}', '--dataset', 'digits'], 'classes of the data set are not classes of the model'),
        (
            ['--workdir', '{weights}', '--dataset', 'voc:{folder}'],
            r'has boxes and masks, but the model needs a class for each image; name a data set with .*\)$',
        ),
    ],
)
def test_a_mistake_is_one_line(arguments, message, weights, folder):
    with pytest.raises(UserError, match=message):
        evaluate.main([each.format(weights=weights, folder=folder) for each in arguments])
