"""The embedded texts: docstrings of installed packages, of which these tests make tiny ones."""

import importlib.metadata
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from backbones import UserError
from experiments.data import account, docstrings, loading, record, text_account
from experiments.data.texts import Texts

RESULTS = Path(__file__).parents[2] / 'results' / 'text'
SHARED = 'Return the sum of all the elements of an array, along an axis.'


def write_package(root, name: str, count: int = 8) -> None:
    """Modules with docstrings of every kind, some of which are not kept."""
    package = root / name
    (package / 'tests').mkdir(parents=True)
    (package / '__init__.py').write_text(f'"""A module has no docstring here: {name}."""\nraise ImportError')
    own = 'dogs' if name == 'flax' else 'cats'  # what no mask makes equal
    source = [
        f'def shared():\n    """{SHARED}"""',
        'def short():\n    """Too short."""',
        f'class Made:\n    """A class of {name} that holds numbers of {own}, with a lot of numbers."""\n'
        f'    def method(self):\n        """Return a copy of these {own} of {name.upper()} as they are."""',
    ]
    source += [
        f'def function_{number}():\n    """The {number}. function of {name} that takes {own} and returns none."""'
        for number in range(count)
    ]
    source.append(f'def again():\n    """The  0. FUNCTION\n    of {name} that takes {own} and returns none.\n    """')
    (package / 'module.py').write_text('\n\n'.join(source))
    (package / 'old.py').write_text('print "of another Python"')
    (package / 'tests' / 'test_it.py').write_text(
        'def f():\n    """Nothing here is of any use to those who read it."""'
    )


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Two tiny packages in place of the installed ones, and a cache of their own."""
    for name in ('flax', 'optax'):
        write_package(tmp_path / 'installed', name)
    monkeypatch.setenv('VISION_BACKBONES_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setattr(docstrings, 'PACKAGES', {'flax': 'flax', 'optax': 'optax'})
    monkeypatch.setattr(docstrings, '_root', lambda package: tmp_path / 'installed' / package)
    return tmp_path


def test_what_is_kept(packages):
    dataset = loading.load('docstrings', inputs='texts')
    assert dataset.classes == ('flax', 'optax')
    assert isinstance(dataset.images, Texts)
    # Not the shared one, the short one, and what a test, a module or an unreadable file holds.
    of_flax = {id.partition(':')[2] for id in dataset.ids if id.startswith('flax.module:')}
    both = {'again', 'function_0'}  # alike but for case and spaces
    assert len(of_flax & both) == 1
    assert of_flax - both == {'Made', 'Made.method', *(f'function_{number}' for number in range(1, 8))}
    assert np.bincount(dataset.targets).tolist() == [10, 10]
    assert not re.search('flax|optax', ' '.join(dataset.images.values), re.I)
    assert 'Return a copy of these dogs of package as they are.' in dataset.images.values
    assert "masked as 'package'" in dataset.provenance
    assert f'flax {importlib.metadata.version("flax")}, optax ' in dataset.provenance


def test_nothing_is_imported(packages, monkeypatch):
    for name in ('flax', 'optax'):
        monkeypatch.delitem(sys.modules, name, raising=False)
    docstrings.load()
    assert not {'flax', 'optax'} & sys.modules.keys()


@pytest.mark.parametrize(
    ('docstring', 'kept'),
    [
        ('Of jax.numpy.sin and np.cos, not unpacked.', 'Of package.sin and package.cos, not unpacked.'),
        ('A scikit-learn estimator; a jaxpr; is_numpy_array', 'A package estimator; a package; is_package_array'),
        ('Head\n----\n  x : int\n====  ===\n', 'Head x : int'),
        ('word ' * 200, ' '.join(['word'] * (docstrings.LENGTH // 5))),
        ('x' * 700, 'x' * docstrings.LENGTH),
    ],
)
def test_what_is_kept_of_a_docstring(docstring, kept):
    assert docstrings._clean(docstring) == kept


def test_they_are_parsed_once(packages, monkeypatch):
    first = docstrings.load()
    monkeypatch.setattr(docstrings, 'collect', lambda roots: pytest.fail('parsed again'))
    again = docstrings.load()
    assert (again.ids, again.fingerprint()) == (first.ids, first.fingerprint())
    before = loading.stamp('docstrings')
    monkeypatch.setattr('importlib.metadata.version', lambda name: '99.0')
    assert loading.stamp('docstrings') != before
    with pytest.raises(pytest.fail.Exception, match='parsed again'):
        docstrings.load()


@pytest.mark.parametrize('content', ['', '[1', '[[1]]', 'null'])
def test_a_damaged_file_is_written_again(packages, content):
    first = docstrings.load()
    (file,) = (packages / 'cache' / 'texts').iterdir()
    whole = file.read_text()
    file.write_text(content)
    assert docstrings.load().ids == first.ids
    assert json.loads(file.read_text()) == json.loads(whole)


def test_where_nothing_can_be_kept(packages, monkeypatch):
    (packages / 'file').touch()
    monkeypatch.setenv('VISION_BACKBONES_CACHE', str(packages / 'file'))
    assert len(docstrings.load().ids) == 20


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(docstrings.PACKAGES, 'nowhere', 'no-such-package')
    with pytest.raises(UserError, match='no-such-package is not installed: pip install no-such-package'):
        docstrings.load()


def test_account_and_record(packages, tmp_path, capsys):
    dataset = docstrings.load()
    account.show(dataset)
    shown = capsys.readouterr().err
    assert 'texts   20 texts of 11 to 14 words, median 11' in shown
    assert 'stored  the first 600 characters of each' in shown
    assert 'images' not in shown
    record.write(tmp_path / 'run', dataset, loading.stamp('docstrings'))
    assert record.check(tmp_path / 'run', dataset) == []
    assert account.as_json(dataset)['sizes'] == '20 texts of 11 to 14 words, median 11'


@pytest.mark.slow
def test_the_installed_ones(tmp_path, monkeypatch):
    """Real ones: enough of each, no name of a package left, and only a moment the second time."""
    monkeypatch.setenv('VISION_BACKBONES_CACHE', str(tmp_path))
    dataset = loading.load('docstrings', inputs='texts')
    assert dataset.classes == tuple(sorted(docstrings.PACKAGES))
    counts = np.bincount(dataset.targets)
    assert counts.min() >= 250
    assert counts.max() <= docstrings.MOST
    texts = dataset.images.values
    assert len({text_account.normalised(text) for text in texts}) == len(texts) == len({*dataset.ids})
    names = [text for text in texts if re.search(r'numpy|scipy|sklearn|matplotlib|pandas|flax|optax|jax|\bnp\.', text)]
    assert names == []
    assert max(map(len, texts)) <= docstrings.LENGTH
    published = json.loads((RESULTS / 'results.jsonl').read_text().partition('\n')[0])['data']
    if published['provenance'] == dataset.provenance:  # of the same versions of the packages
        assert published['fingerprint'] == dataset.fingerprint(), 'the published results are of other splits'
    again = loading.load('docstrings', inputs='texts')
    assert again.fingerprint() == dataset.fingerprint()
