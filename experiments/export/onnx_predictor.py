"""Predictions by an exported file: the same reading, fitting and telling as a predictor's own program."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from backbones.errors import UserError
from backbones.prediction import outputs
from backbones.prediction.predictor import Predictor
from backbones.prediction.trained_model import TrainedModel
from experiments.export.exports import PIXELS
from experiments.export.onnx_file import Session


class OnnxPredictor(Predictor):
    """A predictor that computes in ONNX Runtime.

    Args:
        model: what was exported.
        file: what ``experiments.export --pixels`` made of it.
        batch_size: images per call.

    Raises:
        UserError: ONNX Runtime is not installed, or the file takes other inputs.
    """

    def __init__(self, model: TrainedModel, file: Path, batch_size: int = 8):
        super().__init__(model, batch_size, score_threshold=None)
        self._session = Session(file)
        if self._session.input != PIXELS:
            raise UserError(
                f'{file} takes {self._session.input!r}; export it with --pixels, so that it normalises itself'
            )
        self._program = self._run

    def _run(self, variables: Any, pixels: np.ndarray, extents: np.ndarray) -> dict[str, Any]:
        found = dict(zip(self._session.outputs, self._session(pixels), strict=True))
        finite = np.stack([np.isfinite(each).reshape(len(each), -1).all(-1) for each in found.values()]).all(0)
        if self.model.task != 'detection':
            reading = outputs.READINGS[self.model.task]
            found = reading.on_device(
                self.model.model, jax.numpy.asarray(found['logits']), pixels.shape[1:3], jax.numpy.asarray(extents)
            )
        return {**found, 'finite': finite}
