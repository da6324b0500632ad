"""Train a detector on any backbone, with the same neck, head, schedule and augmentation for all.

    python -m experiments.train --config configs/detection.py:backbone=efficientnet_lite0,dataset=voc:PATH --workdir runs/x

Arguments: ``backbone``; ``dataset`` (``voc:PATH``, ``coco:PATH``, ``yolo:PATH``, ``tfds:voc/2007``, ``shapes``);
``regime`` (``finetune``, ``frozen``, ``partial:K``, ``lora:RANK``, or ``scratch``; docs/training.md says what each
trains); ``weights`` (a source, or ``random`` for frozen random weights; default: the backbone's published weights);
``head`` (``fcos``, ``retinanet``, ``faster_rcnn``, ``yolo``, ``yolo11``); ``neck`` (``fpn``, ``pan``, ``simple_pyramid``,
``yolo_pan``; with ``faster_rcnn`` also ``none``).
"""

from experiments.ablation.cells import trained_variant
from experiments.training.config import default_config


def get_config(
    backbone: str, dataset: str, regime: str = 'finetune', weights: str = '', head: str = 'fcos', neck: str = 'fpn'
):
    config = default_config()
    config.task = 'detection'
    variant = trained_variant(backbone, weights, regime)
    config.backbone, config.weights = variant.backbone, variant.weights
    config.dataset = dataset
    config.regime = regime
    config.head, config.neck = head, neck
    light(config)
    if neck == 'none':
        config.head_channels, config.neck_channels = config.neck_channels, 0
    return config


def light(config):
    """A neck and a head for small machines, and a schedule for a few hundred images."""
    config.image_size = 320
    config.stored_size = 640
    config.neck_channels = 96
    config.head_depth = 2
    config.epochs = 60.0
    config.batch_size = 8
    config.learning_rate = 1e-3
    config.weight_decay = 1e-4
    config.clip_norm = 10.0
    config.smallest_scale, config.largest_scale = 0.6, 1.4
    config.colour_jitter = 0.2
    config.evaluate_epochs = 5
    config.checkpoint_epochs = 5.0
