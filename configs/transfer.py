"""Transfer a pretrained backbone to a data set: train a head on it, or all of it, with augmentation.

    python -m experiments.train --config configs/transfer.py:backbone=efficientnet_lite0,dataset=folder:PATH,regime=linear --workdir runs/x

Arguments: ``backbone``; ``dataset`` (``folder:PATH``, ``tfds:NAME``, ``mnist5k``, ``digits``); ``regime`` (``linear``
or ``finetune``); ``weights`` (a source; without it the backbone's published weights).
"""

from experiments.ablation.cells import parse_variant
from experiments.training.config import default_config


def get_config(backbone: str, dataset: str, regime: str = 'linear', weights: str = ''):
    config = default_config()
    config.backbone = backbone
    config.weights = weights or parse_variant(backbone).weights
    config.dataset = dataset
    config.regime = regime
    config.epochs = 10.0
    config.learning_rate = 3e-3 if regime == 'linear' else 3e-4
    return config
