"""Which frozen backbone gives the better features? A matched CNN and ViT, their random controls, and raw pixels.

python -m experiments.ablate --config configs/ablations/quickstart.py --workdir runs/quickstart
"""

from experiments.ablation.cells import default_config


def get_config():
    config = default_config()
    config.backbones = (
        'resnet_micro@bundled:resnet_micro',
        'vit_micro@bundled:vit_micro',
        'resnet_micro@random',
        'vit_micro@random',
        'efficientnet_lite0@pip:efficientnet-lite0',
        'pixels',
    )
    config.datasets = ('mnist5k', 'digits')
    config.regimes = ('linear', 'knn')
    config.fractions = (0.05, 0.2, 1.0)
    config.seeds = (0, 1, 2, 3, 4)
    return config
