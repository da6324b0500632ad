"""What the README and the pages of docs/ refer to exists: links, commands, configs and their arguments, names."""

import ast
import importlib.util
import re
from itertools import product
from pathlib import Path

import jax
import pytest

import backbones

ROOT = Path(__file__).parent.parent
README = ROOT / 'README.md'
PAGES = (
    README,
    ROOT / 'CONTRIBUTING.md',
    *sorted((ROOT / 'docs').glob('*.md')),
    *sorted(ROOT.glob('backbones/**/README.md')),
)

over_pages = pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def headings(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    text = re.sub(r'^```.*?^```', '', page.read_text(), flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r'^#+ (.+)$', text, flags=re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', title.lower()).replace(' ', '-') for title in titles}


def expanded(pattern: str) -> set[str]:
    """The names that ``a_{b,c}`` stands for."""
    parts = re.split(r'\{(.*?)\}', pattern)
    return {''.join(choice) for choice in product(*(part.split(',') for part in parts))}


def test_readme_is_short():
    assert len(README.read_text().splitlines()) <= 150


@over_pages
def test_relative_links_lead_somewhere(page):
    for link in re.findall(r'\]\(([^)\s]+)\)', page.read_text()):
        if re.match(r'[a-z]+:', link):
            continue
        path, _, anchor = link.partition('#')
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f'{page.name} links to {link}'
        assert target.is_relative_to(ROOT), f'{page.name} links out of the repository: {link}'
        assert not anchor or anchor in headings(target), f'{page.name} links to {link}, and there is no such heading'


@over_pages
def test_paths_exist(page):
    tops = 'backbones|experiments|configs|launch|tests|notebooks|docs'
    # Not the end of a longer path, nor one with a placeholder in it.
    for path in re.findall(rf'(?<![\w./])((?:{tops})/[\w./]*\w)', page.read_text()):
        if re.search(r'\b[A-Z]+\b', Path(path).stem) and Path(path).stem != 'README':
            continue
        assert (ROOT / path).exists() or (page.parent / path).exists(), f'{page.name} names {path}'


@over_pages
def test_commands_exist(page):
    text = page.read_text()
    for module in re.findall(r'python -m ([\w.]+)', text):
        assert importlib.util.find_spec(module), f'{page.name} runs {module}'
    targets = set(re.findall(r'^([a-z][\w-]*(?: [a-z][\w-]*)*):', (ROOT / 'Makefile').read_text(), re.MULTILINE))
    for target in re.findall(r'`make ([a-z-]+)`', text):
        assert target in {name for line in targets for name in line.split()}, f'{page.name}: make {target}'


@over_pages
def test_configs_take_the_arguments_that_are_given(page):
    for file, arguments in re.findall(r'(configs/[\w/]+\.py):(\w+=[^\s`]*)', page.read_text()):
        functions = [node for node in ast.parse((ROOT / file).read_text()).body if isinstance(node, ast.FunctionDef)]
        known = {argument.arg for node in functions if node.name == 'get_config' for argument in node.args.args}
        given = set(re.findall(r'(?:^|,)(\w+)=', arguments))
        assert given <= known, f'{page.name}: {file} takes {known}, not {given - known}'


def test_readme_lists_every_backbone():
    table = README.read_text().partition('## Backbones')[2].partition('## ')[0]
    listed: set[str] = set()
    for first, last in re.findall(r'`(\w+)` … `(\w+)`', table):
        # They differ in their last character, a number or a size.
        assert first[:-1] == last[:-1]
        listed |= {name for name in backbones.names() if name[:-1] == first[:-1]}
    for pattern in re.findall(r'`([\w{},]+)`', table):
        listed |= expanded(pattern)
    assert listed == set(backbones.names())


def test_walks_of_the_architecture_name_what_exists():
    page = (ROOT / 'docs' / 'architecture.md').read_text()
    walks = page.partition('## The walk of a batch')[2].partition('## Recipes')[0]
    source = '\n'.join(file.read_text() for top in ('backbones', 'experiments') for file in (ROOT / top).rglob('*.py'))
    names = {name.rpartition('.')[2] for name in re.findall(r'`(\w+(?:\.\w+)*)(?:\(.*?\))?`', walks)}
    assert len(names) > 50
    missing = {name for name in names if not re.search(rf"\b(def|class) {name}\b|^ *'?{name}'?\b *[:=]", source, re.M)}
    # Optax's, the name of a layout, the end of a file's name.
    assert missing <= {'update', 'native', 'jsonl'}


def test_python_of_the_readme_runs():
    block = re.search(r'```python\n(.*?)```', README.read_text(), re.DOTALL)
    assert block is not None
    shown = re.findall(r'^(features\.\S+) +# float\[B,([\d,]+)\]', block[1], re.MULTILINE)
    assert len(shown) == 2
    values: dict = {}

    def run():
        exec(block[1], values)
        return {value: eval(value, values) for value, _ in shown}

    # Traced, not compiled: the shapes suffice.
    outputs = jax.eval_shape(run)
    assert {value: outputs[value].shape for value, _ in shown} == {
        value: (len(values['pixels']), *map(int, shape.split(','))) for value, shape in shown
    }
    assert f'# {values["report"]}' in block[1]


def test_citation_is_of_this_version():
    def value(file: str, key: str) -> str:
        return re.search(rf'^{key}\W+([\w.-]+)', (ROOT / file).read_text(), re.MULTILINE)[1]

    assert value('CITATION.cff', 'version') == value('pyproject.toml', 'version')
    assert value('CITATION.cff', 'license') == value('pyproject.toml', 'license')
