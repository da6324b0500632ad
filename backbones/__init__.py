"""Vision backbones as pure-function Flax modules, interchangeable behind one contract."""

from backbones import freezing
from backbones.errors import UserError
from backbones.features import BackboneInfo, Features, StageInfo
from backbones.pretrained.load import load_weights, preprocess
from backbones.pretrained.merge import Report
from backbones.pretrained.save import save_weights
from backbones.registry import create, create_classifier, info, names

__all__ = [
    'BackboneInfo',
    'Features',
    'Report',
    'StageInfo',
    'UserError',
    'create',
    'create_classifier',
    'freezing',
    'info',
    'load_weights',
    'names',
    'preprocess',
    'save_weights',
]
