"""A detector and a segmenter of either family learn eight images by heart: loss, assignment and decoding agree."""

import dataclasses

import numpy as np
import pytest
from tiny_dense import dense_config, make_dense

from experiments.data.dataset import Dataset
from experiments.data.truth import Boxes
from experiments.training import loop
from experiments.training.session import Session

# One of each task in every run of CI, the others in rotation.
CHEAPEST = ('detection', 'resnet_micro', 'fcos')
OTHERS = [
    ('segmentation', 'vit_micro', 'fcn'),
    ('segmentation', 'resnet_micro', 'fcn'),
    ('detection', 'vit_micro', 'fcos'),
    ('detection', 'yolo26n', 'yolo'),
    ('detection', 'resnet_micro', 'faster_rcnn'),
    ('detection', 'vit_micro', 'retinanet'),
    ('detection', 'resnet_micro', 'yolo'),
]

# Epochs of what learns sooner than the others.
SOONER = {('detection', 'resnet_micro', 'fcos'): 100.0}


def clear(task: str) -> Dataset:
    """The eight of 64 images whose smallest object is largest: at 64 pixels, others have outlines and little else."""
    splits, size, objects = (64, 1, 1), 64, (1, 4)
    boxes = make_dense('detection', splits, size, objects=objects).truth
    assert isinstance(boxes, Boxes)
    smallest = np.where(boxes.classes < 0, np.inf, boxes.area).min(1)
    smallest[(boxes.classes < 0).all(1)] = 0
    chosen = np.sort(np.argsort(-smallest[:64], kind='stable')[:8])
    data = make_dense(task, splits, size, objects=objects)
    return dataclasses.replace(data, splits=dict.fromkeys(data.splits, chosen))


@pytest.mark.parametrize(
    ('task', 'backbone', 'head'),
    [pytest.param(*CHEAPEST, marks=pytest.mark.slow)]
    + [pytest.param(*case, marks=pytest.mark.exhaustive) for case in OTHERS],
)
def test_eight_images_are_learned_by_heart(tmp_path, task, backbone, head):
    data, epochs = clear(task), SOONER.get((task, backbone, head), 140.0)
    config = dense_config(
        task, backbone, 'finetune', head=head, image_size=64, neck_channels=48, head_channels=48,
        strides=(4, 8, 16) if task == 'detection' else (2, 4, 8), epochs=epochs, warmup_epochs=10.0,
        learning_rate=1e-3 if task == 'detection' else 2e-3, weight_decay=0.0, clip_norm=10.0, flip=False,
        evaluate_epochs=int(epochs), checkpoint_epochs=epochs,
    )  # fmt: skip
    if head == 'faster_rcnn':
        # Its second stage sees 512 boxes of every image.
        config.neck_channels = config.head_channels = 32
    elif task == 'detection':
        config.head_depth = 2
    if head == 'yolo':
        config.neck, config.neck_channels = 'yolo_pan', 32  # of the finest level
        config.strides, config.learning_rate = (4, 8), 2e-3
    if backbone == 'yolo26n':
        # Its BatchNorms move by 3 % in a step, and none of its weights come with this repository.
        config.regime, config.weights, config.epochs = 'scratch', '', 320.0
    trained = loop.run(Session(config, data, tmp_path), tables=False)
    metrics = trained.evaluate('test').metrics
    print({name: round(value, 4) for name, value in metrics.items() if '/' not in name})
    assert metrics['AP50' if task == 'detection' else 'mIoU'] >= 0.95
