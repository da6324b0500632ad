"""Everything that stored features depend on, as a readable document whose hash is their address."""

import ast
import dataclasses
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from backbones.inputs import AnyPreprocessing
from backbones.preprocessing import Preprocessing
from backbones.text.tokenising import Tokenising
from experiments.training.mesh import DeviceMesh


def variables_digest(variables: Mapping) -> str:
    """SHA-256 of paths, types, shapes and values of all variables."""
    digest = hashlib.sha256()
    for path, leaf in sorted(flatten_dict(variables, sep='/').items()):
        array = np.asarray(leaf)
        digest.update(f'{path} {array.dtype} {array.shape}\n'.encode() + array.tobytes())
    return digest.hexdigest()


def preprocessing_document(preprocessing: AnyPreprocessing) -> dict[str, Any]:
    """All constants of the preprocessing; what later versions added is left out where it changes nothing.

    Those of texts are in their tokens, which are the data.
    """
    if isinstance(preprocessing, Tokenising):
        return {'length': preprocessing.length}
    document = {
        field.name: getattr(preprocessing, field.name)
        for field in dataclasses.fields(preprocessing)
        if getattr(preprocessing, field.name) != field.default
    }
    return json.loads(json.dumps(document, default=dataclasses.asdict))


def module_document(module: nn.Module) -> dict[str, Any]:
    """A backbone as built: its class, all options, and the version of the code that defines it."""
    options = {
        field.name: _readable(getattr(module, field.name))
        for field in dataclasses.fields(module)  # ty: ignore[invalid-argument-type]
        if field.name not in ('parent', 'name')
    }
    kind = type(module)
    return {'class': f'{kind.__module__}.{kind.__qualname__}', 'options': options, 'code': code_version(module)}


def _readable(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_readable(each) for each in value]
    if isinstance(value, Mapping):
        return {str(key): _readable(each) for key, each in value.items()}
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, functools.partial):
        return [_readable(value.func), _readable(value.args), _readable(value.keywords)]
    if callable(value) and hasattr(value, '__qualname__'):
        return f'{value.__module__}.{value.__qualname__}'
    return str(jnp.dtype(value))


def code_version(module: nn.Module) -> str:
    """A hash of the source files that define a backbone and its preprocessing.

    They are the file of its class and all modules of the same package that it imports, directly or indirectly (layers
    and blocks, but not the registry or the keymaps, whose effect is in the options and the weights). Comments,
    docstrings and formatting do not count.
    """
    package = type(module).__module__.partition('.')[0]
    return _source_digest(
        _imported(type(module).__module__, package) | _imported(Preprocessing.__module__, 'backbones')
    )


def source_version(*names: str) -> str:
    """A hash of the source files of some modules, excluding their imports."""
    return _source_digest({name: file for name in names if (file := _source_file(name)) is not None})


def _imported(name: str, package: str) -> dict[str, Path]:
    """Module → source file, for a module and everything that it imports from the package."""
    found: dict[str, Path] = {}
    waiting = [name]
    while waiting:
        current = waiting.pop()
        file = _source_file(current)
        if current in found or file is None:
            continue
        found[current] = file
        waiting += [each for each in _imports(file) if each.partition('.')[0] == package]
    # An __init__.py only ties a package together; it defines no backbone.
    return {each: file for each, file in found.items() if file.name != '__init__.py'}


def _imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            # An imported name may be a module, or be defined in one.
            yield from (f'{node.module}.{each.name}' for each in node.names)
            source = _source_file(node.module)
            if source is not None and source.name != '__init__.py':
                yield node.module


def _source_file(name: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return None
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith('.py') else None


def _source_digest(files: Mapping[str, Path]) -> str:
    digest = hashlib.sha256()
    for name, file in sorted(files.items()):
        tree = ast.parse(file.read_text())
        for node in ast.walk(tree):
            body = getattr(node, 'body', None)
            if isinstance(body, list) and body and _is_text(body[0]):
                body[0] = ast.Pass()
        digest.update(f'{name}\n{ast.dump(tree)}\n'.encode())
    return digest.hexdigest()


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def computation_document(device_mesh: DeviceMesh, batch_size: int, dtype: str) -> dict[str, Any]:
    """Everything that the last bits depend on: stored features are used only if recomputing gives the same bits."""
    kinds = sorted({device.device_kind for device in device_mesh.mesh.devices.flat})
    return {
        'dtype': dtype,
        'matmul_precision': jax.config.jax_default_matmul_precision,  # ty: ignore[missing-attribute]
        'batch_size': batch_size,
        'devices': f'{device_mesh.devices} x {device_mesh.platform} {", ".join(kinds)}',
        **{package: importlib.metadata.version(package) for package in ('jax', 'jaxlib', 'flax')},
    }
