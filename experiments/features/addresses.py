"""The address of features in the store: a hash of everything that they depend on (``identity``)."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def address(document: Mapping[str, Any]) -> str:
    """The hash of a document: equal documents have equal addresses."""
    canonical = json.dumps(document, sort_keys=True, separators=(',', ':'))
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]
