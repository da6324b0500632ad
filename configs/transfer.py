"""Transfer a pretrained backbone to a data set: train a head on it, part of it, or all of it, with augmentation.

    python -m experiments.train --config configs/transfer.py:backbone=efficientnet_lite0,dataset=folder:PATH,regime=linear --workdir runs/x

Arguments: ``backbone`` (of images or of texts, alone or as ``NAME@WEIGHTS``); ``dataset`` (``folder:PATH``,
``tfds:NAME``, ``mnist5k``, ``digits``; of texts ``csv:PATH``, ``jsonl:PATH``, ``docstrings``); ``regime`` (``linear``,
``partial:K``, ``lpft``, ``finetune``, ``bitfit``, ``lora:RANK``, or ``scratch`` for comparison; docs/training.md says
what each trains); ``weights`` (a source; default: the backbone's published weights).
"""

from experiments.ablation.cells import trained_variant
from experiments.training.config import default_config

# The fewer parameters train, the higher their learning rate may be.
LEARNING_RATES = {'linear': 3e-3, 'bitfit': 1e-3, 'lora': 1e-3, 'scratch': 1e-3}


def get_config(backbone: str, dataset: str, regime: str = 'linear', weights: str = ''):
    config = default_config()
    variant = trained_variant(backbone, weights, regime)
    config.backbone, config.weights = variant.backbone, variant.weights
    config.dataset = dataset
    config.regime = regime
    config.epochs = 10.0
    config.learning_rate = LEARNING_RATES.get(regime.partition(':')[0], 3e-4)
    return config
