"""Shared blocks against the library's own modules and plain loops."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from forecasting.layers import Dropout, EncoderLayer, MovingAverage, MultiHeadAttention

B, N, D = 3, 7, 16


def test_attention_equals_the_library() -> None:
    ours, theirs = MultiHeadAttention(D, 4, 0.0), nn.MultiheadAttention(D, 4, batch_first=True)
    theirs.load_state_dict(
        {
            "in_proj_weight": ours.project_in.weight,
            "in_proj_bias": ours.project_in.bias,
            "out_proj.weight": ours.project_out.weight,
            "out_proj.bias": ours.project_out.bias,
        }
    )
    x = torch.randn(B, N, D)
    expected, weights = theirs(x, x, x, average_attn_weights=False)
    for training in (True, False):
        ours.train(training)
        torch.testing.assert_close(ours(x), expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(ours(x, queries=3), expected[:, :3], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.weights(x), weights, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.weights(x).sum(-1), torch.ones(B, 4, N))


@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_an_encoder_layer_equals_the_library(activation: str) -> None:
    theirs = nn.TransformerEncoderLayer(D, 4, 24, dropout=0.0, activation=activation, batch_first=True)
    ours = EncoderLayer(MultiHeadAttention(D, 4, 0.0), D, 24, 0.0, activation)
    names = {
        "self_attn.in_proj_": "attention.project_in.",
        "self_attn.out_proj.": "attention.project_out.",
        "linear1.": "widen.",
        "linear2.": "narrow.",
        "norm1.": "norm_attention.",
        "norm2.": "norm_forward.",
    }
    ours.load_state_dict(
        {mine + kind: theirs.state_dict()[other + kind] for other, mine in names.items() for kind in ("weight", "bias")}
    )
    x = torch.randn(B, N, D)
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours(x, keep=2), theirs(x)[:, :2], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_dropout_drops_its_share_and_keeps_the_expectation(probability: float) -> None:
    x, count = torch.ones(301, 997), 301 * 997
    made = Dropout(probability)(x)
    kept = made != 0
    slack = 4 * math.sqrt(probability * (1 - probability) / count)
    assert abs(float(kept.float().mean()) - (1 - probability)) < slack
    assert made[kept].unique().tolist() == pytest.approx([1 / (1 - probability)], rel=1e-4)
    # neighbours share a random word, and are independent all the same
    for lag in range(1, 5):
        pairs = (kept.flatten()[lag:] & kept.flatten()[:-lag]).float().mean()
        assert abs(float(pairs) - (1 - probability) ** 2) < 2 * slack


def test_dropout_passes_gradients_where_it_passes_values() -> None:
    x = torch.randn(50, 5, requires_grad=True)
    made = Dropout(0.3)(x)
    made.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad * x.detach(), made.detach())


def test_dropout_is_the_identity_outside_of_training_and_at_zero() -> None:
    x = torch.randn(4, 3)
    assert Dropout(0.5).eval()(x) is x and Dropout(0.0)(x) is x


@pytest.mark.parametrize("window", [1, 2, 5, 24, 25])
def test_the_moving_average_repeats_the_ends(window: int) -> None:
    x = torch.randn(B, 30, 2)
    before = (window - 1) // 2
    padded = np.pad(x.numpy(), ((0, 0), (before, window - 1 - before), (0, 0)), mode="edge")
    by_hand = np.stack([padded[:, t : t + window].mean(1) for t in range(30)], axis=1)
    np.testing.assert_allclose(MovingAverage(window)(x), by_hand, atol=1e-6)
