"""experiments.predict: tables, pictures, JSON; and that it sees what the training's own evaluation saw."""

import json
import re

import numpy as np
import pytest
from dense_files import write_image, write_voc
from PIL import Image
from tiny_classifier import CLASSES, write_classifier

import backbones
from backbones import UserError
from backbones.prediction import drawing
from experiments import evaluate, predict, train
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
        (['a.png'], 'name the model: --workdir DIR'),
        (['--workdir', 'x', '--model', 'resnet50', 'a.png'], 'name the model'),
        (['--workdir', 'x', '--weights', 'y', 'a.png'], '--weights belongs to --model'),
        (['--model', 'resnet50', '--split', 'test'], '--split is of a run'),
        (['--workdir', 'x'], 'name the images to predict'),
        (['--workdir', 'x', 'a.png', '--json', 'a.txt'], r'must end in \.jsonl .* or \.json'),
        (['--workdir', 'x', 'a.png'], "there are no weights at 'x'"),
        (['--model', 'resnet5', 'a.png'], "unknown model 'resnet5'.*resnet50"),
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
    with pytest.raises(KeyboardInterrupt), predict._writer(file, CLASSES):
        raise KeyboardInterrupt
    assert file.read_text() == 'earlier'
    result = backbones.load(weights)(photographs / '0.png')[0]
    with pytest.raises(KeyboardInterrupt), predict._writer(file, CLASSES) as write:
        write('0.png', result)
        raise KeyboardInterrupt
    assert json.loads(file.read_text())['path'] == '0.png'
    assert [path.name for path in tmp_path.iterdir()] == ['a.jsonl']


def test_a_picture_that_is_too_large_for_its_format_is_a_png(tmp_path):
    pictures = predict._Pictures(tmp_path)
    for width in (16_383, 16_384):
        pictures.save('wide.webp', Image.new('RGB', (width, 1)))
    assert {path.name for path in tmp_path.iterdir()} == {'wide.webp', 'wide.png'}


@pytest.mark.slow
@pytest.mark.parametrize('sizes', ['one size', 'several sizes'])
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
        annotated = [each['bbox'] for each in coco['annotations'] if each['image_id'] == number + 1]
        np.testing.assert_allclose(annotated, [[a, b, c - a, d - b] for a, b, c, d in boxes], atol=1e-4)
    evaluate.main(['--workdir', str(run), '--json', str(tmp_path / 'metrics.json')])
    metrics = json.loads((tmp_path / 'metrics.json').read_text())['metrics']
    (row,) = rows.read(run)
    assert metrics['AP'] == pytest.approx(row.test['AP'], abs=0.03) and metrics.keys() >= {'AP50', 'AP/cell'}
    with Image.open(tmp_path / 'seen' / '08.png') as picture:
        assert picture.width > 2 * 40 * drawing.enlargement((30, 40))
