"""The names of the package, which are imported when they are first used."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import backbones

ROOT = Path(__file__).parents[2]


def test_every_public_name_is_there():
    assert all(getattr(backbones, name) is not None for name in backbones.__all__)
    assert {*backbones.__all__} <= {*dir(backbones)}


def test_what_type_checkers_see_is_what_is_imported():
    tree = ast.parse(Path(backbones.__file__).read_text())
    (seen,) = [node for node in tree.body if isinstance(node, ast.If)]
    modules = {alias.name: each.module for each in seen.body for alias in each.names}
    assert {*modules} == {*backbones.__all__}
    for name, module in modules.items():
        value = getattr(backbones, name)
        assert value.__name__ == f'backbones.{name}' if module == 'backbones' else value.__module__ == module


def test_modules_are_attributes_and_other_names_are_not():
    assert backbones.cost.__name__ == 'backbones.cost'
    assert not hasattr(backbones, 'resnet50')
    with pytest.raises(AttributeError, match="module 'backbones' has no attribute '_nothing'"):
        backbones._nothing  # noqa: B018


def test_the_errors_do_without_jax():
    code = "import backbones.errors, sys; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True)
