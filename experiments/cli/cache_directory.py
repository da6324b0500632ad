"""Where results that can be computed again are kept for later runs: features, compiled programs and texts."""

import os
from pathlib import Path

import platformdirs

VARIABLE = 'VISION_BACKBONES_CACHE'
_APPLICATION = 'vision-backbones'


def features() -> Path:
    """The feature store: ``VISION_BACKBONES_CACHE``, or a directory of the platform's cache directory."""
    given = _given()
    return given if given is not None else _of_user() / 'features'


def programs() -> Path:
    """Compiled programs: a directory of ``VISION_BACKBONES_CACHE``, or of the platform's cache directory."""
    given = _given()
    return (given if given is not None else _of_user()) / 'programs'


def texts() -> Path:
    """Texts that took long to collect: a directory of ``VISION_BACKBONES_CACHE``, or of the platform's cache."""
    given = _given()
    return (given if given is not None else _of_user()) / 'texts'


def _given() -> Path | None:
    given = os.environ.get(VARIABLE)
    return Path(given).expanduser() if given else None


def _of_user() -> Path:
    return Path(platformdirs.user_cache_dir(_APPLICATION))
