"""CSPNet as timm stores it."""

from backbones.cnn.cspnet import CSPNet
from backbones.pretrained.keymaps.rules import Line, conv_norm_rules, dense_rules


def timm(module: CSPNet) -> list[Line]:
    """``stages.0.blocks.0.conv1.conv.weight`` is ``backbone/stage2/block1/conv1/conv/kernel``; the stem is stage 1."""
    return [
        *conv_norm_rules('stem.conv1', 'backbone/stage1'),
        *conv_norm_rules('stages.{s}.conv_down', 'backbone/stage{s+2}/downsample'),
        *conv_norm_rules('stages.{s}.conv_exp', 'backbone/stage{s+2}/expand'),
        *conv_norm_rules('stages.{s}.blocks.{b}.conv{n}', 'backbone/stage{s+2}/block{b+1}/conv{n}'),
        *conv_norm_rules('stages.{s}.conv_transition_b', 'backbone/stage{s+2}/block_transition'),
        *conv_norm_rules('stages.{s}.conv_transition', 'backbone/stage{s+2}/transition'),
        *dense_rules('head.fc', 'head'),
    ]
