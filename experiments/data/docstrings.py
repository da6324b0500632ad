"""``docstrings``: texts that come with the packages of ``requirements.txt``, so the first experiment needs no download.

A text is the docstring of a function, method or class; its class is the package that it comes from. The sources are
parsed, never imported. What would give the class away is masked: every text has a neutral word in place of the names of
all the packages. Other versions of the packages have other docstrings, so the versions are a part of the provenance.
"""

import ast
import hashlib
import importlib.metadata
import importlib.util
import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from backbones.errors import UserError
from experiments.cli import atomic_files, cache_directory, display
from experiments.data import text_account
from experiments.data.dataset import Dataset
from experiments.data.splits import split_by_hash
from experiments.data.texts import Texts

NAME = 'docstrings'
# Class → distribution that pip installs. All have hundreds of docstrings.
PACKAGES = {
    'flax': 'flax',
    'jax': 'jax',
    'matplotlib': 'matplotlib',
    'numpy': 'numpy',
    'optax': 'optax',
    'pandas': 'pandas',
    'scipy': 'scipy',
    'sklearn': 'scikit-learn',
}
# Most texts of a class, so that classes are of similar size, and most of one file, so that no file makes a class.
MOST, MOST_OF_A_FILE = 500, 20
# Characters that are kept of a docstring, and words that it needs.
LENGTH, FEWEST_WORDS = 600, 8
MASK = 'package'

# Read of each package, as some will turn out to be duplicates.
_CANDIDATES = MOST * 6 // 5
# Tests, and copies of other packages.
_NO_SOURCES = re.compile(
    r'(?:^|/)(?:_?tests?|_?testing|_?vendor\w*|_?externals?)/|(?:^|/)(?:conftest|test_[^/]*|[^/]*_tests?)\.py$'
)
# Names of the packages, also in longer words (``is_jax_array``, ``jaxpr``), and short ones that mean them, as words of
# their own; several with points between are one.
_NAMES = 'scikit[-_ ]?learn|sklearn|matplotlib|pyplot|mpl_toolkits|mplot3d|numpy|scipy|pandas|optax|flax|jax'
_ALIASES = 'np|npt|jnp|jsp|lax|nnx|linen|mpl|plt|pd|sp'
_NAME = rf'(?:{_NAMES})[a-z0-9]*|\b(?:{_ALIASES})\b'
_MASKED = re.compile(rf'(?:{_NAME})(?:\.(?:{_NAME}))*', re.I)
# Rules under headings and around tables.
_RULES = re.compile(r'([-=~*^_`#+.])\1{2,}')


class _Docstring(NamedTuple):
    """A docstring, masked and cut.

    Attributes:
        id: module path and qualified name, such as ``jax._src.lax.lax:conv``.
    """

    package: str
    id: str
    text: str


def load() -> Dataset:
    """Up to 500 docstrings of each of eight packages; the first time they are parsed, later they are read from a file.

    Raises:
        UserError: a package is not installed.
    """
    found = _cached()
    classes = tuple(sorted({each.package for each in found}))
    texts = Texts([each.text for each in found])
    labels = np.array([classes.index(each.package) for each in found], np.int32)
    ids = tuple(each.id for each in found)
    splits, how = split_by_hash(labels, ids)
    versions = ', '.join(f'{distribution} {version}' for distribution, version in _versions().items())
    return Dataset(
        name=NAME,
        images=texts,
        targets=labels,
        ids=ids,
        classes=classes,
        splits=splits,
        provenance=(
            f'docstrings of {versions}, at most {MOST} of each and {MOST_OF_A_FILE} of a file, of at least '
            f'{FEWEST_WORDS} words, each once but for case and spaces and none that two packages share; names of the '
            f"packages masked as '{MASK}'; {how}"
        ),
        account=text_account.account(
            texts.values, rules=(f'the first {LENGTH} characters of each, in one line, without rules under headings',)
        ),
        digests=text_account.digests(texts.values),
    )


def texts() -> dict[str, str]:
    """Id → text of all of them.

    Raises:
        UserError: a package is not installed.
    """
    return {each.id: each.text for each in _cached()}


def stamp() -> str:
    """What the texts depend on: the versions of the packages, and how their docstrings are read."""
    how = (MOST, MOST_OF_A_FILE, LENGTH, FEWEST_WORDS, MASK, _MASKED.pattern, _RULES.pattern, _NO_SOURCES.pattern)
    text = repr((1, sys.version_info[:2], PACKAGES, _versions(), how))
    return hashlib.sha256(text.encode()).hexdigest()


def _versions() -> dict[str, str]:
    found = {}
    for distribution in PACKAGES.values():
        try:
            found[distribution] = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            raise UserError(
                f"the data set 'docstrings' reads the sources of {', '.join(PACKAGES.values())}, and {distribution} "
                f'is not installed: pip install {distribution}'
            ) from None
    return found


def _cached() -> list[_Docstring]:
    """The docstrings from the file that keeps them, which is written if it is not there or damaged."""
    file = cache_directory.texts() / f'docstrings.{stamp()[:16]}.json'
    try:
        return [_Docstring(*row) for row in json.loads(file.read_text(encoding='utf-8'))]
    except (OSError, ValueError, TypeError):
        pass
    found = collect({package: _root(package) for package in PACKAGES})
    try:
        with atomic_files.atomic_write(file) as stream:
            json.dump(found, stream)
    except OSError:
        pass  # they are parsed again the next time
    return found


def _root(package: str) -> Path:
    spec = importlib.util.find_spec(package)  # of a package at the top: nothing is imported
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"the data set 'docstrings' finds no folder of the installed package {package}")
    return Path(spec.submodule_search_locations[0])


def collect(roots: Mapping[str, Path]) -> list[_Docstring]:
    """The docstrings of packages that are kept, by package and id.

    Args:
        roots: package → folder of its sources.
    """
    candidates: dict[str, list[_Docstring]] = {}
    with display.progress() as bar:
        task = bar.add_task('parsing docstrings', total=len(roots) * _CANDIDATES, note='', brief=True)
        for place, (package, root) in enumerate(roots.items()):
            candidates[package] = []
            for file in _sources(root):
                name = '.'.join((package, *file.relative_to(root).with_suffix('').parts)).removesuffix('.__init__')
                candidates[package] += _of_file(file, package, name)
                bar.update(task, completed=place * _CANDIDATES + min(len(candidates[package]), _CANDIDATES))
                if len(candidates[package]) >= _CANDIDATES:
                    break
            bar.update(task, completed=(place + 1) * _CANDIDATES)
    packages_of: dict[str, set[str]] = defaultdict(set)
    for each in (each for rows in candidates.values() for each in rows):
        packages_of[text_account.normalised(each.text)].add(each.package)
    kept = []
    for rows in candidates.values():
        once = {text_account.normalised(each.text): each for each in sorted(rows, key=_order, reverse=True)}
        own = [each for text, each in once.items() if len(packages_of[text]) == 1]
        kept += sorted(sorted(own, key=_order)[:MOST], key=lambda each: each.id)
    return kept


def _sources(root: Path) -> list[Path]:
    """Files in the order of a hash of their path, so that one more file hardly changes which are read."""
    names = [file.relative_to(root).as_posix() for file in root.rglob('*.py')]
    names = [name for name in names if not _NO_SOURCES.search(name)]
    return [root / name for name in sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())]


def _of_file(file: Path, package: str, module: str) -> list[_Docstring]:
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return []  # of another version of Python
    found: dict[str, _Docstring] = {}
    for name, docstring in _docstrings(tree.body, ''):
        text = _clean(docstring)
        if len(text.split()) >= FEWEST_WORDS:
            example = f'{module}:{name}'
            found.setdefault(example, _Docstring(package, example, text))  # a property is defined several times
    return sorted(found.values(), key=_order)[:MOST_OF_A_FILE]


def _order(docstring: _Docstring) -> bytes:
    return hashlib.sha256(docstring.id.encode()).digest()


def _docstrings(body: Sequence[ast.stmt], outer: str) -> Iterator[tuple[str, str]]:
    """Qualified name and docstring of each class, method and function of a module."""
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield outer + node.name, text
            if isinstance(node, ast.ClassDef):
                yield from _docstrings(node.body, f'{outer}{node.name}.')


def _clean(docstring: str) -> str:
    """One line, masked, and cut after a word."""
    # What is far beyond the cut need not be searched.
    text = ' '.join(_RULES.sub(' ', _MASKED.sub(MASK, docstring[: 3 * LENGTH])).split())
    return text if len(text) <= LENGTH else text[: LENGTH + 1].rpartition(' ')[0] or text[:LENGTH]
