"""Which stage of a frozen backbone should feed the head? The mean of each stage, all of them together, and the output.

    python -m experiments.ablate --config configs/ablations/depth_of_features.py --workdir runs/depth

Measured on digits (359 test images), nearest neighbours, accuracy in per cent: of the CNN's stages 85.2, 88.0, 94.2 and
93.0, of all together 93.6, of the output 93.0; of the ViT's 76.9, 88.9, 88.3 and 86.6, together 90.3, output 90.5. So
the last stage is not the best one: the third of the CNN is ahead of it, and the ViT gains by its last normalisation.

Arguments: ``datasets`` and ``backbones`` (names separated by commas, each backbone with ``@WEIGHTS`` unless its published
weights are meant), ``stages`` (how many the shallowest of them has; a ViT has 4).
"""

from experiments.ablation.cells import default_config


def get_config(datasets: str = 'digits,mnist5k', backbones: str = 'resnet_micro,vit_micro', stages: int = 4):
    config = default_config()
    config.backbones = tuple(backbones.split(','))
    config.datasets = tuple(datasets.split(','))
    config.regimes = ('linear', 'knn')
    config.tap = (*(f'stage{number}' for number in range(1, stages + 1)), 'stages', 'pooled')
    config.seeds = (0,)
    return config
