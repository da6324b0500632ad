"""Static quantisation to 8-bit integers, by ONNX Runtime: weights per channel, activations by what images show."""

import contextlib
import logging
import tempfile
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from experiments.export import onnx_file

# Where the time of a network is, and its weights.
_OPERATIONS = ('Conv', 'MatMul', 'Gemm')


def quantise(whole: Path, images: Iterable[np.ndarray], path: Path) -> None:
    """Write a model with 8-bit weights and activations.

    Args:
        whole: the file of the model in float32.
        images: inputs of the model, one image each, that show the range of every activation.
        path: the file to write.

    Raises:
        UserError: ONNX Runtime is not installed, or the file cannot be written.
    """
    quantization = onnx_file.quantization()
    reader = _reader(quantization, onnx_file.Session(whole).input, iter(images))
    # It advises to optimise the graph first, which export has done.
    with tempfile.TemporaryDirectory() as directory, _without_advice():
        written = Path(directory) / 'int8.onnx'
        quantization.quantize_static(
            whole,
            written,
            reader,
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=list(_OPERATIONS),
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            # Products of 8-bit numbers would overflow the 16 bits that processors without VNNI add them in.
            reduce_range=True,
        )
        onnx_file.save(onnx_file.read(written), path)


@contextlib.contextmanager
def _without_advice() -> Generator[None]:
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _reader(quantization: Any, name: str, images: Iterator[np.ndarray]) -> Any:
    class Reader(quantization.CalibrationDataReader):
        def get_next(self):
            image = next(images, None)
            return None if image is None else {name: image}

    return Reader()
