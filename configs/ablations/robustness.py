"""Which frozen backbone keeps its accuracy when the test images are corrupted? ImageNet-C's corruptions, 5 severities.

    python -m experiments.ablate --config configs/ablations/robustness.py --workdir runs/robustness

Arguments: ``dataset``, ``backbones`` and ``regimes`` as in ``cnn_vs_vit``; ``corruptions`` (names separated by commas,
``benchmark`` or ``all``).

On the 1,000 test images of mnist5k, linear heads keep 75.1 of 92.5 % (resnet_micro), 78.2 of 91.4 % (pixels) and 53.8 of
78.2 % (vit_micro) on average over 14 corruptions and 5 severities; nearest neighbours 60.0 of 81.6, 90.6 of 94.2 and 41.6
of 56.1 % (docs/ablations.md, "Robustness"). That is 70 more passes over the test split of each backbone.
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
