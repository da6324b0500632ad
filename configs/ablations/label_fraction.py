"""How many labels does a frozen backbone save? From one label in a hundred to all of them, beside raw pixels.

    python -m experiments.ablate --config configs/ablations/label_fraction.py --workdir runs/label_fraction

Not measured to its end. To expect: with all labels of mnist5k, the linear head's 92.5 (resnet_micro), 78.2 (vit_micro)
and 91.4 (pixels) of docs/ablations.md; with fewer, all lines fall, that of pixels most; below 2 % of the labels, which
leave less than eight images of a class, the intervals over seeds are several points wide.

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
