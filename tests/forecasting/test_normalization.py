"""Instance normalisation against a plain loop: invertible, blind to what is masked."""

import numpy as np
import pytest
import torch
from torch import Tensor

from datasets.windows import Batch
from forecasting.normalization import InstanceNormalization, NoNormalization, make_normalization


def batch(mask: Tensor | None = None) -> Batch:
    past = 5 + 3 * torch.randn(4, 10, 3)
    nothing = torch.zeros(4, 10, 0)
    return Batch(
        past,
        torch.ones_like(past, dtype=torch.bool) if mask is None else mask,
        nothing,
        nothing[:, :2],
        torch.zeros(4, dtype=torch.long),
        torch.arange(4),
    )


@pytest.mark.parametrize("holes", [False, True])
def test_each_window_and_variate_by_a_plain_loop(holes: bool) -> None:
    made = batch(torch.rand(4, 10, 3) > 0.4 if holes else None)
    normalized, (location, scale) = InstanceNormalization().normalize(made)
    assert location.shape == scale.shape == (4, 1, 3)
    for window in range(4):
        for variate in range(3):
            seen = made.past_mask[window, :, variate].numpy()
            values = made.past[window, :, variate].numpy()[seen]
            mean, deviation = values.mean(), np.sqrt(values.var() + 1e-5)
            assert location[window, 0, variate] == pytest.approx(mean, abs=1e-5)
            assert scale[window, 0, variate] == pytest.approx(deviation, rel=1e-5)
            found = normalized.past[window, :, variate].numpy()
            np.testing.assert_allclose(found[seen], (values - mean) / deviation, atol=1e-5)
            assert (found[~seen] == 0).all()


def test_it_is_invertible() -> None:
    made = batch()
    normalized, (location, scale) = InstanceNormalization().normalize(made)
    torch.testing.assert_close(normalized.past * scale + location, made.past, atol=1e-5, rtol=1e-5)
    assert made.past.mean() > 4


@pytest.mark.parametrize("value", [0.0, 1e9, torch.nan, torch.inf])
def test_whatever_stands_under_the_mask(value: float) -> None:
    made = batch(torch.rand(4, 10, 3) > 0.4)
    clean, state = InstanceNormalization().normalize(made)
    dirty, other = InstanceNormalization().normalize(made.replace(past=torch.where(made.past_mask, made.past, value)))
    assert torch.equal(clean.past, dirty.past)
    assert all(torch.equal(a, b) for a, b in zip(state, other, strict=True))


def test_a_window_without_a_value_and_a_constant_one_stay_finite() -> None:
    made = batch()
    made.past_mask[0], made.past[1] = False, 7.0
    normalized, (location, scale) = InstanceNormalization().normalize(made)
    assert (normalized.past[:2].abs() < 1e-3).all() and scale.isfinite().all() and (scale > 0).all()
    assert (location[0] == 0).all() and torch.allclose(location[1], torch.tensor(7.0))


def test_none_leaves_windows_as_they_are() -> None:
    made = batch()
    same, (location, scale) = NoNormalization().normalize(made)
    assert same.past is made.past and (location == 0).all() and (scale == 1).all()
    assert isinstance(make_normalization("none"), NoNormalization)
    assert isinstance(make_normalization("instance"), InstanceNormalization)
