"""Vision backbones as pure-function Flax modules, interchangeable behind one contract.

Names are imported on first use, so that code that needs only ``backbones.errors`` does not wait for JAX.
"""

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backbones import freezing
    from backbones.assembly import create_detector, create_segmenter
    from backbones.entry import BackboneInfo, StageInfo
    from backbones.errors import UserError
    from backbones.features import Features
    from backbones.prediction.prediction import Prediction
    from backbones.prediction.predictor import Predictor, load
    from backbones.pretrained.description import Description
    from backbones.pretrained.load import load_weights, preprocess
    from backbones.pretrained.merge import Report
    from backbones.pretrained.save import save_weights
    from backbones.published_models import create_published
    from backbones.registry import create, create_classifier, info, names

__all__ = [
    'BackboneInfo',
    'Description',
    'Features',
    'Prediction',
    'Predictor',
    'Report',
    'StageInfo',
    'UserError',
    'create',
    'create_classifier',
    'create_detector',
    'create_published',
    'create_segmenter',
    'freezing',
    'info',
    'load',
    'load_weights',
    'names',
    'preprocess',
    'save_weights',
]

# The module that defines each name; a name that is not here is itself a module.
_MODULES = {
    'BackboneInfo': 'entry',
    'Description': 'pretrained.description',
    'Features': 'features',
    'Prediction': 'prediction.prediction',
    'Predictor': 'prediction.predictor',
    'Report': 'pretrained.merge',
    'StageInfo': 'entry',
    'UserError': 'errors',
    'create': 'registry',
    'create_classifier': 'registry',
    'create_detector': 'assembly',
    'create_published': 'published_models',
    'create_segmenter': 'assembly',
    'info': 'registry',
    'load': 'prediction.predictor',
    'load_weights': 'pretrained.load',
    'names': 'registry',
    'preprocess': 'pretrained.load',
    'save_weights': 'pretrained.save',
}


def __getattr__(name: str) -> Any:
    """Import a public name, or a module of the package, when it is first asked for (PEP 562)."""
    if name in _MODULES:
        value = getattr(importlib.import_module(f'{__name__}.{_MODULES[name]}'), name)
    elif not name.startswith('_') and importlib.util.find_spec(f'{__name__}.{name}'):
        value = importlib.import_module(f'{__name__}.{name}')
    else:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    globals()[name] = value  # so that the next access bypasses this function
    return value


def __dir__() -> list[str]:
    """Every public name, imported or not."""
    return sorted({*globals(), *__all__})
