"""Freezing: properties over random trees and rules, and what a frozen module does in a training step's forward pass."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from hypothesis import given, settings
from hypothesis import strategies as st

import backbones
from backbones import UserError, freezing
from backbones.layers.attention import Dense
from backbones.layers.normalisation import BatchNorm

PROPERTY = settings(max_examples=150, deadline=None)

NAMES = ('backbone', 'head', 'stage1', 'stage2', 'norm1', 'kernel', 'bias', 'kernel.1')
PATTERNS = (
    'backbone/.*',
    'head/.*',
    '.*/kernel',
    '.*norm1.*',
    '[^/]*',
    'kernel',
    'stage[12]/.*',
    '(.*/)?bias',
    'kernel.1',
)

leaves = st.lists(st.integers(0, 3), max_size=3).map(lambda shape: np.zeros(shape, np.float32))
branches = st.recursive(
    leaves, lambda children: st.dictionaries(st.sampled_from(NAMES), children, min_size=1, max_size=4), max_leaves=15
)
trees = st.dictionaries(st.sampled_from(NAMES), branches, min_size=1, max_size=4)
# Any pattern may match nothing, so every rule is optional.
rule_lists = st.lists(
    st.tuples(st.sampled_from(PATTERNS), st.sampled_from(freezing.STATES), st.just('optional')), max_size=5
)
covering_rule_lists = st.builds(
    lambda rules, state: [*rules, ('.*', state)], rule_lists, st.sampled_from(freezing.STATES)
)


def paths(tree: dict, prefix: tuple = ()) -> dict[tuple, np.ndarray]:
    """Path → leaf, written without flax; a branch without leaves would show as a leaf of its own."""
    if not isinstance(tree, dict) or not tree:
        return {prefix: tree}
    return {path: leaf for name, child in tree.items() for path, leaf in paths(child, (*prefix, name)).items()}


def first_match(path: tuple, rules: list) -> int | None:
    """Index of the rule that decides over a leaf."""
    for index, (pattern, *_) in enumerate(rules):
        if re.fullmatch(pattern, '/'.join(path)):
            return index
    return None


@PROPERTY
@given(params=trees, rules=covering_rule_lists)
def test_mask_follows_the_first_match(params, rules):
    mask = paths(freezing.mask(params, rules))
    assert mask == {path: rules[first_match(path, rules)][1] == 'trainable' for path in paths(params)}


@PROPERTY
@given(params=trees, rules=covering_rule_lists)
def test_split_is_disjoint_and_complete_and_join_undoes_it(params, rules):
    mask = freezing.mask(params, rules)
    trainable, frozen = freezing.split(params, mask)
    left, right = (paths(tree) if tree else {} for tree in (trainable, frozen))
    assert left.keys().isdisjoint(right)
    assert {*left, *right} == set(paths(params))
    assert set(left) == {path for path, trains in paths(mask).items() if trains}

    joined = freezing.join(trainable, frozen)
    assert jax.tree.structure(joined) == jax.tree.structure(params)
    before, after = paths(params), paths(joined)
    assert all(after[path] is before[path] for path in before)  # the arrays themselves, not copies


@PROPERTY
@given(params=trees, rules=covering_rule_lists)
def test_table_sums_to_the_totals(params, rules):
    rows = freezing.table(params, rules)
    assert [(row.pattern, row.state) for row in rows] == [rule[:2] for rule in rules]
    flat = paths(params)
    for index, row in enumerate(rows):
        decided = [leaf.size for path, leaf in flat.items() if first_match(path, rules) == index]
        assert (row.leaves, row.parameters) == (len(decided), sum(decided))
    assert sum(row.leaves for row in rows) == len(flat)
    assert sum(row.parameters for row in rows) == sum(leaf.size for leaf in flat.values())
    trainable, _ = freezing.split(params, freezing.mask(params, rules))
    trained = sum(row.parameters for row in rows if row.state == 'trainable')
    assert trained == sum(leaf.size for leaf in jax.tree.leaves(trainable))


@PROPERTY
@given(params=trees, rules=rule_lists)
def test_an_uncovered_leaf_is_an_error_that_names_it(params, rules):
    uncovered = ['/'.join(path) for path in paths(params) if first_match(path, rules) is None]
    for function in (freezing.mask, freezing.table):
        if uncovered:
            with pytest.raises(UserError, match='no freezing rule covers the parameter') as caught:
                function(params, rules)
            assert any(repr(path) in str(caught.value) for path in uncovered)
        else:
            function(params, rules)


@PROPERTY
@given(params=trees, rules=covering_rule_lists)
def test_a_module_is_frozen_if_all_its_parameters_are(params, rules):
    mask = freezing.mask(params, rules)
    flat = paths(mask)
    modules = {path[:depth] for path in flat for depth in range(len(path))}
    expected = {module for module in modules if not any(flat[path] for path in flat if path[: len(module)] == module)}
    assert freezing.frozen_modules(mask) == expected


@PROPERTY
@given(params=trees, rules=covering_rule_lists, data=st.data())
def test_a_rule_that_matches_nothing_is_an_error_unless_it_is_optional(params, rules, data):
    required = [(pattern, state) for pattern, state, *_ in rules]
    chosen = [data.draw(st.sampled_from(pair)) for pair in zip(rules, required, strict=True)]
    flat = ['/'.join(path) for path in paths(params)]
    idle = [
        pattern for pattern, _, *mark in chosen if not mark and not any(re.fullmatch(pattern, path) for path in flat)
    ]
    states = {path: next(state for pattern, state in required if re.fullmatch(pattern, path)) for path in flat}
    # Nothing of what it matches is decided as it says.
    contradicted = [
        rule
        for number, rule in enumerate(chosen)
        if len(rule) == 2
        and (matched := [path for path in flat if re.fullmatch(rule[0], path)])
        and all(states[path] != rule[1] for path in matched)
        and not (rule[0] == '.*' and number == len(chosen) - 1)
    ]
    for function in (freezing.mask, freezing.table):
        if idle:
            with pytest.raises(UserError, match=re.escape(f'the freezing pattern {idle[0]!r} matches none of the')):
                function(params, chosen)
        elif contradicted:
            with pytest.raises(UserError, match=re.escape(f'the freezing rule {contradicted[0]!r} has no effect')):
                function(params, chosen)
        else:
            assert function(params, chosen) == function(params, rules)


BOTH = pytest.mark.parametrize('function', [freezing.mask, freezing.table])

PARAMS = {
    'backbone': {'stem': {'kernel': np.ones((3, 2))}, 'norm': {'scale': np.ones(2), 'bias': np.ones(2)}},
    'head': {'kernel': np.ones((2, 5)), 'bias': np.ones(5)},
}


def test_a_pattern_must_match_the_whole_path():
    with pytest.raises(UserError, match="the parameter 'backbone/"):
        freezing.mask(PARAMS, [('backbone', 'frozen'), ('stem', 'frozen'), ('kernel', 'frozen'), ('head/.*', 'frozen')])


def test_freeze_backbone():
    rows = freezing.table(PARAMS, freezing.FREEZE_BACKBONE)
    assert [(row.leaves, row.parameters) for row in rows] == [(3, 10), (2, 15)]
    mask = freezing.mask(PARAMS, freezing.FREEZE_BACKBONE)
    assert freezing.frozen_modules(mask) == {('backbone',), ('backbone', 'stem'), ('backbone', 'norm')}


def test_train_everything():
    mask = freezing.mask(PARAMS, freezing.TRAIN_EVERYTHING)
    assert all(jax.tree.leaves(mask))
    assert freezing.frozen_modules(mask) == frozenset()


def test_a_half_frozen_module_is_not_frozen():
    mask = freezing.mask(PARAMS, [('.*/norm/scale', 'trainable'), ('.*', 'frozen')])
    assert freezing.frozen_modules(mask) == {('backbone', 'stem'), ('head',)}


@BOTH
def test_an_unknown_state_offers_the_nearest(function):
    message = "unknown state of the freezing rule 'head/.*' 'trainble'; did you mean 'trainable'"
    with pytest.raises(UserError, match=re.escape(message)):
        function(PARAMS, [('head/.*', 'trainble'), ('.*', 'frozen')])


@BOTH
def test_rules_of_a_model_for_a_bare_backbone_name_what_to_leave_out(function):
    message = (
        "the freezing pattern 'backbone/stem/.*' matches none of the 3 parameters; the nearest are 'stem/kernel', "
        "'norm/bias', 'norm/scale' (these are the parameters of a backbone alone: leave out 'backbone/'; or mark a "
        "rule that may match none: (pattern, state, 'optional'))"
    )
    with pytest.raises(UserError, match=re.escape(message)):
        function(PARAMS['backbone'], [('backbone/stem/.*', 'frozen'), ('.*', 'trainable')])
    with pytest.raises(UserError, match=r"'backbone/\.\*' matches none of the 3 parameters"):
        function(PARAMS['backbone'], freezing.FREEZE_BACKBONE)


@BOTH
def test_a_rule_that_matches_nothing_names_the_nearest(function):
    message = "the freezing pattern 'backbone/nrom/.*' matches none of the 5 parameters; the nearest are 'backbone/norm"
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        function(PARAMS, [('backbone/nrom/.*', 'frozen'), ('.*', 'trainable')])
    assert 'leave out' not in str(caught.value)
    function(PARAMS, [('backbone/nrom/.*', 'frozen', 'optional'), ('.*', 'trainable')])


def test_another_mark_is_refused():
    with pytest.raises(
        UserError, match=r"unknown mark of the freezing rule 'head/\.\*' 'option'; did you mean 'optional'"
    ):
        freezing.mask(PARAMS, [('head/.*', 'frozen', 'option'), ('.*', 'frozen')])


@BOTH
def test_a_bad_regular_expression_is_named(function):
    message = "the freezing pattern 'backbone/(' is not a valid regular expression: "
    with pytest.raises(UserError, match=re.escape(message)):
        function(PARAMS, [('.*', 'frozen'), ('backbone/(', 'frozen')])


@pytest.mark.parametrize('change', ['missing', 'extra', 'shallower'])
def test_a_mask_that_does_not_fit_is_an_error_that_names_the_leaf(change):
    mask = freezing.mask(PARAMS, freezing.FREEZE_BACKBONE)
    if change == 'missing':
        del mask['backbone']['norm']['scale']
    elif change == 'extra':
        mask['backbone']['norm']['offset'] = True
    else:
        mask['backbone']['norm'] = True
    named = {'missing': 'backbone/norm/scale', 'extra': 'backbone/norm/offset', 'shallower': 'backbone/norm'}[change]
    with pytest.raises(UserError, match=f"mask does not fit the parameters: they differ at '{named}'"):
        freezing.split(PARAMS, mask)


def test_joining_a_leaf_onto_a_branch_is_an_error_that_names_it():
    with pytest.raises(UserError, match="'head/kernel' is both trainable and frozen"):
        freezing.join({'head': {'kernel': {'lora': np.ones(1)}}}, {'head': {'kernel': np.ones(1)}})


def test_joining_trees_that_share_a_leaf_is_an_error_that_names_it():
    trainable = {'head': {'kernel': np.ones(1), 'bias': np.ones(1)}}
    with pytest.raises(UserError, match="'head/bias' is both trainable and frozen"):
        freezing.join(trainable, {'head': {'bias': np.ones(1)}})


class Block(nn.Module):
    """A dense layer, statistics that training updates, and dropout that training switches on."""

    dropout: float = 0.0

    @nn.compact
    def __call__(self, x, train=False):
        x = BatchNorm(name='norm')(Dense(4, name='dense')(x), train=train)
        return nn.Dropout(self.dropout, deterministic=not train)(x)


class TwoBlocks(nn.Module):
    first_dropout: float = 0.0
    second_dropout: float = 0.0

    @nn.compact
    def __call__(self, x, train=False):
        x = Block(self.first_dropout, name='first')(x, train=train)
        return Block(self.second_dropout, name='second')(x, train=train)


FREEZE_FIRST = (('first/.*', 'frozen'), ('.*', 'trainable'))


@pytest.fixture
def inputs():
    return jnp.asarray(np.random.default_rng(0).normal(3, 2, (16, 4)), jnp.float32)


@pytest.fixture
def variables(inputs):
    """Running statistics that are neither those of the data nor the initial ones."""
    variables = TwoBlocks().init(jax.random.key(1), inputs)
    stats = jax.tree.map(lambda leaf: leaf + 0.5, variables['batch_stats'])
    return {'params': variables['params'], 'batch_stats': stats}


def train_forward(model, variables, inputs, rules, dropout_seed=0):
    """Outputs and new statistics of the forward pass of a training step, compiled as it is there."""
    mask = freezing.mask(variables['params'], rules)

    @jax.jit
    def forward(variables, inputs, key):
        with freezing.inference_where_frozen(mask):
            return model.apply(variables, inputs, train=True, mutable=['batch_stats'], rngs={'dropout': key})

    outputs, updates = forward(variables, inputs, jax.random.key(dropout_seed))
    return outputs, updates['batch_stats']


def assert_identical(actual, expected):
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def assert_every_leaf_differs(actual, expected):
    assert not any(jax.tree.leaves(jax.tree.map(np.array_equal, actual, expected)))


def test_a_frozen_batch_norm_uses_and_keeps_its_statistics_while_another_updates(inputs, variables):
    outputs, stats = train_forward(TwoBlocks(), variables, inputs, FREEZE_FIRST)
    assert_identical(stats['first'], variables['batch_stats']['first'])
    assert_every_leaf_differs(stats['second'], variables['batch_stats']['second'])

    def of(name):
        return {collection: tree[name] for collection, tree in variables.items()}

    hidden = Block().apply(of('first'), inputs, train=False)
    expected, updates = Block().apply(of('second'), hidden, train=True, mutable=['batch_stats'])
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)
    for name, leaf in updates['batch_stats']['norm'].items():
        np.testing.assert_allclose(stats['second']['norm'][name], leaf, rtol=1e-5)


def test_a_frozen_batch_norm_below_a_trained_module_keeps_its_statistics(inputs, variables):
    rules = [('first/norm/.*', 'frozen'), ('.*', 'trainable')]
    _, stats = train_forward(TwoBlocks(), variables, inputs, rules)
    assert_identical(stats['first'], variables['batch_stats']['first'])
    assert_every_leaf_differs(stats['second'], variables['batch_stats']['second'])


def test_a_half_frozen_batch_norm_still_updates(inputs, variables):
    rules = [('first/norm/bias', 'trainable'), ('first/.*', 'frozen'), ('.*', 'trainable')]
    _, stats = train_forward(TwoBlocks(), variables, inputs, rules)
    assert_every_leaf_differs(stats, variables['batch_stats'])


def test_a_model_that_is_frozen_whole_runs_in_inference_mode(inputs, variables):
    model = TwoBlocks(0.5, 0.5)
    outputs, stats = train_forward(model, variables, inputs, [('.*', 'frozen')])
    assert_identical(stats, variables['batch_stats'])
    np.testing.assert_allclose(outputs, model.apply(variables, inputs, train=False), rtol=1e-5, atol=1e-6)


def test_dropout_is_off_in_a_frozen_block(inputs, variables):
    outputs = [train_forward(TwoBlocks(first_dropout=0.5), variables, inputs, FREEZE_FIRST, seed)[0] for seed in (0, 1)]
    np.testing.assert_array_equal(*outputs)
    without, _ = train_forward(TwoBlocks(), variables, inputs, FREEZE_FIRST)
    np.testing.assert_array_equal(outputs[0], without)


def test_dropout_stays_on_in_a_trained_block(inputs, variables):
    outputs = [
        train_forward(TwoBlocks(second_dropout=0.5), variables, inputs, FREEZE_FIRST, seed)[0] for seed in (0, 1)
    ]
    assert not np.array_equal(*outputs)


def test_nothing_changes_outside_the_context(inputs, variables):
    mask = freezing.mask(variables['params'], FREEZE_FIRST)
    with freezing.inference_where_frozen(mask):
        pass
    _, updates = TwoBlocks().apply(variables, inputs, train=True, mutable=['batch_stats'])
    assert_every_leaf_differs(updates['batch_stats'], variables['batch_stats'])


def test_inference_stays_inference_inside_the_context(inputs, variables):
    mask = freezing.mask(variables['params'], FREEZE_FIRST)
    expected = TwoBlocks().apply(variables, inputs, train=False)
    with freezing.inference_where_frozen(mask):
        outputs, updates = TwoBlocks().apply(variables, inputs, train=False, mutable=['batch_stats'])
    np.testing.assert_array_equal(outputs, expected)
    assert_identical(updates['batch_stats'], variables['batch_stats'])


@pytest.mark.parametrize('name', ['resnet_micro', 'resnet50', 'efficientnet_lite0'])
def test_the_statistics_of_a_frozen_backbone_all_belong_to_frozen_modules(name):
    model = backbones.create_classifier(name, num_classes=2)
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    mask = freezing.mask(variables['params'], freezing.FREEZE_BACKBONE)
    modules = {path[:-1] for path in flatten_dict(variables['batch_stats'])}
    assert len(modules) > 5
    assert modules <= freezing.frozen_modules(mask)


def test_a_rule_that_comes_too_late_is_refused():
    """The commoner mistake: the head was meant to train, and everything is frozen."""
    params = {'backbone': {'kernel': np.zeros(2)}, 'head': {'kernel': np.zeros(2), 'bias': np.zeros(2)}}
    with pytest.raises(
        UserError, match=r"\('head/\.\*', 'trainable'\) has no effect: all 2 .* by \('\.\*', 'frozen'\) before"
    ):
        freezing.mask(params, [('.*', 'frozen'), ('head/.*', 'trainable')])
    freezing.mask(params, [('.*', 'frozen'), ('head/.*', 'trainable', 'optional')])
    freezing.mask(params, [('.*', 'frozen'), ('head/.*', 'frozen')])  # needless, but as it says
    freezing.mask({'backbone': params['backbone']}, freezing.FREEZE_BACKBONE)  # a catch-all for what is not there
