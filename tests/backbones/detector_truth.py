"""What the losses of every detector are tried on."""

import numpy as np

SIZE = (48, 64)
# An image with objects, one of which has no area; one without any; and a row that is no example, with rubbish in it.
TRUTH = {
    'boxes': np.array(
        [
            [[4, 4, 30, 40], [10, 10, 10, 30], [40, 8, 60, 30], [0, 0, 0, 0]],
            [[0, 0, 0, 0]] * 4,
            [[5, 5, 20, 20], [np.nan, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]],
        ],
        np.float32,
    ),
    'classes': np.array([[0, 1, 2, -1], [-1] * 4, [1, 1, -1, -1]], np.int32),
    'valid': np.array([1, 1, 0], np.float32),
}
