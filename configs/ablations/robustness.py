"""Which frozen backbone keeps its accuracy when the test images are corrupted? ImageNet-C's corruptions, five severities.

    python -m experiments.ablate --config configs/ablations/robustness.py --workdir runs/robustness

Arguments: ``dataset``, ``backbones`` and ``regimes`` as in ``cnn_vs_vit``; ``corruptions`` (names separated by commas,
``benchmark`` or ``all``).
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
