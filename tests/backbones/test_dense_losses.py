"""Losses of pixels against torch's stored answers and plain numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from backbones.losses import pixel_cross_entropy, soft_dice
from tests.parity.segmentation import cases
from tests.parity.segmentation.comparing import stored

LOGITS = cases.noise('logits', cases.BATCH, *cases.SIZE, cases.CLASSES)
LABELS = cases.labels(cases.BATCH)
COUNTS = LABELS != cases.IGNORE


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def cross_entropy(rows: slice | list[int]) -> float:
    """The mean over the pixels of these images that count."""
    counts = COUNTS[rows]
    return -log_softmax(LOGITS[rows])[counts, LABELS[rows][counts]].mean()


def test_cross_entropy_of_a_batch_is_torchs():
    """The last image has no pixel that counts, but is one of those that the mean is over."""
    reference = stored('cross_entropy')
    np.testing.assert_allclose(pixel_cross_entropy(LOGITS, LABELS).mean(), reference['all'], rtol=1e-6)
    np.testing.assert_allclose(pixel_cross_entropy(LOGITS[:2], LABELS[:2]).mean(), reference['two'], rtol=1e-6)
    np.testing.assert_allclose(cross_entropy(slice(None)), reference['all'], rtol=1e-6)


def test_an_image_weighs_by_its_pixels_that_count():
    labels = LABELS.copy()
    labels[0, :, 20:] = cases.IGNORE
    losses = np.asarray(pixel_cross_entropy(LOGITS, labels))
    sums = [-log_softmax(LOGITS[i])[labels[i] != 255, labels[i][labels[i] != 255]].sum() for i in range(3)]
    np.testing.assert_allclose(losses[:3] / losses[:3].sum(), np.array(sums) / sum(sums), rtol=1e-5)
    assert losses[3] == 0


@pytest.mark.parametrize('loss', [pixel_cross_entropy, soft_dice])
def test_rows_that_are_no_examples_do_not_count(loss):
    """Neither their values nor what they hold; the mean is over the other images."""
    valid = jnp.array([1.0, 0.0, 1.0, 0.0])
    losses = np.asarray(loss(LOGITS, LABELS, valid))
    assert losses[[1, 3]].tolist() == [0, 0]
    expected = np.asarray(loss(LOGITS[[0, 2]], LABELS[[0, 2]]))
    np.testing.assert_allclose(losses[[0, 2]], expected, rtol=1e-6)
    if loss is pixel_cross_entropy:
        np.testing.assert_allclose(losses.sum() / valid.sum(), cross_entropy([0, 2]), rtol=1e-6)


@pytest.mark.parametrize('loss', [pixel_cross_entropy, soft_dice])
@pytest.mark.parametrize('valid', [None, np.zeros(4, np.float32)])
def test_nothing_that_counts_is_a_loss_of_zero_without_a_gradient(loss, valid):
    nothing = LABELS if valid is not None else np.full_like(LABELS, cases.IGNORE)
    value, gradient = jax.value_and_grad(lambda logits: loss(logits, nothing, valid).mean())(LOGITS)
    assert value == 0
    assert np.abs(gradient).max() == 0


@pytest.mark.parametrize('loss', [pixel_cross_entropy, soft_dice])
def test_gradients_vanish_at_pixels_that_do_not_count_and_are_those_of_the_loss(loss):
    gradient = np.asarray(jax.grad(lambda logits: loss(logits, LABELS).mean())(LOGITS))
    assert np.abs(gradient[~COUNTS]).max() == 0
    assert np.abs(gradient[COUNTS]).min(0).max() > 0
    if loss is pixel_cross_entropy:
        one_hot = np.eye(cases.CLASSES)[LABELS[COUNTS]]
        expected = (np.exp(log_softmax(LOGITS)[COUNTS]) - one_hot) / COUNTS.sum()
        np.testing.assert_allclose(gradient[COUNTS], expected, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize('squared', [False, True])
def test_soft_dice_is_monais(squared):
    """1 - (2 Σ p g + s) / (Σ p + Σ g + s) of every class of every image, then the mean over the classes."""
    losses = soft_dice(LOGITS, LABELS, squared=squared)
    for image in range(3):
        values = []
        for label in range(cases.CLASSES):
            p = np.exp(log_softmax(LOGITS[image]))[COUNTS[image], label]
            g = (LABELS[image][COUNTS[image]] == label).astype(float)
            below = (p**2).sum() + (g**2).sum() if squared else p.sum() + g.sum()
            values.append(1 - (2 * (p * g).sum() + 1e-5) / (below + 1e-5))
        np.testing.assert_allclose(losses[image], np.mean(values), rtol=1e-5)
    assert losses[3] == 0


def test_soft_dice_of_a_perfect_prediction_is_near_zero():
    labels = np.where(COUNTS, LABELS, cases.IGNORE)
    logits = 50 * np.eye(cases.CLASSES, dtype=np.float32)[np.where(COUNTS, LABELS, 0)]
    np.testing.assert_allclose(soft_dice(logits, labels), 0, atol=1e-6)


def test_losses_of_half_precision_are_computed_in_float32():
    low = jnp.asarray(LOGITS, jnp.bfloat16)
    for loss in (pixel_cross_entropy, soft_dice):
        assert loss(low, LABELS).dtype == jnp.float32
        np.testing.assert_array_equal(loss(low, LABELS), loss(low.astype(jnp.float32), LABELS))
