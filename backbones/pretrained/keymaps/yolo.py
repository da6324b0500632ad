"""YOLO11 and YOLO26 as ultralytics stores them."""

import dataclasses

import numpy as np

from backbones.cnn.yolo import YOLO
from backbones.heads.yolo import YOLOHead
from backbones.model import Model
from backbones.necks.yolo_pan import YOLOPAN
from backbones.pretrained.keymaps.rules import (
    Absent,
    Foreign,
    Ignored,
    Line,
    Made,
    Rule,
    conv_norm_rules,
    convolution_rules,
)

# The heads of YOLO11, whatever their task, hold the bins of a distribution, as older models' do; YOLO26's do not.
_YOLO11 = [
    Foreign(
        r'model\.\d+\.dfl\.conv\.weight',
        'belongs to the head of YOLO11 and older models; a YOLO11 loads into yolo11n … yolo11x',
    ),
]
# Of the two, only YOLO26 has attention inside a C3k2 of its neck, whatever its head; its model for semantic
# segmentation has half a neck, and a head that only YOLO26 has. (An end-to-end head is no mark: any model can get one.)
_YOLO26 = [
    Foreign(pattern, f'belongs to the {part} of a YOLO26; load it into yolo26n … yolo26x')
    for pattern, part in (
        (r'model\.(1[1-9]|[2-9]\d)\.m\.\d+\.1\.attn\..*', 'neck'),
        (r'model\.17\.(aux_head|classifier)\..*', 'head'),
    )
]
_CLASSIFIER = Foreign(r'model\.10\.linear\.weight', 'belongs to a classification model, whose backbone has no SPPF')
_NECK_AND_HEAD = Ignored(r'model\.(1[1-9]|[2-9]\d)\..*')

# The stages that the three levels of a detector are made of.
_LEVELS = ((3, 'stage3'), (4, 'stage4'), (5, 'stage5'))
# Our branches of the head → theirs, of boxes and of classes.
_BRANCHES = {'one_to_many': ('cv2', 'cv3'), 'one_to_one': ('one2one_cv2', 'one2one_cv3')}
_DFL = 'model.23.dfl.conv.weight'


def ultralytics(module: YOLO) -> list[Line]:
    """``model.4.m.0.cv1.conv.weight`` is ``backbone/stage3/c3k2/block1/conv1/conv/kernel``.

    A detector's neck and head (``model.11`` and up) are dropped. They also tell a whole YOLO11 from a whole YOLO26,
    which are refused in each other's place; files of layers 0 to 10 alone have the same keys and shapes in both.
    """
    others = _YOLO11 if module.sppf_shortcut else _YOLO26
    return [*_backbone(), *others, _CLASSIFIER, _NECK_AND_HEAD]


def ultralytics_fused(module: YOLO) -> list[Line]:
    """The same after ``model.fuse()``: BatchNorms are part of the convolutions before them, and have no keys."""
    return _fused(ultralytics(module), module.epsilon)


def detector(model: Model) -> list[Line]:
    """The lines of a whole detector; none for one that ultralytics does not have.

    ``model.13`` to ``model.22`` are the neck, ``model.23.cv2.0`` are the boxes of ``p3``. The numbers that a YOLO11
    multiplies its bins with are a constant here.
    """
    backbone, neck, head = model.backbone, model.neck, model.head
    if not (isinstance(backbone, YOLO) and isinstance(neck, YOLOPAN) and isinstance(head, YOLOHead)):
        return []
    if tuple((level.exponent, level.stage) for level in neck.levels) != _LEVELS:
        return []
    lines = _backbone()
    for index, path in ((13, 'inner4'), (16, 'inner3'), (19, 'output4'), (22, 'output5')):
        lines += _c3k2(f'model.{index}', f'neck/{path}')
    for index, path in ((17, 'down4'), (20, 'down5')):
        lines += conv_norm_rules(f'model.{index}', f'neck/{path}')
    for kind, keys in _BRANCHES.items():
        wanted = head.branches in ('both', kind)
        lines += _branch(kind, head.depth, *keys) if wanted else [Ignored(rf'model\.23\.({"|".join(keys)})\..*')]
    if head.bins > 1:
        path = f'params/head/{"one_to_one" if head.branches == "one_to_one" else "one_to_many"}3/boxes/bias'
        lines.append(Made(_DFL, path, _bins))
    lines += _YOLO11 if head.bins == 1 else []
    return [*lines, *([] if neck.attention else _YOLO26), _CLASSIFIER]


def detector_fused(model: Model) -> list[Line]:
    """The same after ``model.fuse()``; a fused YOLO26 has only the one-to-one branch (``branches='one_to_one'``)."""
    lines = detector(model)
    return _fused(lines, model.backbone.epsilon) if lines else []


def _bins(bias: np.ndarray) -> np.ndarray:
    return np.arange(len(bias) // 4, dtype=np.float32).reshape(1, -1, 1, 1)


def _backbone() -> list[Line]:
    lines = [
        *conv_norm_rules('model.0', 'backbone/stage1'),
        *conv_norm_rules('model.9.cv{n}', 'backbone/stage5/sppf/conv{n}'),
        *conv_norm_rules('model.10.cv{n}', 'backbone/stage5/c2psa/conv{n}'),
        *_psa('model.10.m.{b}', 'backbone/stage5/c2psa/block{b+1}'),
    ]
    for stage in range(2, 6):
        lines += conv_norm_rules(f'model.{2 * stage - 3}', f'backbone/stage{stage}/downsample')
        lines += _c3k2(f'model.{2 * stage - 2}', f'backbone/stage{stage}/c3k2')
    return lines


def _c3k2(key: str, path: str) -> list[Line]:
    """Its blocks are bottlenecks, C3ks, or (in the neck of YOLO26) bottlenecks with attention."""
    return [
        *conv_norm_rules(f'{key}.cv{{n}}', f'{path}/conv{{n}}'),
        *conv_norm_rules(f'{key}.m.{{b}}.cv{{n}}', f'{path}/block{{b+1}}/conv{{n}}'),
        *conv_norm_rules(f'{key}.m.{{b}}.m.{{c}}.cv{{n}}', f'{path}/block{{b+1}}/block{{c+1}}/conv{{n}}'),
        *conv_norm_rules(f'{key}.m.{{b}}.0.cv{{n}}', f'{path}/block{{b+1}}/bottleneck/conv{{n}}'),
        *_psa(f'{key}.m.{{b}}.1', f'{path}/block{{b+1}}/psa'),
    ]


def _psa(key: str, path: str) -> list[Line]:
    return [
        *conv_norm_rules(f'{key}.attn.qkv', f'{path}/attention/qkv'),
        *conv_norm_rules(f'{key}.attn.pe', f'{path}/attention/position'),
        *conv_norm_rules(f'{key}.attn.proj', f'{path}/attention/projection'),
        *conv_norm_rules(f'{key}.ffn.{{n}}', f'{path}/mlp_conv{{n+1}}'),
    ]


def _branch(kind: str, depth: int, boxes: str, classes: str) -> list[Line]:
    lines: list[Line] = []
    for index, (level, _) in enumerate(_LEVELS):
        path, of_boxes, of_classes = f'head/{kind}{level}', f'model.23.{boxes}.{index}', f'model.23.{classes}.{index}'
        for number in range(depth):
            lines += conv_norm_rules(f'{of_boxes}.{number}', f'{path}/box_conv{number + 1}')
            lines += conv_norm_rules(f'{of_classes}.{number}.0', f'{path}/class_depthwise{number + 1}')
            lines += conv_norm_rules(f'{of_classes}.{number}.1', f'{path}/class_conv{number + 1}')
        lines += convolution_rules(f'{of_boxes}.{depth}', f'{path}/boxes', bias=True)
        lines += convolution_rules(f'{of_classes}.{depth}', f'{path}/classes', bias=True)
    return lines


def _fused(lines: list[Line], epsilon: float) -> list[Line]:
    """Convolutions with a bias: that of a BatchNorm that does nothing else."""
    fused: list[Line] = []
    for line in lines:
        layer, bn, value = line.key.rpartition('.bn.') if isinstance(line, Rule | Made) else ('', '', '')
        if not bn:
            fused.append(line)
        elif value == 'bias' and isinstance(line, Rule):
            fused.append(dataclasses.replace(line, key=f'{layer}.conv.bias'))
        elif isinstance(line, Rule):
            # The variance with which the BatchNorm divides by 1.
            nothing = {'weight': 1.0, 'running_mean': 0.0, 'running_var': 1 - epsilon}[value]
            fused.append(Absent(line.path, nothing, exact=True))
    return fused
