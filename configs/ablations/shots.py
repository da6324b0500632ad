"""How good is a frozen backbone with a handful of labelled images per class? Columns are images per class.

    python -m experiments.ablate --config configs/ablations/shots.py --workdir runs/shots

Not measured. To expect, as in few-shot evaluations elsewhere: intervals over seeds of several points at 1 and 2 images
per class, nearest neighbours level with or ahead of the linear head there and behind it from about 10 on, and every
line still below that of all labels at 50.

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
