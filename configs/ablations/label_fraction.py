"""How many labels does a frozen backbone save? From one label in a hundred to all of them, beside raw pixels.

    python -m experiments.ablate --config configs/ablations/label_fraction.py --workdir runs/label_fraction

Measured with nearest neighbours and 5 seeds, accuracy in per cent at 1, 10 and 100 % of the labels: pixels 66.7 ± 5.7,
87.2 ± 1.3 and 94.2; resnet_micro 49.0 ± 4.8, 67.9 ± 1.5 and 81.6; vit_micro 35.1 ± 2.9, 46.5 ± 2.0 and 56.1. With the
linear head and all labels: 91.4, 92.5 and 78.2 (docs/ablations.md); its other fractions are not measured.

Arguments: ``datasets`` and ``backbones`` (names separated by commas, each backbone with ``@WEIGHTS`` unless its published
weights are meant), ``seeds`` (how many; each draws its labels).
"""

from experiments.ablation.cells import default_config


def get_config(datasets: str = 'mnist5k', backbones: str = 'resnet_micro,vit_micro,pixels', seeds: int = 5):
    config = default_config()
    config.backbones = tuple(backbones.split(','))
    config.datasets = tuple(datasets.split(','))
    config.regimes = ('linear', 'knn')
    config.fractions = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
    config.seeds = tuple(range(seeds))
    return config
