"""experiments.predict: tables, pictures, JSON; and that it sees what the training's own evaluation saw."""

import json
import re
import types

import numpy as np
import pytest
from dense_files import write_image, write_json, write_voc
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tiny_classifier import CLASSES, write_classifier

import backbones
from backbones import UserError
from backbones.prediction import class_names, drawing
from backbones.prediction.prediction import Prediction
from experiments import evaluate, predict, train
from experiments.data import loading
from experiments.prediction import model_options, splits, telling, writing
from experiments.results import rows


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    return write_classifier(tmp_path_factory.mktemp('run'))


@pytest.fixture(scope='module')
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp('photographs')
    for number in range(4):
        write_image(folder / f'{number}.png', (30 + number, 40))
    write_image(folder / 'again' / '0.png', (30, 40))
    (folder / 'damaged.jpg').write_bytes((folder / '1.png').read_bytes()[:300])
    return folder


def test_a_directory_has_a_line_for_each_image(weights, photographs, tmp_path, capsys):
    arguments = ['--workdir', weights, photographs, '--save', tmp_path / 'seen', '--json', tmp_path / 'a.jsonl']
    predict.main([str(each) for each in [*arguments, '--batch_size', 2]])
    told = capsys.readouterr()
    lines = told.out.splitlines()
    assert len(lines) == 5 and all(re.search(r'3\dx40  \w+ \d+\.\d%, \w+ \d', line) for line in lines)
    assert 'left out:' in told.err and 'damaged.jpg' in told.err and '5 images, 1 left out' in told.err
    # Two images have the same name, and both are kept.
    seen = {path.name for path in (tmp_path / 'seen').iterdir()}
    assert seen == {'0.png', '0-2.png', '1.png', '2.png', '3.png'}
    values = [json.loads(line) for line in (tmp_path / 'a.jsonl').read_text().splitlines()]
    assert [value['path'] for value in values] == [line.split('  ')[0] for line in lines]
    for value in values:
        assert sum(each['probability'] for each in value['classes']) == pytest.approx(1)


def test_one_image_has_a_table(weights, photographs, capsys):
    predict.main(['--workdir', str(weights), str(photographs / '0.png')])
    out = capsys.readouterr().out
    assert '0.png  30x40' in out and 'probability' in out and all(name in out for name in CLASSES)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['a.png'], '^name the model: --workdir DIR'),
        (['--workdir', 'x', '--model', 'resnet50', 'a.png'], '--workdir x and --model resnet50 were both given: name'),
        (['--workdir', 'x', 'a.png', '--split', 'test'], "'a.png' and --split test were both given: name the images"),
        (['--workdir', 'x', '--split', 'tset'], "unknown split 'tset'; did you mean 'test'"),
        (['--workdir', 'x', '--weights', 'y', 'a.png'], '--weights belongs to --model'),
        (['--model', 'resnet50', '--split', 'test'], '--split is of a run'),
        (['--workdir', 'x', '--classes', 'a', 'a.png'], '--classes belongs to --model'),
        (['--workdir', 'x'], '^name the images to predict'),
        (['--workdir', 'x', 'a.png', '--json', 'a.txt'], r'must end in \.jsonl .* or \.json'),
        (['--workdir', 'x', 'a.png'], "there are no weights at 'x'"),
        (
            ['--model', 'resnet5', 'a.png'],
            'neither a file .* nor the name of a model; the nearest names are resnet50',
        ),
        (['--workdir', '{weights}', '{photographs}', '--save', '{photographs}'], 'holds images that are predicted'),
        (['--workdir', '{weights}', '{photographs}', '--save', '{weights}'], 'is a file; name a directory'),
        (['--workdir', '{weights}', '{photographs}', '--json', 'a.jsonl', '--json', './a.jsonl'], 'same file twice'),
        (['--workdir', '{weights}', '~x.png'], 'none of the 1 images can be predicted'),
        (['--workdir', '{weights}', 'a' * 300 + '.png'], 'none of the 1 images can be predicted'),
        (['--workdir', '{weights}', '{photographs}', '--json', 'a.json'], 'COCO has no classes of whole images'),
        (['--workdir', '{weights}', '{photographs}/none.png'], 'none of the 1 images can be predicted'),
        (['--workdir', '{weights}', '{photographs}/*.gif'], 'no file matches'),
        (['--workdir', '{weights}', '--split', 'test'], 'no work directory of experiments.train'),
        (['--workdir', '{weights}', '{photographs}', '--score_threshold', '2'], 'score_threshold must lie'),
    ],
)
def test_a_mistake_is_one_line(arguments, message, weights, photographs):
    with pytest.raises(UserError, match=message):
        predict.main([each.format(weights=weights, photographs=photographs) for each in arguments])


def test_a_stopped_command_keeps_an_earlier_file_until_there_is_something_new(tmp_path, weights, photographs):
    file = tmp_path / 'a.jsonl'
    file.write_text('earlier')
    with pytest.raises(KeyboardInterrupt), writing.writer(file, CLASSES):
        raise KeyboardInterrupt
    assert file.read_text() == 'earlier'
    result = backbones.load(weights)(photographs / '0.png')[0]
    with pytest.raises(KeyboardInterrupt), writing.writer(file, CLASSES) as write:
        write('0.png', result)
        raise KeyboardInterrupt
    assert json.loads(file.read_text())['path'] == '0.png'
    assert [path.name for path in tmp_path.iterdir()] == ['a.jsonl']


def test_where_nothing_can_be_predicted_an_earlier_file_stays(tmp_path, weights):
    (tmp_path / 'a.jsonl').write_text('earlier')
    with pytest.raises(UserError, match='none of the 1 images'):
        predict.main(['--workdir', str(weights), str(tmp_path / 'b.png'), '--json', str(tmp_path / 'a.jsonl')])
    assert (tmp_path / 'a.jsonl').read_text() == 'earlier'


def test_pictures_never_replace_images_of_the_data_set(tmp_path, weights, monkeypatch):
    for label in CLASSES:
        for number in range(3):
            write_image(tmp_path / 'data' / label / f'{number}.png', (20, 20))
    dataset = loading.load(f'folder:{tmp_path / "data"}')
    monkeypatch.setattr(splits, 'dataset_of', lambda *_: dataset)
    before = {path: path.read_bytes() for path in (tmp_path / 'data').rglob('*.png')}
    command = ['--workdir', str(weights), '--split', 'all', '--save']
    with pytest.raises(UserError, match='holds images that are predicted'):
        predict.main([*command, str(tmp_path / 'data' / 'cat')])
    predict.main([*command, str(tmp_path / 'seen')])
    assert {path: path.read_bytes() for path in (tmp_path / 'data').rglob('*.png')} == before
    assert len(list((tmp_path / 'seen').iterdir())) == 9


def test_cocos_classes_and_images_have_their_own_numbers(photographs):
    image = np.zeros((4, 4, 3), np.uint8)
    boxes, scores = np.array([[0, 0, 2, 2]], np.float32), np.ones(1, np.float32)
    for count, index in ((91, 13), (90, 12), (80, 11)):
        names = class_names.coco(count)
        assert names[index] == 'stop sign'
        results = telling.CocoResults(names)
        for file in ('000000000139.jpg', 'x/000000000285.jpg'):
            results.add(file, Prediction(image, (4, 4), names, None, boxes, scores, np.array([index])))
        told = results.as_json()
        assert [each['id'] for each in told['images']] == [139, 285]
        assert [(each['image_id'], each['category_id']) for each in told['annotations']] == [(139, 13), (285, 13)]
        assert len(told['categories']) == 80 and told['categories'][-1] == {'id': 90, 'name': 'toothbrush'}
    results = telling.CocoResults(('cell', 'disc'))
    for file in ('7.png', 'a.png'):
        results.add(file, Prediction(image, (4, 4), ('cell', 'disc'), None, boxes, scores, np.array([1])))
    told = results.as_json()
    assert [each['id'] for each in told['images']] == [1, 2]
    assert [(each['image_id'], each['category_id']) for each in told['annotations']] == [(1, 2), (2, 2)]


class _Oracle:
    """A predictor that knows the truth of a data set, in place of ``backbones.load``'s."""

    def __init__(self, dataset, names):
        self.dataset, self.names = dataset, names
        self.model = types.SimpleNamespace(task='detection')

    def stream(self, images):
        for path in images:
            index = self.dataset.files.index(path)
            truth = self.dataset.truth.of(np.array([index]))
            labels = truth.classes[0][truth.classes[0] >= 0]
            own = np.array([self.names.index(self.dataset.classes[label]) for label in labels])
            image, boxes = np.zeros((*truth.sizes[0], 3), np.uint8), truth.boxes[0][: len(labels)]
            yield Prediction(image, tuple(truth.sizes[0].tolist()), self.names, None, boxes, np.ones(len(labels)), own)


@pytest.mark.filterwarnings('ignore:__array__ implementation')  # pycocotools with numpy 2
def test_results_can_be_compared_with_a_data_sets_own_annotations(tmp_path, monkeypatch, capsys):
    categories = [{'id': 40, 'name': 'disc'}, {'id': 7, 'name': 'cell'}]
    rng = np.random.default_rng(0)
    for split, count in (('train', 4), ('val', 3)):
        found = {'images': [], 'annotations': [], 'categories': categories}
        for number in range(count):
            name, image = f'{split}_{number}.png', 500 - 7 * number  # the same ids in both files
            write_image(tmp_path / 'data' / split / name, (60, 50))
            found['images'].append({'id': image, 'file_name': name, 'width': 60, 'height': 50})
            for _ in range(2):
                left, top, width, height = rng.integers(4, 25, 4).tolist()
                common = {'id': len(found['annotations']) + 1, 'image_id': image, 'iscrowd': 0, 'area': width * height}
                label = categories[rng.integers(2)]['id']
                found['annotations'].append({**common, 'category_id': label, 'bbox': [left, top, width, height]})
        write_json(tmp_path / 'data' / 'annotations' / f'instances_{split}.json', found)
    dataset = loading.load(f'coco:{tmp_path / "data"}', truth='boxes')
    monkeypatch.setattr(splits, 'dataset_of', lambda *_: dataset)
    oracle = _Oracle(dataset, ('novel', 'disc', 'cell'))
    monkeypatch.setattr(model_options, 'load', lambda *_: oracle)
    predict.main(['--workdir', 'x', '--split', 'test', '--json', str(tmp_path / 'found.json')])
    told = json.loads((tmp_path / 'found.json').read_text())
    assert told['images'][1] == {'id': 493, 'file_name': 'val_1.png', 'height': 50, 'width': 60}
    assert told['categories'] == [{'id': 40, 'name': 'disc'}, {'id': 7, 'name': 'cell'}]
    truth = COCO(str(tmp_path / 'data' / 'annotations' / 'instances_val.json'))
    evaluation = COCOeval(truth, truth.loadRes(told['annotations']), 'bbox')
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == 1
    # Ids of both files together would mean two images each.
    predict.main(['--workdir', 'x', '--split', 'all', '--json', str(tmp_path / 'all.json')])
    images = json.loads((tmp_path / 'all.json').read_text())['images']
    assert [each['id'] for each in images] == list(range(1, 8)) and images[0]['file_name'] == 'train/train_0.png'


@pytest.mark.parametrize('place', ['file', 'path'])
def test_images_of_a_yaml_file_are_found(tmp_path, place):
    for split, name in (('train', 'a'), ('train', 'b'), ('val', 'c')):
        write_image(tmp_path / 'data' / 'images' / split / f'{name}.png', (700, 500))
        (tmp_path / 'data' / 'labels' / split).mkdir(parents=True, exist_ok=True)
        (tmp_path / 'data' / 'labels' / split / f'{name}.txt').write_text('0 0.5 0.5 0.5 0.5\n')
    root = tmp_path / 'data' if place == 'file' else tmp_path / 'elsewhere'
    root.mkdir(exist_ok=True)
    (root / 'data.yaml').write_text(f'path: {tmp_path / "data"}\ntrain: images/train\nval: images/val\nnames: [cell]\n')
    dataset = loading.load(f'yolo:{root / "data.yaml"}', truth='boxes')
    assert dataset.stored_size is not None
    found = list(splits.images(dataset, dataset.splits['test']))
    assert found == [tmp_path / 'data' / 'images' / 'val' / 'c.png']


def test_a_picture_that_is_too_large_for_its_format_is_a_png(tmp_path):
    pictures = writing.Pictures(tmp_path)
    for width in (16_383, 16_384):
        pictures.save('wide.webp', Image.new('RGB', (width, 1)))
    assert {path.name for path in tmp_path.iterdir()} == {'wide.webp', 'wide.png'}


@pytest.mark.slow
@pytest.mark.parametrize('sizes', ['one size', pytest.param('several sizes', marks=pytest.mark.exhaustive)])
def test_a_run_predicts_what_its_evaluation_saw(tmp_path, sizes, capsys):
    rng = np.random.default_rng(0)
    annotations = {}
    for number in range(12):
        left, top = rng.integers(0, 12, 2)
        annotations[f'{number:02d}'] = [('cell', left + 1, top + 1, left + 12, top + 10)]
    names = list(annotations)
    write_voc(tmp_path / 'voc', annotations, {'train': names[:8], 'val': names[8:]})
    if sizes == 'several sizes':
        write_image(tmp_path / 'voc' / 'JPEGImages' / '09.png', (50, 24))
        file = tmp_path / 'voc' / 'Annotations' / '09.xml'
        file.write_text(file.read_text().replace('<width>40<', '<width>50<').replace('<height>30<', '<height>24<'))
    run = tmp_path / 'run'
    values = {
        'image_size': 32, 'stored_size': 40, 'strides': '(4, 8)', 'neck_channels': 8, 'head_depth': 1, 'epochs': 2,
        'batch_size': 4, 'score_threshold': 0.001, 'max_detections': 20, 'warmup_epochs': 0, 'threads': 1,
    }  # fmt: skip
    config = f'configs/detection.py:backbone=resnet_micro,dataset=voc:{tmp_path / "voc"},regime=frozen'
    train.main(
        ['--config', config, '--workdir', str(run), *(f'--config.{key}={value}' for key, value in values.items())]
    )
    capsys.readouterr()
    arguments = ['--workdir', str(run), '--split', 'test', '--score_threshold', '0', '--save', str(tmp_path / 'seen')]
    predict.main([*arguments, '--json', str(tmp_path / 'a.jsonl'), '--json', str(tmp_path / 'a.json')])
    told = [json.loads(line) for line in (tmp_path / 'a.jsonl').read_text().splitlines()]
    coco = json.loads((tmp_path / 'a.json').read_text())
    with np.load(run / 'predictions' / 'test.npz') as arrays:
        kept = dict(arrays)
    assert [value['path'] for value in told] == kept['ids'].tolist() and len(told) == 4
    for number, value in enumerate(told):
        there = kept['found'][number]
        assert there.any() and len(value['objects']) == there.sum()
        boxes, scores = ([each[key] for each in value['objects']] for key in ('box', 'score'))
        # A grey level of a pixel may be rounded otherwise on the way to the input; equal scores have no order.
        theirs = np.c_[kept['boxes'][number][there], 100 * kept['scores'][number][there]]
        apart = np.abs(np.c_[boxes, 100 * np.array(scores)][:, None] - theirs).max(-1)
        assert apart.min(0).max() < 0.2 and apart.min(1).max() < 0.2
        annotated = [each['bbox'] for each in coco['annotations'] if each['image_id'] == 8 + number]
        np.testing.assert_allclose(annotated, [[a, b, c - a, d - b] for a, b, c, d in boxes], atol=1e-4)
    evaluate.main(['--workdir', str(run), '--json', str(tmp_path / 'metrics.json')])
    metrics = json.loads((tmp_path / 'metrics.json').read_text())['metrics']
    (row,) = rows.read(run)
    assert metrics['AP'] == pytest.approx(row.test['AP'], abs=0.03) and metrics.keys() >= {'AP50', 'AP/cell'}
    with Image.open(tmp_path / 'seen' / '08.png') as picture:
        assert picture.width > 2 * 40 * drawing.enlargement((30, 40))
