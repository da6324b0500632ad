"""Export to a file of ONNX, and run it."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import core

from backbones.errors import UserError
from experiments.cli import atomic_files
from experiments.export.exports import Export, metadata_strings

# Protocol buffers hold no more; larger models keep their weights in a file of their own.
_LARGEST = 2**31 - 2**20


def _missing(error: ImportError) -> UserError:
    return UserError(f"{error.name} is not installed; pip install -e '.[onnx]' installs what export to ONNX needs")


def build(exported: Export) -> Any:
    """An ONNX model of what is exported.

    Raises:
        UserError: the extra is not installed, or an operation has no counterpart.
    """
    try:
        from experiments.export.conversion import convert
    except ImportError as error:
        raise _missing(error) from None
    from experiments.export.program import trace

    program = trace(exported.function, exported.images)
    model = convert(program, [exported.input], list(exported.outputs))
    for name, value in metadata_strings(exported.metadata).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = name, value
    return model


def save(model: Any, path: Path) -> None:
    """Write a model; one larger than 2 GiB has its weights beside it in ``NAME.data``.

    Raises:
        UserError: it cannot be written.
    """
    import onnx

    with atomic_files.os_errors_as_user_errors(lambda: f'choose another file than {path}'):
        if model.ByteSize() > _LARGEST:
            path.parent.mkdir(parents=True, exist_ok=True)
            onnx.save_model(model, str(path), save_as_external_data=True, location=weights_of(path).name)
            return
        with atomic_files.atomic_write(path, 'wb') as stream:
            stream.write(model.SerializeToString())


def weights_of(path: Path) -> Path:
    """Where the weights of a model too large for one file are."""
    return path.with_name(f'{path.name}.data')


class Session:
    """An ONNX model in ONNX Runtime, on the CPU.

    Args:
        model: a file, or the bytes of one.
        threads: of one operation; ``0``: as many as there are processors.
        without: names of optimisations of the graph that are left out.

    Attributes:
        input: name of what it takes.
        outputs: names of what it returns.

    Raises:
        UserError: ONNX Runtime is not installed.
    """

    def __init__(self, model: Path | bytes, threads: int = 0, without: Sequence[str] = ()):
        try:
            import onnxruntime
        except ImportError as error:
            raise _missing(error) from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        given = model if isinstance(model, bytes) else str(model)
        self._session = onnxruntime.InferenceSession(
            given, options, providers=['CPUExecutionProvider'], disabled_optimizers=list(without)
        )
        self.input = self._session.get_inputs()[0].name
        self.outputs = tuple(each.name for each in self._session.get_outputs())

    def __call__(self, images: np.ndarray) -> list[np.ndarray]:
        """The outputs for a batch."""
        return [np.asarray(each) for each in self._session.run(None, {self.input: images})]


def read(path: Path) -> Any:
    """The model in a file."""
    import onnx

    return onnx.load(str(path))


def quantization() -> Any:
    """ONNX Runtime's tools for it.

    Raises:
        UserError: they are not installed.
    """
    try:
        from onnxruntime import quantization
    except ImportError as error:
        raise _missing(error) from None
    return quantization


def session_if_installed(path: Path) -> Session | None:
    """The file in ONNX Runtime; ``None`` where that is not installed."""
    return Session(path) if importlib.util.find_spec('onnxruntime') else None


def _in_jax(exported: Export, images: np.ndarray) -> list[jax.Array]:
    """The outputs in JAX, of a program that is passed the weights: it would be compiled with a copy of them."""
    closed = jax.make_jaxpr(exported.function)(jax.ShapeDtypeStruct(images.shape, images.dtype))
    compute = jax.jit(lambda weights, images: core.eval_jaxpr(closed.jaxpr, weights, images))
    return compute(closed.consts, images)


def largest_difference(exported: Export, run: Any, batches: tuple[int, ...] = (2, 3)) -> dict[str, float]:
    """How far another program's outputs are from JAX's on random images.

    Args:
        run: from a batch to the outputs.
        batches: numbers of images to try.

    Returns:
        For each output the largest difference, in relation to the largest value.
    """
    generator = np.random.default_rng(0)
    worst = dict.fromkeys(exported.outputs, 0.0)
    for batch in batches:
        images = generator.integers(0, 256, exported.example(batch).shape, np.uint8)
        if exported.images.dtype == jnp.float32:
            images = ((images.astype(np.float32) - 127.5) / 64).astype(np.float32)
        wanted, found = (list(map(np.asarray, each)) for each in (_in_jax(exported, images), run(images)))
        for name, one, two in zip(exported.outputs, wanted, found, strict=True):
            scale = max(float(np.abs(one.astype(np.float64)).max(initial=0)), 1e-12)
            difference = float(np.abs(one.astype(np.float64) - two.astype(np.float64)).max(initial=0))
            worst[name] = max(worst[name], difference / scale)
    return worst
