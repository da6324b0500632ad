"""A detector and a segmenter of either family learn eight images by heart: loss, assignment and decoding agree."""

import dataclasses

import pytest
from tiny_dense import dense_config, make_dense

from experiments.training import loop
from experiments.training.session import Session

CASES = [
    ('segmentation', 'resnet_micro', 'fcn'),
    ('segmentation', 'vit_micro', 'fcn'),
    ('detection', 'resnet_micro', 'fcos'),
    ('detection', 'vit_micro', 'fcos'),
]


@pytest.mark.parametrize(
    ('task', 'backbone', 'head'),
    [pytest.param(*case, marks=pytest.mark.slow) for case in CASES]
    + [pytest.param('detection', 'vit_micro', 'retinanet', marks=pytest.mark.exhaustive)],
)
def test_eight_images_are_learned_by_heart(tmp_path, task, backbone, head):
    data = make_dense(task, splits=(8, 8, 8), size=64)
    few = data.splits['train']
    data = dataclasses.replace(data, splits=dict.fromkeys(data.splits, few))
    config = dense_config(
        task, backbone, 'finetune', head=head, image_size=64, strides=(4, 8, 16), neck_channels=48, head_channels=48,
        epochs=150.0, warmup_epochs=10.0, learning_rate=2e-3, weight_decay=0.0, clip_norm=10.0, flip=False,
        evaluate_epochs=150, checkpoint_epochs=150.0,
    )  # fmt: skip
    if task == 'detection':
        config.head_depth = 2
    trained = loop.run(Session(config, data, tmp_path), tables=False)
    metrics = trained.evaluate('test').metrics
    print({name: round(value, 4) for name, value in metrics.items() if '/' not in name})
    assert metrics['AP50' if task == 'detection' else 'mIoU'] >= 0.95
