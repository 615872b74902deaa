"""References of public kernels against definitions written out."""

from __future__ import annotations

import numpy as np
import pytest

from conformance.cases import nki_library_attention as attention
from conformance.cases import nki_library_layers as layers
from conformance.cases import references as ref


@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, (0, 0), 1), (2, (2, 1), 2)])
def test_convolution(stride, padding, dilation) -> None:
    x, filters, bias = ref.uniform("x", 2, 3, 12), ref.uniform("f", 3, 3, 5), ref.uniform("b", 5)
    got = layers._convolution(x, filters, bias, stride, padding, dilation)
    padded = np.pad(x, ((0, 0), (0, 0), padding))
    for batch, out, at in np.ndindex(got.shape):
        taps = [padded[batch, :, at * stride + k * dilation] @ filters[k, :, out] for k in range(3)]
        assert got[batch, out, at] == pytest.approx(sum(taps) + bias[out], abs=1e-5)


def test_depthwise_convolution() -> None:
    image, weights = ref.uniform("x", 2, 3, 1, 12), ref.uniform("w", 3, 1, 1, 4)
    got = layers._depthwise(image, weights, stride=2)
    assert got.shape == (2, 3, 1, 5)
    for batch, channel, _, at in np.ndindex(got.shape):
        window = image[batch, channel, 0, 2 * at : 2 * at + 4]
        assert got[batch, channel, 0, at] == pytest.approx(window @ weights[channel, 0, 0], abs=1e-5)


def test_loss_gradient_is_the_slope_of_the_loss() -> None:
    logits, targets = ref.uniform("l", 3, 7).astype(np.float64), np.array([0, 6, 2])
    gradient = layers._loss_gradient(logits, targets, logits)
    for at in np.ndindex(logits.shape):
        step = np.zeros_like(logits)
        step[at] = 1e-5
        slope = (layers._loss(logits + step, targets)[0].mean() - layers._loss(logits - step, targets)[0].mean()) / 2e-5
        assert gradient[at] == pytest.approx(slope, abs=1e-8)


@pytest.mark.parametrize("causal", [False, True])
def test_attention_gradients_are_slopes(causal) -> None:
    backward = attention._Backward(causal)
    *_, dy, total = backward.arguments()
    assert total.shape == (1, 1, 128, 2)

    def loss() -> float:
        q, k, v, _ = backward._rows()
        return float((attention._softmax(attention._SCALE * q @ k.T, causal) @ v * dy[0, 0].T).sum())

    gradients = backward.gradients()
    for operand, gradient in zip((backward._q, backward._k, backward._v), gradients, strict=True):
        for at in ((0, 0, 3, 0), (0, 0, 10, 200)):
            before, step = operand[at], np.float32(2**-6)
            operand[at] = before + step
            above = loss()
            operand[at] = before - step
            below = loss()
            operand[at] = before
            assert gradient[at] == pytest.approx((above - below) / (2 * step), rel=1e-2, abs=1e-5)


def test_both_rotations_agree_on_rearranged_pairs() -> None:
    x, cos, sin = attention._rope_arguments(2)
    halves = np.concatenate((x[0::2], x[1::2]))
    got = attention._rope_halves(halves, cos, sin)
    pairs = attention._rope_pairs(x, cos, sin)
    np.testing.assert_allclose(np.concatenate((pairs[0::2], pairs[1::2])), got)
    q, k, *_, c, s = attention._rope_hf_arguments()
    turned, _ = attention._rope_hf(q, k, None, None, c, s)
    quarter = np.concatenate((-q[..., 32:], q[..., :32]), axis=-1)
    np.testing.assert_allclose(turned, q * c[:, None] + quarter * s[:, None], atol=1e-6)


def test_causal_attention_sees_no_later_key() -> None:
    q, k, v = attention._operands(256)
    changed = k.copy()
    changed[:, 100:] += 1
    before, after = attention._attend(q, k, v, True), attention._attend(q, changed, v, True)
    np.testing.assert_array_equal(before[:, :100], after[:, :100])
    assert np.abs(before[:, 100:] - after[:, 100:]).max() > 1e-3
