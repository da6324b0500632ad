"""Pretrain one model of the matched pair on CIFAR-10's training images: the recipe of the bundled weights.

    python -m experiments.train --config configs/pretrain/cifar10.py:backbone=resnet_micro --workdir runs/pretrain/resnet_micro
    python -m experiments.train --config configs/pretrain/cifar10.py:backbone=vit_micro --workdir runs/pretrain/vit_micro

Both get the same budget, augmentation and optimizer. About 45 minutes each on 2 cores. Expect a test accuracy of
82.8 % for resnet_micro and 70.0 % for vit_micro (seed 0).
"""

from experiments.training.config import default_config


def get_config(backbone: str = 'resnet_micro'):
    config = default_config()
    config.backbone = backbone
    config.dataset = 'tfds:cifar10'
    config.regime = 'scratch'
    config.epochs = 18.0
    config.batch_size = 128
    config.optimizer = 'adamw'
    config.learning_rate = 1e-3
    config.warmup_epochs = 1.0
    config.weight_decay = 0.05
    config.label_smoothing = 0.1
    config.flip = True
    config.shift = 4
    return config
