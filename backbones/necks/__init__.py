"""Necks: what stands between a backbone's stages and a dense head. To add one, add a file and a row."""

from collections.abc import Callable

import flax.linen as nn

from backbones.necks.fpn import FPN
from backbones.necks.pan import PAN
from backbones.necks.simple_pyramid import SimplePyramid
from backbones.necks.yolo_pan import YOLOPAN

# Each takes ``levels`` (``necks.levels.choose``), ``channels`` and ``dtype``, and options of its own.
TABLE: dict[str, Callable[..., nn.Module]] = {
    'fpn': FPN,
    'pan': PAN,
    'simple_pyramid': SimplePyramid,
    'yolo_pan': YOLOPAN,
}
