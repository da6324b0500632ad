"""How the config of each of several runs differs from those of the others."""

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Difference:
    """A config value that not all runs have, as JSON.

    Attributes:
        key: such as ``training.epochs``.
        value: that of this run.
        usual: that of more than half of the runs; ``None`` if there is no such value.
    """

    key: str
    value: str
    usual: str | None


def differences(configs: Sequence[Mapping[str, Any]]) -> list[tuple[Difference, ...]]:
    """What tells each config from the others, in the order of its keys: the values that most others do not have.

    A key that a config does not have tells nothing: an earlier version may have written it, which behaved as the
    default does.

    Args:
        configs: flat (``work_directories.flatten``), as JSON represents them.
    """
    texts = [{key: json.dumps(value, sort_keys=True) for key, value in config.items()} for config in configs]
    counts: dict[str, Counter[str]] = {}
    for each in texts:
        for key, text in each.items():
            counts.setdefault(key, Counter())[text] += 1
    usual: dict[str, str | None] = {}
    for key, found in counts.items():
        (text, count), *_ = found.most_common(1)
        if len(found) > 1:
            usual[key] = text if 2 * count > found.total() else None
    return [
        tuple(Difference(key, text, usual[key]) for key, text in each.items() if key in usual and text != usual[key])
        for each in texts
    ]
