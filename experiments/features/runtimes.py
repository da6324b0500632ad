"""What computes the frozen pass: XLA, or on a CPU ONNX Runtime, on the graph that export makes of the same function.

``benchmarks/extract.py`` compares the two. Their results differ in the last bits, so features name what computed them
in their identity (``document``): equal addresses stay equal bits.
"""

import functools
import importlib.metadata
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from backbones.errors import UserError
from experiments.features import identity
from experiments.training.mesh import DeviceMesh

XLA, ONNX_RUNTIME, AUTO = 'xla', 'onnxruntime', 'auto'
RUNTIMES = (AUTO, XLA, ONNX_RUNTIME)
_PACKAGES = ('onnx', 'onnxruntime')
# It merges a sum with the normalisation that follows unless the sum is used elsewhere, such as by another tap.
_WITHOUT = ('SkipLayerNormFusion',)


def choose(asked: str, device_mesh: DeviceMesh, dtype: str, of_texts: bool = False) -> str:
    """The runtime of a pass.

    Args:
        asked: one of ``RUNTIMES``; ``'auto'`` takes ONNX Runtime where it is installed and can be used.
        device_mesh, dtype: the devices, and the type in which the backbone computes.
        of_texts: whether the backbone reads texts.

    Raises:
        UserError: ONNX Runtime is asked for and cannot be used.
    """
    if asked == XLA:
        return XLA
    reason = _unusable(device_mesh, dtype, of_texts)
    if asked == ONNX_RUNTIME and reason is not None:
        raise UserError(f"runtime='onnxruntime' cannot be used: {reason}; runtime='auto' takes it where it can")
    return XLA if reason is not None else ONNX_RUNTIME


def _unusable(device_mesh: DeviceMesh, dtype: str, of_texts: bool) -> str | None:
    """Why ONNX Runtime cannot compute a pass; ``None`` if it can."""
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        return f"{' and '.join(missing)} are not installed, which pip install -e '.[onnx]' mends"
    if device_mesh.platform != 'cpu' or device_mesh.devices > 1:
        return f'it computes on one CPU, and here are {device_mesh.devices} devices of {device_mesh.platform}'
    if of_texts:
        return 'its graphs are of one shape, and texts have several lengths'
    return f'it computes in float32, not in {dtype}' if dtype != 'float32' else None


@functools.cache
def document(runtime: str) -> dict[str, str]:
    """What features depend on in a runtime, besides what they depend on in any; nothing for XLA."""
    if runtime == XLA:
        return {}
    package = Path(__file__).parents[1] / 'export'
    modules = [
        f'experiments.export.{".".join(file.relative_to(package).with_suffix("").parts)}'
        for file in (package / 'program.py', package / 'graph.py', package / 'conversion.py')
    ]
    modules += [f'experiments.export.operators.{file.stem}' for file in (package / 'operators').glob('*.py')]
    return {
        'runtime': f'onnxruntime {importlib.metadata.version("onnxruntime")}',
        'export_code': identity.source_version(*modules),
    }


class OnnxProgram:
    """A pass in ONNX Runtime: called like the compiled one, with variables and images.

    The graph has one output for each of the pass; the bits of one do not depend on which others there are. It holds
    the weights, so it is made again for other variables; that of the last ones is kept.
    """

    def __init__(self, apply: Callable[[Any, Array], tuple[Float[Array, 'batch *rest'], ...]]):
        self._apply = apply
        self._session: Any = None
        self._made_for: Any = None

    def __call__(self, variables: Any, images: Array) -> tuple[Float[np.ndarray, 'batch *rest'], ...]:
        """Every output for a batch."""
        if self._made_for is not variables:
            self._session, self._made_for = self._make(variables, images), variables
        return tuple(self._session(np.asarray(images)))

    def _make(self, variables: Any, images: Array) -> Any:
        # Imported where it is needed: an optional requirement.
        from experiments.export.conversion import convert
        from experiments.export.onnx_file import Session
        from experiments.export.program import trace

        weights = jax.device_get(variables)
        shape = jax.ShapeDtypeStruct(images.shape, images.dtype)
        program = trace(lambda images: self._apply(weights, images), shape)
        names = [f'features{number}' for number in range(len(program.outputs))]
        return Session(convert(program, ['images'], names).SerializeToString(), without=_WITHOUT)
