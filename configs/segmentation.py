"""Train a segmenter on any backbone, with the same neck, head, schedule and augmentation for all.

    python -m experiments.train --config configs/segmentation.py:backbone=efficientnet_lite0,dataset=masks:PATH --workdir runs/x

Arguments: ``backbone``; ``dataset`` (``masks:PATH``, ``voc:PATH``, ``coco:PATH``, ``tfds:oxford_iiit_pet``,
``shapes``); ``regime`` (``finetune``, ``frozen``, ``partial:K``, ``lora:RANK``, or ``scratch``; docs/training.md says
what each trains); ``weights`` (a source, or ``random`` for frozen random weights; default: the backbone's published
weights); ``head`` (``fcn``, ``linear``, ``deeplabv3``, ``upernet``); ``neck`` (``fpn``, ``pan``, ``simple_pyramid``,
``none``).
"""

from experiments.ablation.cells import trained_variant
from experiments.training.config import default_config


def get_config(
    backbone: str, dataset: str, regime: str = 'finetune', weights: str = '', head: str = 'fcn', neck: str = 'fpn'
):
    config = default_config()
    config.task = 'segmentation'
    variant = trained_variant(backbone, weights, regime)
    config.backbone, config.weights = variant.backbone, variant.weights
    config.dataset = dataset
    config.regime = regime
    config.head, config.neck = head, neck
    light(config)
    if neck == 'none':
        config.neck_channels = 0
    return config


def light(config):
    """A neck and a head for small machines, and a schedule for a few hundred images."""
    config.image_size = 256
    config.stored_size = 512
    config.neck_channels = config.head_channels = 96
    config.epochs = 60.0
    config.batch_size = 8
    config.learning_rate = 1e-3
    config.weight_decay = 1e-4
    config.clip_norm = 10.0
    config.smallest_scale, config.largest_scale = 0.75, 1.75
    config.colour_jitter = 0.2
    config.evaluate_epochs = 5
    config.checkpoint_epochs = 5.0
