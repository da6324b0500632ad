"""Which frozen backbone keeps its accuracy when the test images are corrupted? ImageNet-C's corruptions, 5 severities.

    python -m experiments.ablate --config configs/ablations/robustness.py --workdir runs/robustness

Arguments: ``dataset``, ``backbones`` and ``regimes`` as in ``cnn_vs_vit``; ``corruptions`` (names separated by commas,
``benchmark`` or ``all``).

With ``corruptions=gaussian_noise,motion_blur,fog,contrast,jpeg_compression`` and ``--config.severities='(1, 3, 5)'``, on
the 1,000 test images of mnist5k, linear heads keep 73.7 of 92.5 % (resnet_micro), 72.7 of 91.4 % (pixels) and 50.0 of
78.2 % (vit_micro) on average over corruptions and severities; nearest neighbours 59.1 of 81.6, 86.8 of 94.2 and 40.5 of
56.1 % (docs/ablations.md, "Robustness"). All 14 corruptions at 5 severities are 70 more passes over the test split of
each backbone.
"""

from experiments.ablation.cells import default_config

PAIR = 'resnet_micro,vit_micro,pixels'


def get_config(
    dataset: str = 'mnist5k', backbones: str = PAIR, regimes: str = 'linear,knn', corruptions: str = 'benchmark'
):
    config = default_config()
    config.backbones = tuple(backbones.split(','))
    config.datasets = (dataset,)
    config.regimes = tuple(regimes.split(','))
    config.fractions = (1.0,)
    config.seeds = (0,)
    config.corruptions = tuple(corruptions.split(','))
    return config
