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


def differing(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[str | None]]:
    """The keys that do not have the same value in all configs, in their order, with each config's value as JSON.

    Args:
        configs: flat (``work_directories.flatten``), as JSON represents them.

    Returns:
        The values are ``None`` where a config does not have the key.
    """
    texts = [{key: json.dumps(value, sort_keys=True) for key, value in config.items()} for config in configs]
    found = {key: [each.get(key) for each in texts] for key in dict.fromkeys(key for each in texts for key in each)}
    return {key: values for key, values in found.items() if len({*values}) > 1}


def differences(configs: Sequence[Mapping[str, Any]]) -> list[tuple[Difference, ...]]:
    """What tells each config from the others, in the order of the keys: the values that most others do not have.

    A key that a config does not have tells nothing: an earlier version may have written it, which behaved as the
    default does.

    Args:
        configs: as for ``differing``.
    """
    found: list[list[Difference]] = [[] for _ in configs]
    for key, values in differing(configs).items():
        counts = Counter(value for value in values if value is not None)
        (most, count), *others = counts.most_common()
        usual = most if 2 * count > counts.total() else None
        for mine, value in zip(found, values, strict=True):
            if others and value is not None and value != usual:
                mine.append(Difference(key, value, usual))
    return list(map(tuple, found))
