"""CNN against ViT where little else differs: pairs with the same data, teacher or recipe, and about the same size.

    python -m experiments.ablate --config configs/ablations/matched_pairs.py --workdir runs/micro_pair
    python -m experiments.ablate --config configs/ablations/matched_pairs.py:pair=dinov3 --workdir runs/dinov3_pair

Most published CNNs and ViTs differ in data, objective, recipe and size at once, so that a table of them says nothing of
the architecture. These differ in less (parameters without a classifier, GFLOPs at the size of the pair):

- ``micro``: resnet_micro and vit_micro, both trained here on CIFAR-10 with one recipe for as many epochs, for images of
  32 pixels; 0.457 and 0.459 million parameters, 0.083 and 0.065 GFLOPs. Needs no download, and is what runs by default.
- ``dinov3``: ConvNeXt-T and ViT-S/16, both distilled from the same ViT-7B on the same images (LVD-1689M), without any
  labels. The one pair of large models whose training differs in nothing but the student; the CNN has 27.8 million
  parameters, the ViT 21.6, at 8.9 and 9.4 GFLOPs.
- ``imagenet``: ConvNeXt-T, Swin-T and DeiT-S/16, each trained on ImageNet-1k alone for 300 epochs with AdamW, mixup,
  CutMix, RandAugment and random erasing (DeiT's recipe, which the others adapted): 27.8, 27.5 and 21.7 million
  parameters, 8.9, 9.0 and 9.2 GFLOPs. ConvNeXt's weights are a moving average; stochastic depth, learning rate and
  batch size are each author's own, and a small difference may be one of these.
- ``convnextv2``: ConvNeXtV2-T beside ConvNeXt-T. Both have the same data (ImageNet-1k) and stages; V2 has global response
  normalisation in place of LayerScale, and was pretrained by masked autoencoding before it was fine-tuned. No ViT here
  was trained like it: a ViT pretrained by masked autoencoding has no row, so this is its nearest partner, and shows what
  V2 adds to a CNN, not CNN against ViT. Its weights are CC-BY-NC-4.0.

All images of a pair have one size, whatever each model was published for: 32 pixels, or 224. Weights come from the hub
(``hf:timm/…``) unless it is out of reach and they are in its cache; ``python -m experiments.models NAME`` has their
licences, of which DINOv3's restricts use.

Arguments: ``pair`` (one of these), ``datasets`` and ``regimes`` (names separated by commas), ``seeds`` (how many). Only
the micro pair was measured: docs/results.md.
"""

from backbones.errors import unknown
from experiments.ablation.cells import default_config

# Pair → image size in pixels, and its members with their weights.
PAIRS = {
    'micro': (32, ('resnet_micro@bundled:resnet_micro', 'vit_micro@bundled:vit_micro')),
    'dinov3': (
        224,
        (
            'dinov3_convnext_tiny@hf:timm/convnext_tiny.dinov3_lvd1689m',
            'dinov3_vit_small@hf:timm/vit_small_patch16_dinov3.lvd1689m',
        ),
    ),
    'imagenet': (
        224,
        (
            'convnext_tiny@hf:timm/convnext_tiny.fb_in1k',
            'swin_tiny@hf:timm/swin_tiny_patch4_window7_224.ms_in1k',
            'deit_small_patch16@hf:timm/deit_small_patch16_224.fb_in1k',
        ),
    ),
    'convnextv2': (
        224,
        (
            'convnextv2_tiny@hf:timm/convnextv2_tiny.fcmae_ft_in1k',
            'convnext_tiny@hf:timm/convnext_tiny.fb_in1k',
        ),
    ),
}


def get_config(pair: str = 'micro', datasets: str = 'digits,mnist5k', regimes: str = 'linear,knn', seeds: int = 3):
    if pair not in PAIRS:
        raise unknown('pair', pair, PAIRS)
    config = default_config()
    config.image_size, config.backbones = PAIRS[pair]
    config.datasets = tuple(datasets.split(','))
    config.regimes = tuple(regimes.split(','))
    config.fractions = (0.1, 1.0)
    config.seeds = tuple(range(seeds))
    return config
