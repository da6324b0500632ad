"""The demonstration: one picture, and that the weights behind it are worth looking at."""

import numpy as np
import pytest
from PIL import Image

import backbones
from backbones import UserError
from experiments import demo, tasks
from experiments.commands.demo import DETECTOR, SEGMENTER
from experiments.data import shapes


def test_one_picture_shows_the_truth_and_what_is_seen(tmp_path, capsys):
    file = tmp_path / 'seen' / 'shapes.png'
    demo.main(['--images', '3', '--save', str(file)])
    told = capsys.readouterr()
    assert [line.split('  ')[0] for line in told.out.splitlines()] == ['image 1', 'image 2', 'image 3']
    assert all('128x128' in line for line in told.out.splitlines())
    assert str(file) in told.err
    with Image.open(file) as picture:
        # Two rows of two pairs, of which the last has one.
        assert picture.width >= 4 * 3 * 128 and picture.height >= 2 * 3 * 128


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--seed', '-1'], '--seed must be from 0'),
        (['--seed', str(2**32)], '--seed must be from 0'),
        (['--save', 'picture.jpg'], 'must end in .png'),
    ],
)
def test_a_mistake_is_one_line(arguments, message):
    with pytest.raises(UserError, match=message):
        demo.main(arguments)


@pytest.mark.slow
def test_the_weights_see_new_shapes():
    made = shapes.generate(40, seed=2)
    detections = backbones.load(DETECTOR, score_threshold=0.01)(list(made.images))
    most = max(len(each.scores) for each in detections)
    found = {
        'boxes': np.zeros((40, most, 4), np.float32),
        'scores': np.zeros((40, most), np.float32),
        'labels': np.zeros((40, most), np.int32),
        'found': np.zeros((40, most), bool),
    }
    for row, each in enumerate(detections):
        number = len(each.scores)
        for name, value in (('boxes', each.boxes), ('scores', each.scores), ('labels', each.classes), ('found', True)):
            found[name][row, :number] = value
    metrics = tasks.find('detection').score(found, made.boxes, shapes.CLASSES)
    assert metrics['AP50'] > 0.75
    masks = np.stack([each.mask for each in backbones.load(SEGMENTER)(list(made.images))])
    assert (masks == made.masks)[made.masks != 255].mean() > 0.75
