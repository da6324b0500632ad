"""Which frozen backbone gives the better maps? A matched CNN and ViT and their random controls, with one neck and head.

    python -m experiments.ablate --config configs/ablations/dense.py --workdir runs/dense
    python -m experiments.ablate --config configs/ablations/dense.py:task=detection --workdir runs/detection

Arguments: ``task`` (``segmentation``, ``detection``); ``dataset`` (default: ``shapes``, which is generated);
``regimes`` and ``heads`` (names separated by ``+``; default: ``frozen``, and the usual head). Any backbone goes into
``--config.backbones``; what a training takes is under ``--config.training``.
"""

from configs.detection import light as light_detector
from configs.segmentation import light as light_segmenter
from experiments.ablation.cells import default_config


def get_config(task: str = 'segmentation', dataset: str = 'shapes', regimes: str = 'frozen', heads: str = ''):
    config = default_config()
    config.backbones = (
        'resnet_micro@bundled:resnet_micro',
        'vit_micro@bundled:vit_micro',
        'resnet_micro@random',
        'vit_micro@random',
    )
    config.datasets = (dataset,)
    config.regimes = tuple(regimes.split('+'))
    config.heads = tuple(heads.split('+'))
    config.seeds = (0,)
    training = config.training
    training.task = task
    (light_detector if task == 'detection' else light_segmenter)(training)
    config.image_size, config.stored_size = 64, training.stored_size
    training.strides = (4, 8, 16)
    training.neck_channels = training.head_channels = 64
    training.batch_size = 16
    training.epochs = 6.0
    training.smallest_scale = training.largest_scale = 1.0
    training.colour_jitter = 0.0
    training.evaluate_epochs = 2
    config.training_learning_rates = (3e-3,)
    config.training_extra_learning_rates = 0
    return config
