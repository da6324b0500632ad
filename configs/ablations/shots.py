"""How good is a frozen backbone with a handful of labelled images per class? Columns are images per class.

    python -m experiments.ablate --config configs/ablations/shots.py --workdir runs/shots

EXPECTED

Each seed draws its own images, and more shots contain fewer ones. Arguments: ``datasets`` and ``backbones`` (names
separated by commas, each backbone with ``@WEIGHTS`` unless its published weights are meant), ``seeds`` (how many).
"""

from experiments.ablation.cells import default_config


def get_config(datasets: str = 'digits', backbones: str = 'resnet_micro,vit_micro,pixels', seeds: int = 10):
    config = default_config()
    config.backbones = tuple(backbones.split(','))
    config.datasets = tuple(datasets.split(','))
    config.regimes = ('linear', 'knn')
    config.shots = (1, 2, 5, 10, 20, 50)
    config.seeds = tuple(range(seeds))
    return config
