"""What the reference and ours are asked: images, and the random numbers of the reference in our arrangement."""

import numpy as np

SIZES = (32, 64, 224)
SEVERITIES = (1, 2, 3, 4, 5)
SEED = 5
# Places of an image whose outputs are kept.
PLACES = 100


def image(size: int) -> np.ndarray:
    """``uint8[size, size, 3]``: slopes, waves, flat colours, noise, black and white."""
    random = np.random.RandomState(size)
    y, x = np.mgrid[:size, :size] / size
    waves = np.stack([np.sin(9 * x + 5 * y), np.cos(12 * y), np.sin(15 * x * y)], -1)
    pixels = 128 + 90 * waves + random.normal(0, 12, (size, size, 3))
    pixels[size // 8 : size // 3, size // 8 : size // 2] = (220, 40, 30)
    pixels[size // 2 : -size // 8, size // 2 : -size // 4] = (20, 90, 200)
    pixels[size // 4 : size // 2, size // 2 : -size // 8] = 128
    pixels[: size // 6, -size // 6 :] = 255
    pixels[-size // 6 :, : size // 6] = 0
    return np.clip(pixels, 0, 255).astype(np.uint8)


def places(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the outputs that are kept; the corners are among them."""
    rows, columns = np.random.RandomState(size).randint(0, size, (2, PLACES))
    rows[:4], columns[:4] = (0, 0, -1, -1), (0, -1, 0, -1)
    return rows, columns


def noise(name: str, size: int, values):
    """What the reference draws after ``np.random.seed(SEED)``, as our function takes it.

    Args:
        values: the constants of the severity.
    """
    random, shape = np.random.RandomState(SEED), (size, size, 3)
    if name in ('gaussian_noise', 'speckle_noise'):
        return random.normal(size=shape)
    if name == 'shot_noise':
        return random.uniform(size=shape)
    if name == 'impulse_noise':
        random = np.random.default_rng(SEED)
        return random.random(shape), random.random(shape) <= 0.5
    if name == 'glass_blur':
        _, reach, repetitions = values
        drawn = np.zeros((3, size, size, 2), np.int32)
        inside = size - 2 * reach
        drawn[:repetitions, :inside, :inside] = random.randint(-reach, reach, (repetitions, inside, inside, 2))
        return drawn
    if name == 'motion_blur':
        return random.uniform(-45, 45)
    if name == 'snow':
        return random.normal(size=(size, size, 1)), random.uniform(-135, -45)
    if name == 'fog':
        side = 256 if size == 224 else size
        drawn, step = np.zeros((side, side)), side
        while step >= 2:
            corners, middles = slice(None, None, step), slice(step // 2, None, step)
            for rows, columns in ((middles, middles), (corners, middles), (middles, corners)):
                drawn[rows, columns] = random.uniform(-1, 1, (side // step, side // step))
            step //= 2
        return drawn
    if name == 'elastic_transform':
        return tuple(random.uniform(-1, 1, drawn) for drawn in ((3, 2), (size, size), (size, size)))
    if name == 'spatter':
        return random.normal(size=(size, size, 1))
    return None
