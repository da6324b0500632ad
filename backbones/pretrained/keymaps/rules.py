"""Declarative maps from a foreign key to a path of ours.

A map is a list of rules. A rule is a regular expression for the whole foreign key, a template for our path and a
transform of the array. The template is filled with the expression's groups; ``{0:+1}`` adds one to the first, because
torch counts blocks from zero and we count from one.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence

import numpy as np

Transform = Callable[[np.ndarray], np.ndarray]


def identity(array: np.ndarray) -> np.ndarray:
    """The array as it is."""
    return array


def convolution(array: np.ndarray) -> np.ndarray:
    """Torch's ``[out, in, height, width]`` to ``[height, width, in, out]``."""
    return array.transpose(2, 3, 1, 0)


def transpose(array: np.ndarray) -> np.ndarray:
    """Torch's ``[out, in]`` to ``[in, out]``."""
    return array.T


@dataclasses.dataclass(frozen=True)
class Rule:
    """One line of a key map; an empty ``path`` drops the key on purpose (a counter, say)."""

    pattern: str
    path: str
    transform: Transform = identity


class _Group(str):
    """A matched group that can be shifted in a template: ``{0:+1}``."""

    def __format__(self, spec: str) -> str:
        return str(int(self) + int(spec)) if spec else str(self)


def convolution_rule(key: str, path: str) -> list[Rule]:
    """A convolution's kernel."""
    return [Rule(rf'{key}\.weight', f'params/{path}/kernel', convolution)]


def dense_rules(key: str, path: str) -> list[Rule]:
    """A linear layer with a bias."""
    return [
        Rule(rf'{key}\.weight', f'params/{path}/kernel', transpose),
        Rule(rf'{key}\.bias', f'params/{path}/bias'),
    ]


def layer_norm_rules(key: str, path: str) -> list[Rule]:
    """A LayerNorm's scale and bias."""
    return [Rule(rf'{key}\.weight', f'params/{path}/scale'), Rule(rf'{key}\.bias', f'params/{path}/bias')]


def batch_norm_rules(key: str, path: str) -> list[Rule]:
    """A BatchNorm's scale, bias and running statistics; the counter of batches has no use here."""
    return [
        *layer_norm_rules(key, path),
        Rule(rf'{key}\.running_mean', f'batch_stats/{path}/mean'),
        Rule(rf'{key}\.running_var', f'batch_stats/{path}/var'),
        Rule(rf'{key}\.num_batches_tracked', ''),
    ]


def translate(key: str, rules: Sequence[Rule]) -> tuple[str, Transform] | None:
    """Our path and the transform for a foreign key, or ``None`` if no rule knows it."""
    for rule in rules:
        match = re.fullmatch(rule.pattern, key)
        if match:
            return rule.path.format(*map(_Group, match.groups())), rule.transform
    return None
