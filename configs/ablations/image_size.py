"""At which input size should a frozen backbone see small images? Accuracy against GFLOPs, for a matched CNN and ViT.

    python -m experiments.ablate --config configs/ablations/image_size.py --workdir runs/image_size

Measured on digits (359 test images of 8 pixels, enlarged), nearest neighbours, accuracy in per cent at 16, 24, 32, 48 and
64 pixels: resnet_micro 91.1, 87.2, 93.0, 85.2 and 81.6; vit_micro 82.5, 83.8, 90.5, 90.5 and 87.2, each known to about
± 3. Both are best at the 32 pixels of their pretraining; beyond it the CNN loses more, and the cost rises with the square
of the side (0.083 GFLOP at 32, 0.333 at 64).

Arguments: ``datasets``, ``backbones`` and ``sizes`` (in pixels), separated by commas.
"""

from experiments.ablation.cells import default_config


def get_config(
    datasets: str = 'digits,mnist5k', backbones: str = 'resnet_micro,vit_micro', sizes: str = '16,24,32,48,64'
):
    config = default_config()
    config.backbones = tuple(backbones.split(','))
    config.datasets = tuple(datasets.split(','))
    config.regimes = ('linear', 'knn')
    config.image_size = tuple(map(int, sizes.split(',')))
    config.seeds = (0,)
    return config
