"""Which parameters train: ordered patterns become a mask, the mask splits the tree, the forward pass joins it again.

A frozen leaf is *absent* from the tree that is differentiated, so it costs no gradient, no optimizer state and no
communication. Freezing covers parameters **and** behaviour: a module whose parameters are all frozen runs in inference
mode, so its BatchNorms use and keep their running statistics and its dropout is off (``inference_where_frozen``).

A rule is ``(pattern, state)``: a regular expression that must match a whole path such as
``backbone/stage3/block2/conv1/kernel``, and ``'frozen'`` or ``'trainable'``. The first rule that matches decides.

A pattern that matches no parameter at all is an error, since it would otherwise freeze nothing without a word; one that
may match none is marked: ``(pattern, state, 'optional')``. A rule whose parameters were all decided by earlier rules is
none: it matches.
"""

import dataclasses
import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import flax.linen as nn
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from backbones.errors import UserError, unknown

STATES = ('frozen', 'trainable')

Rule = tuple[str, str] | tuple[str, str, Literal['optional']]

FREEZE_BACKBONE: tuple[Rule, ...] = (('backbone/.*', 'frozen'), ('.*', 'trainable'))
TRAIN_EVERYTHING: tuple[Rule, ...] = (('.*', 'trainable'),)


@dataclasses.dataclass(frozen=True)
class Row:
    """One rule and what it decided.

    Attributes:
        pattern: the regular expression.
        state: ``'frozen'`` or ``'trainable'``.
        leaves: number of arrays it decided.
        parameters: number of values in them.
    """

    pattern: str
    state: str
    leaves: int
    parameters: int


def _decide(params: dict, rules: Sequence[Rule]) -> dict[str, int]:
    """Path of every leaf → index of the first rule that matches it."""
    compiled = []
    for pattern, state, *mark in rules:
        if state not in STATES:
            raise unknown(f'state of the freezing rule {pattern!r}', state, STATES)
        if mark not in ([], ['optional']):
            raise unknown(f'mark of the freezing rule {pattern!r}', mark[0], ('optional',))
        try:
            compiled.append(re.compile(pattern))
        except re.error as error:
            raise UserError(f'the freezing pattern {pattern!r} is not a valid regular expression: {error}') from None
    decisions = {}
    paths = flatten_dict(params, sep='/').keys()
    for path in paths:
        matches = (index for index, pattern in enumerate(compiled) if pattern.fullmatch(path))
        decision = next(matches, None)
        if decision is None:
            raise UserError(
                f'no freezing rule covers the parameter {path!r}; the patterns are '
                f'{[pattern for pattern, *_ in rules]} (they must match the whole path; end with a catch-all ".*")'
            )
        decisions[path] = decision
    _check_that_each_matches(rules, compiled, paths, set(decisions.values()))
    _check_that_each_has_an_effect(rules, compiled, decisions)
    return decisions


def _check_that_each_matches(
    rules: Sequence[Rule], compiled: Sequence[re.Pattern[str]], paths: Collection[str], decided: Collection[int]
) -> None:
    """Refuse a rule, unless it is optional, whose pattern matches no path at all."""
    for index, (pattern, _, *mark) in enumerate(rules):
        if mark or not paths or index in decided or any(map(compiled[index].fullmatch, paths)):
            continue
        bare = pattern.startswith('backbone/') and not any(path.startswith('backbone/') for path in paths)
        near = difflib.get_close_matches(pattern.removeprefix('backbone/') if bare else pattern, paths, n=3, cutoff=0)
        hint = "these are the parameters of a backbone alone: leave out 'backbone/'; or " if bare else ''
        raise UserError(
            f'the freezing pattern {pattern!r} matches none of the {len(paths)} parameters; the nearest are '
            f"{', '.join(map(repr, near))} ({hint}mark a rule that may match none: (pattern, state, 'optional'))"
        )


def _check_that_each_has_an_effect(
    rules: Sequence[Rule], compiled: Sequence[re.Pattern[str]], decisions: Mapping[str, int]
) -> None:
    """Refuse a rule, unless it is optional or the catch-all at the end, that earlier rules contradict everywhere."""
    for index, (pattern, state, *mark) in enumerate(rules):
        if mark or index in decisions.values() or (pattern == '.*' and index == len(rules) - 1):
            continue
        matched = [decision for path, decision in decisions.items() if compiled[index].fullmatch(path)]
        contrary = [decision for decision in matched if rules[decision][1] != state]
        if matched and len(contrary) == len(matched):
            raise UserError(
                f'the freezing rule {rules[index]!r} has no effect: all {len(matched)} parameters that it matches are '
                f'decided by {rules[contrary[0]]!r} before it; put it first, or mark it: (pattern, state, '
                "'optional')"
            )


def mask(params: dict, rules: Sequence[Rule]) -> dict:
    """A tree shaped like ``params`` whose leaves say whether the parameter trains.

    Raises:
        UserError: a parameter that no rule covers (named), a rule that matches no parameter, or only such that
            earlier rules decide otherwise, and is not optional, an unknown state, or an invalid regular expression.
    """
    decisions = _decide(params, rules)
    return unflatten_dict({path: rules[index][1] == 'trainable' for path, index in decisions.items()}, sep='/')


def split(params: dict, mask: dict) -> tuple[dict, dict]:
    """``(trainable, frozen)``: two disjoint trees without empty branches.

    Raises:
        UserError: ``mask`` and ``params`` do not have the same leaves.
    """
    leaves, states = flatten_dict(params), flatten_dict(mask)
    if leaves.keys() != states.keys():
        path = '/'.join(min(leaves.keys() ^ states.keys()))
        raise UserError(f'the freezing mask does not fit the parameters: they differ at {path!r}')
    trainable = {path: leaf for path, leaf in leaves.items() if states[path]}
    frozen = {path: leaf for path, leaf in leaves.items() if not states[path]}
    return unflatten_dict(trainable), unflatten_dict(frozen)


def join(trainable: dict, frozen: dict) -> dict:
    """The tree that ``split`` took apart.

    Raises:
        UserError: a leaf is in both trees.
    """
    left, right = flatten_dict(trainable), flatten_dict(frozen)
    branches = [{path[:depth] for path in tree for depth in range(1, len(path))} for tree in (left, right)]
    if both := (left.keys() & right.keys()) | (left.keys() & branches[1]) | (right.keys() & branches[0]):
        raise UserError(f'{"/".join(min(both))!r} is both trainable and frozen')
    return unflatten_dict({**left, **right})


def table(params: dict, rules: Sequence[Rule]) -> list[Row]:
    """What each rule decided, in the order of the rules; a rule with zero leaves found none left to match.

    Raises:
        UserError: see ``mask``.
    """
    decisions = _decide(params, rules)
    leaves = flatten_dict(params, sep='/')
    rows = []
    for index, (pattern, state, *_) in enumerate(rules):
        sizes = [int(np.prod(np.shape(leaves[path]))) for path, decision in decisions.items() if decision == index]
        rows.append(Row(pattern, state, len(sizes), sum(sizes)))
    return rows


def frozen_modules(mask: dict) -> frozenset[tuple[str, ...]]:
    """Paths of the modules that have parameters, all of them frozen; the root's path is ``()``."""
    some, trained = set(), set()
    for path, trainable in flatten_dict(mask).items():
        modules = {path[:depth] for depth in range(len(path))}
        some |= modules
        if trainable:
            trained |= modules
    return frozenset(some - trained)


def inference_where_frozen(mask: dict):
    """A context in which every fully frozen module is called with ``train=False``.

    Wrap the training ``apply`` in it::

        with freezing.inference_where_frozen(mask):
            logits, updates = model.apply(variables, images, train=True, mutable=['batch_stats'])

    It acts while the function is traced, so it costs nothing when the compiled program runs.
    """
    frozen = frozen_modules(mask)

    def interceptor(call, args, kwargs, context):
        if context.method_name == '__call__' and kwargs.get('train') and context.module.path in frozen:
            kwargs = {**kwargs, 'train': False}
        return call(*args, **kwargs)

    return nn.intercept_methods(interceptor)
