"""What names a model that is explained."""

import dataclasses
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Named:
    """What a user names: a work directory, or a published model with the source of its weights."""

    workdir: Path | None = None
    model: str = ''
    weights: str = ''
