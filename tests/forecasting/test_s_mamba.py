"""S-Mamba against Mamba blocks of transformers with the same weights, and against loops written from the papers."""

import math
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from datasets.errors import ForetideError
from datasets.windows import Batch
from forecasting import models
from forecasting.config import HeadOptions, TrainingOptions
from forecasting.experiment import run
from forecasting.forecaster import Recipe, Task
from forecasting.models.s_mamba import BidirectionalMamba, SMamba, SMambaConfig

L, H, C = 24, 6, 5
SMALL: dict[str, Any] = {"layers": 2, "d_model": 20, "d_ff": 12, "d_state": 3}
EVERYTHING = {"calendar": 4, "past": 2, "future": 2, "static": 3}


def make(
    std: float | None = 0.3, recipe: Recipe | None = None, sizes: dict[str, int] | None = None, **more: Any
) -> Any:
    """A small model whose weights, unless ``std`` is None, are drawn so wide that no part of it can hide."""
    made = SMamba(Task(L, H, C, **(sizes or {})), SMambaConfig(**{**SMALL, **more}), recipe or Recipe()).eval()
    for parameter in made.parameters() if std else ():
        torch.nn.init.normal_(parameter, std=std or 0.0)
    return made


def batch(count: int = 4, variates: int = C) -> Batch:
    """Windows with every kind of covariate; a model takes those that its task names."""
    past = torch.randn(count, L, variates).cumsum(1)
    return Batch(
        past=past,
        past_mask=torch.ones_like(past, dtype=torch.bool),
        past_calendar=torch.randn(count, L, 4),
        future_calendar=torch.randn(count, H, 4),
        series=torch.zeros(count, dtype=torch.long),
        origin=torch.arange(count),
        past_covariates=torch.randn(count, L, 2),
        future_covariates=torch.randn(count, L + H, 2),
        static=torch.randn(count, 3),
    )


def softplus(x: np.ndarray) -> np.ndarray:
    return np.log1p(np.exp(x))


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * weight + bias


def gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def mamba_by_loop(x: np.ndarray, weights: dict[str, np.ndarray], direction: int) -> np.ndarray:
    """Algorithm 1 of the paper for one sample ``(T, D)``, forwards; the caller flips."""
    width, states = weights["A_log"].shape[1:]
    rank, taps = weights["step_weight"].shape[2], weights["conv_weight"].shape[2]
    scanned, gates = np.split((x @ weights["project_in.weight"].T).reshape(len(x), 4, width), 2, axis=1)
    select, A = weights["select"][direction], -np.exp(weights["A_log"][direction])
    h, rows = np.zeros((width, states)), []
    for t in range(len(x)):
        mixed = weights["conv_bias"][direction].copy()
        for tap in range(taps):
            source = t - (taps - 1) + tap
            if source >= 0:
                mixed += weights["conv_weight"][direction][:, tap] * scanned[source, direction]
        u = silu(mixed)
        found = select @ u
        step = softplus(
            weights["step_weight"][direction] @ found[:rank] + weights["step_bias"][direction]
        )  # one for each channel
        h = np.exp(step[:, None] * A) * h + step[:, None] * found[rank : rank + states] * u[:, None]
        y = h @ found[rank + states :] + weights["D"][direction] * u
        rows.append(y * silu(gates[t, direction]))
    return np.stack(rows) @ np.split(weights["project_out.weight"], 2, axis=1)[direction].T


def model_by_loop(model: SMamba, tokens: np.ndarray) -> np.ndarray:
    """Algorithm 2 from the tokens ``(T, D)`` of one sample on, ``(T, H·P)``."""
    weights = {name: value.double().numpy() for name, value in model.state_dict().items()}
    for layer in range(model.architecture.layers):  # type: ignore[attr-defined]
        own = {k.removeprefix(f"encoder.{layer}."): v for k, v in weights.items() if k.startswith(f"encoder.{layer}.")}
        block = {k.removeprefix("mamba."): v for k, v in own.items() if k.startswith("mamba.")}
        both = mamba_by_loop(tokens, block, 0) + mamba_by_loop(tokens[::-1], block, 1)[::-1]
        tokens = layer_norm(tokens + both, own["norm_mamba.weight"], own["norm_mamba.bias"])
        hidden = gelu(tokens @ own["widen.weight"].T + own["widen.bias"])
        narrow = hidden @ own["narrow.weight"].T + own["narrow.bias"]
        tokens = layer_norm(tokens + narrow, own["norm_forward.weight"], own["norm_forward.bias"])
    tokens = layer_norm(tokens, weights["norm.weight"], weights["norm.bias"])
    return tokens @ weights["project.weight"].T + weights["project.bias"]


@pytest.mark.parametrize("taps", [2, 4])
@pytest.mark.parametrize("expand", [1, 2])
def test_the_whole_model_against_loops_from_the_paper(taps: int, expand: int) -> None:
    model, given = make(sizes={"calendar": 4}, d_conv=taps, expand=expand), batch()
    found = model.outputs(given)[..., 0].detach().double().numpy()
    weight, bias = (getattr(model.embed, name).detach().double().numpy() for name in ("weight", "bias"))
    for sample in range(len(given)):
        past, marks = given.past[sample].double().numpy(), given.past_calendar[sample].double().numpy()
        mean, scale = past.mean(0), np.sqrt(past.var(0) + 1e-5)
        columns = np.concatenate([(past - mean) / scale, marks], axis=1)
        expected = model_by_loop(model, columns.T @ weight.T + bias)[:C].T * scale + mean
        np.testing.assert_allclose(found[sample], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("taps", "expand", "states", "tokens"), [(2, 1, 2, 11), (4, 2, 16, 9), (2, 1, 32, 1)])
def test_a_block_equals_two_of_transformers(
    require: Callable[[str], ModuleType], taps: int, expand: int, states: int, tokens: int
) -> None:
    theirs = require("transformers.models.mamba.modeling_mamba")
    width = 20
    config = require("transformers").MambaConfig(
        hidden_size=width, state_size=states, conv_kernel=taps, expand=expand, num_hidden_layers=1, use_mambapy=False
    )
    assert config.time_step_rank == 2 and config.intermediate_size == expand * width
    pair = [theirs.MambaMixer(config, layer_idx=0).eval() for _ in range(2)]
    ours = BidirectionalMamba(width, states, taps, expand).eval()
    for mixer in pair:
        for parameter in mixer.parameters():
            torch.nn.init.normal_(parameter, std=0.4)
    ours.load_state_dict(_from_transformers([mixer.state_dict() for mixer in pair]))
    x = torch.randn(3, tokens, width)
    expected = pair[0](x) + pair[1](x.flip(1)).flip(1)
    torch.testing.assert_close(ours(x), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours(x, 1), expected[:, :1], atol=1e-5, rtol=1e-5)


def _from_transformers(pair: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Weights of a forward and a backward block under our names."""

    def stack(name: str) -> Tensor:
        return torch.stack([weights[name] for weights in pair])

    scanned, gates = zip(*(weights["in_proj.weight"].chunk(2) for weights in pair), strict=True)
    return {
        "project_in.weight": torch.cat([*scanned, *gates]),
        "conv_weight": stack("conv1d.weight").squeeze(2),
        "conv_bias": stack("conv1d.bias"),
        "select": stack("x_proj.weight"),
        "step_weight": stack("dt_proj.weight"),
        "step_bias": stack("dt_proj.bias"),
        "A_log": stack("A_log"),
        "D": stack("D"),
        "project_out.weight": torch.cat([weights["out_proj.weight"] for weights in pair], dim=1),
    }


@pytest.mark.parametrize(("width", "expand", "rank"), [(256, 1, 16), (40, 2, 3), (8, 1, 1)])
def test_initial_weights_are_those_of_mamba(width: int, expand: int, rank: int) -> None:
    block = BidirectionalMamba(width, 32, 2, expand)
    channels = expand * width
    assert block.rank == rank == math.ceil(width / 16) and block.step_weight.shape == (2, channels, rank)
    torch.testing.assert_close(-block.A_log.exp(), -torch.arange(1.0, 33).expand(2, channels, 32))
    assert torch.equal(block.D, torch.ones(2, channels))
    step = torch.nn.functional.softplus(block.step_bias).detach()
    assert step.min() >= 0.99e-3 and step.max() <= 0.101
    if width == 256:  # log-uniform: half of the steps below the geometric mean of the ends
        assert (step < 1e-2).float().mean().item() == pytest.approx(0.5, abs=0.1)
    bounds = {
        "project_in.weight": width**-0.5,
        "project_out.weight": channels**-0.5,
        "select": channels**-0.5,
        "step_weight": rank**-0.5,
        "conv_weight": 2**-0.5,
        "conv_bias": 2**-0.5,
    }
    for name, bound in bounds.items():
        size = block.get_parameter(name).detach().abs().max().item()
        assert 0.7 * bound < size <= bound, name
    assert not torch.equal(block.conv_weight[0], block.conv_weight[1])


def test_there_are_as_many_weights_as_in_two_blocks_of_the_published_code() -> None:
    """Of d, N, r and k: 2d² in, d k + d for the convolution, d(r + 2N), r d + d, d N, d, and d² out."""
    d, N, r, k = 256, 2, 16, 2
    one = 2 * d * d + d * k + d + d * (r + 2 * N) + r * d + d + d * N + d + d * d
    assert sum(p.numel() for p in BidirectionalMamba(d, N, k, 1).parameters()) == 2 * one


def test_every_weight_is_learned() -> None:
    model = make(std=None, sizes=EVERYTHING, recipe=Recipe(HeadOptions("student_t"))).train()
    model.outputs(batch()).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


@pytest.mark.parametrize("part", ["past", "past_calendar", "past_covariates", "future_covariates", "static"])
def test_every_kind_of_input_is_used(part: str) -> None:
    model, given = make(sizes=EVERYTHING), batch()
    value = getattr(given, part)
    before, after = model.outputs(given), model.outputs(given.replace(**{part: value + torch.randn_like(value)}))
    assert ((before - after).abs().amax((1, 2, 3)) > 1e-4).all()
    last = value.clone()
    last[0].view(-1)[-1] += 1.0
    changed = (model.outputs(given.replace(**{part: last})) - before).abs().amax((1, 2, 3))
    assert changed[0] > 1e-5 and (changed[1:] < 1e-5).all()


def test_covariates_that_the_task_does_not_name_are_ignored() -> None:
    model, given = make(), batch()
    bare = given.replace(past_covariates=None, future_covariates=None, static=None)
    assert torch.equal(model.outputs(given), model.outputs(bare))


@pytest.mark.parametrize("place", [0, 2, C - 1])
def test_every_variate_reaches_every_other(place: int) -> None:
    """Forwards alone would leave those before it in the dark, and a block alone its own place."""
    model, given = make(layers=1), batch()
    past = given.past.clone()
    past[:, :, place] = torch.randn(len(given), L)
    changed = (model.outputs(given) - model.outputs(given.replace(past=past))).abs().amax((0, 1, 3))
    assert changed.shape == (C,) and (changed > 1e-4).all()


def test_the_order_of_variates_is_part_of_the_model() -> None:
    model, given = make(), batch()
    order = torch.tensor([2, 0, 1, 4, 3])
    moved = model.outputs(given.variates(order))
    assert (moved - model.outputs(given)[:, :, order]).abs().max() > 1e-3


@pytest.mark.parametrize("variates", [1, 2, 40])
def test_the_same_weights_serve_any_number_of_variates(variates: int) -> None:
    model, given = make(sizes=EVERYTHING), batch(3, variates)
    together = model.outputs(given)
    assert together.shape == (3, H, variates, 1) and together.isfinite().all()
    alone = [
        given.replace(**{f.name: v[i : i + 1] for f in fields(given) if (v := getattr(given, f.name)) is not None})
        for i in range(3)
    ]
    torch.testing.assert_close(torch.cat([model.outputs(one) for one in alone]), together, atol=1e-5, rtol=1e-5)


def test_training_on_some_variates_draws_them_in_their_order() -> None:
    model = make(recipe=Recipe(training=TrainingOptions(variate_fraction=0.4)))
    for _ in range(10):
        drawn = model._draw_variates(C)
        assert len(drawn) == 2 and drawn[0] < drawn[1]


def test_missing_values_count_as_the_mean_of_the_rest() -> None:
    model, given = make(), batch()
    mask = torch.rand(given.past.shape) > 0.3
    expected = model.outputs(given.replace(past_mask=mask))
    for spoil in (1e9, float("nan")):
        spoilt = given.replace(past=torch.where(mask, given.past, spoil), past_mask=mask)
        assert torch.equal(model.outputs(spoilt), expected)
    assert expected.isfinite().all() and not torch.allclose(expected, model.outputs(given))


def test_step_sizes_on_request() -> None:
    model, given = make(sizes=EVERYTHING), batch()
    tokens = C + 4 + 2 + 2 + 1
    steps = model.steps(given)
    assert steps.shape == (2, 2, 4, tokens) and (steps > 0).all()
    fresh = make(std=None, sizes=EVERYTHING)
    assert 1e-3 < fresh.steps(given).mean() < 0.1 and not torch.equal(steps[0], steps[1])


def test_dropout_only_in_training() -> None:
    model, given = make(), batch()
    assert torch.equal(model.outputs(given), model.outputs(given))
    model.train()
    assert not torch.equal(model.outputs(given), model.outputs(given))


@torch.inference_mode()
def test_export_with_every_covariate_and_missing_values() -> None:
    model, given = make(sizes=EVERYTHING, layers=1), batch()
    exported = torch.export.export(model, (given,)).module()
    other = batch()
    torch.testing.assert_close(exported(other), model(other), rtol=1e-5, atol=1e-6)


def test_autocast_stays_close() -> None:
    model, given = make(std=None), batch()
    with torch.autocast("cpu", torch.bfloat16):
        found = model.outputs(given)
    exact = model.outputs(given)
    assert (found - exact).abs().mean() < 0.02 * exact.std()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_state": 1}, r"architecture\.d_state: found 1, expected 2 to 64"),
        ({"d_state": 65}, r"architecture\.d_state: found 65, expected 2 to 64"),
        ({"d_model": 0}, r"architecture\.d_model: found 0, expected at least 1"),
        ({"d_ff": 0}, r"architecture\.d_ff: found 0"),
        ({"layers": 0}, r"architecture\.layers: found 0"),
        ({"d_conv": 1}, r"architecture\.d_conv: found 1, expected 2 to 4"),
        ({"expand": 0}, r"architecture\.expand: found 0, expected 1 to 4"),
        ({"dropout": 1.0}, r"architecture\.dropout: found 1\.0, expected 0 to below 1"),
        ({"activation": "tanh"}, "found 'tanh', expected one of gelu, relu"),
        ({"d_stat": 2}, "unknown option 'd_stat'; did you mean 'd_state'"),
        ({"d_state": 2.5}, "found 2.5, expected a whole number"),
    ],
)
def test_bad_options_are_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ForetideError, match=message) as caught:
        models.architecture("s_mamba", options)
    assert "\n" not in str(caught.value)


def test_a_run_from_data_to_scores(config: Callable[..., Any], tmp_path: Path) -> None:
    options = {"layers": 1, "d_model": 16, "d_ff": 16}
    made = run(config(model="s_mamba", architecture=options), tmp_path / "run", visible=False)
    assert made is not None
    scores = made.artifact.metrics["scores"]
    assert scores["s_mamba"]["mse"] < 1.1 * scores["dlinear"]["mse"]
    weights = made.artifact.weights["model.encoder.0.mamba.A_log"]
    assert weights.shape == (2, 16, 2)


def test_configs_say_what_the_published_scripts_say() -> None:
    from forecasting.config import read_config

    folder = Path(__file__).resolve().parents[2] / "configs" / "s_mamba"
    found = {path.stem: read_config(path) for path in folder.glob("*.yaml")}
    hours, five = (96, 192, 336, 720), (12, 24, 48, 96)
    wide = ("ETTh1", "ETTh2", "ETTm1", "ETTm2", "weather", "exchange_rate", "electricity", "traffic", "solar")
    assert set(found) == {f"{name}_{h}" for name in wide for h in hours} | {
        f"PEMS0{n}_{h}" for n in (3, 4, 7, 8) for h in five
    }
    for name, chosen in found.items():
        options = models.architecture("s_mamba", chosen.architecture, name)
        assert options == replace(options, d_ff=options.d_model, d_conv=2, expand=1, dropout=0.1), name
        assert (options.d_state == 2) == name.startswith(("ETT", "weather")), name
        assert f"{chosen.data}_{chosen.horizon}" == name and chosen.lookback == 96 and chosen.training.seed == 2023
        assert chosen.calendar != name.startswith(("PEMS", "solar")), name
        assert (chosen.normalization == "none") == name.startswith(("PEMS04", "PEMS07")), name
