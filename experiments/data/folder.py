"""``folder:PATH``: one's own images, a folder per class.

Either ``PATH/train/CLASS/*.jpg`` with ``PATH/test/CLASS/*`` and, if there is one, ``PATH/validation/CLASS/*`` (or
``val``), or just ``PATH/CLASS/*``, which is split by a hash of the file's path.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from backbones.errors import UserError
from experiments.data.dataset import Dataset, split_by_hash, split_off_validation
from experiments.data.decoding import DecodedImages, decode_all, fit_to_square
