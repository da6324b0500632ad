"""Options that make a registered backbone small without taking a kind of block from it."""

from backbones.cnn.mobilenet_v4 import BlockConfig

# Every kind of block; attention with keys of a coarser map and of the same one.
MOBILENET_V4 = {
    'rows': (
        BlockConfig('convolution', 8, 3, stride=2),
        BlockConfig('fused', 12, 3, stride=2, expansion=2),
        BlockConfig('bottleneck', 16, 3, stride=2, expansion=2, first_kernel=3),
        BlockConfig('bottleneck', 24, 0, stride=2, expansion=2, first_kernel=3),
        BlockConfig('attention', 24, reduction=2),
        BlockConfig('bottleneck', 24, 0, expansion=2),
        BlockConfig('attention', 24),
        BlockConfig('bottleneck', 32, 5, stride=2, expansion=2),
        BlockConfig('convolution', 40, 1),
    ),
    'head_channels': 8,
    'layer_scale': 1.0,
}
