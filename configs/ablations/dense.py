"""Which backbone gives the better maps? Backbones × heads × regimes × seeds with one neck, schedule and augmentation.

    python -m experiments.ablate --config configs/ablations/dense.py --workdir runs/dense
    python -m experiments.ablate --config configs/ablations/dense.py:task=detection --workdir runs/detection
    python -m experiments.ablate --config configs/ablations/dense.py:dataset=masks:PATH,regimes=frozen,finetune --workdir runs/x

By default a matched CNN and ViT and their random controls, frozen, on generated images of 64 pixels. On any other data
set images, schedule and augmentation are those of configs/detection.py and configs/segmentation.py.

Arguments: ``task`` (``segmentation``, ``detection``); ``dataset``; ``backbones`` (names separated by commas, each with
``@WEIGHTS`` unless its published weights are meant, ``@random`` for the untrained control); ``regimes`` (``frozen``,
``finetune``, ``partial:K``, ``lora:RANK``, ``scratch``); ``heads``; ``seeds`` (how many). What a training takes is under
``--config.training``. docs/results.md has results.
"""

from configs.detection import light as light_detector
from configs.segmentation import light as light_segmenter
from experiments.ablation.cells import default_config

PAIR = 'resnet_micro,vit_micro,resnet_micro@random,vit_micro@random'


def get_config(
    task: str = 'segmentation',
    dataset: str = 'shapes',
    backbones: str = PAIR,
    regimes: str = 'frozen',
    heads: str = '',
    seeds: int = 1,
):
    config = default_config()
    config.backbones = tuple(backbones.split(','))
    config.datasets = (dataset,)
    config.regimes = tuple(regimes.split(','))
    config.heads = tuple(heads.split(','))
    config.seeds = tuple(range(seeds))
    training = config.training
    training.task = task
    (light_detector if task == 'detection' else light_segmenter)(training)
    config.image_size, config.stored_size = training.image_size, training.stored_size
    config.training_learning_rates = (training.learning_rate,)
    config.training_extra_learning_rates = 0
    if dataset == 'shapes':
        _quick(config)
    return config


def _quick(config):
    """For minutes on two cores: small images, a smaller neck and head, one short schedule."""
    config.image_size = 64
    config.training_learning_rates = (3e-3,)
    training = config.training
    training.strides = (4, 8, 16)
    training.neck_channels = training.head_channels = 64
    training.batch_size = 16
    training.epochs = 6.0
    training.smallest_scale = training.largest_scale = 1.0
    training.colour_jitter = 0.0
    training.evaluate_epochs = 2
