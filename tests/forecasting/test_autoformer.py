"""Autoformer against neuralforecast and transformers with the same weights, its delays on one process and on two."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from datasets.errors import ForetideError
from datasets.windows import Batch
from forecasting import artifact, models
from forecasting.config import HeadOptions, read_config
from forecasting.experiment import run
from forecasting.forecaster import Recipe, Task
from forecasting.layers import MovingAverage
from forecasting.models.autoformer import Autoformer
from forecasting.models.autoformer.blocks import AutoCorrelation, Decomposition, SeasonalLayerNorm, fill
from forecasting.models.autoformer.config import AutoformerConfig
from forecasting.predictor import Predictor

L, H, C, CALENDAR = 48, 16, 3, 4
SMALL: dict[str, Any] = {"d_model": 16, "d_ff": 24, "heads": 4, "factor": 2.0, "window": 7}
CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "autoformer").glob("*.yaml"))
Start = Callable[..., Any]


def make(recipe: Recipe | None = None, sizes: dict[str, int] | None = None, **options: Any) -> Autoformer:
    """A small model whose weights are drawn so wide that no part of it can hide."""
    task = Task(**{"lookback": L, "horizon": H, "variates": C, "calendar": CALENDAR, **(sizes or {})})
    made = Autoformer(task, AutoformerConfig(**{**SMALL, **options}), recipe or Recipe(normalization="none")).eval()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3)
    return made


def batch(count: int = 5, variates: int = C, horizon: int = H, covariates: bool = False) -> Batch:
    past = torch.randn(count, L, variates).cumsum(1)
    made = Batch(
        past=past,
        past_mask=torch.ones_like(past, dtype=torch.bool),
        past_calendar=torch.rand(count, L, CALENDAR) - 0.5,
        future_calendar=torch.rand(count, horizon, CALENDAR) - 0.5,
        series=torch.zeros(count, dtype=torch.long),
        origin=torch.arange(count),
        future=torch.randn(count, horizon, variates),
        future_mask=torch.ones(count, horizon, variates, dtype=torch.bool),
    )
    if not covariates:
        return made
    known = torch.randn(count, L, 2), torch.randn(count, L + horizon, 3), torch.randn(count, 1)
    return made.replace(past_covariates=known[0], future_covariates=known[1], static=known[2])


def tensors(given: Batch) -> dict[str, Tensor]:
    """What a batch holds, by name."""
    return {name: value for name, value in vars(given).items() if value is not None}


def as_double(value: Tensor) -> Tensor:
    return value.double() if value.is_floating_point() else value


def renamed(theirs: dict[str, Tensor], decoder_layers: int) -> dict[str, Tensor]:
    """Weights of neuralforecast's Autoformer under our names."""
    ours = {
        "embed_past.values.weight": theirs["enc_embedding.value_embedding.tokenConv.weight"],
        "embed_past.calendar.weight": theirs["enc_embedding.temporal_embedding.embed.weight"],
        "embed_future.values.weight": theirs["dec_embedding.value_embedding.tokenConv.weight"],
        "embed_future.calendar.weight": theirs["dec_embedding.temporal_embedding.embed.weight"],
        "norm_encoder.norm.weight": theirs["encoder.norm.layernorm.weight"],
        "norm_decoder.norm.weight": theirs["decoder.norm.layernorm.weight"],
        "project.weight": theirs["decoder.projection.weight"],
        "project.bias": theirs["decoder.projection.bias"],
    }

    def correlation(here: str, there: str) -> None:
        for kind in ("weight", "bias"):
            parts = [theirs[f"{there}{part}_projection.{kind}"] for part in ("query", "key", "value")]
            ours[f"{here}project_in.{kind}"] = torch.cat(parts)
            ours[f"{here}project_out.{kind}"] = theirs[f"{there}out_projection.{kind}"]

    def forward(here: str, there: str) -> None:
        for mine, other in (("widen", "conv1"), ("narrow", "conv2")):
            ours[f"{here}feed_forward.{mine}.weight"] = theirs[f"{there}{other}.weight"][..., 0]

    for layer in range(2):
        correlation(f"encoder.{layer}.correlation.", f"encoder.attn_layers.{layer}.attention.")
        forward(f"encoder.{layer}.", f"encoder.attn_layers.{layer}.")
    for layer in range(decoder_layers):
        correlation(f"decoder.{layer}.correlation.", f"decoder.layers.{layer}.self_attention.")
        correlation(f"decoder.{layer}.cross.", f"decoder.layers.{layer}.cross_attention.")
        forward(f"decoder.{layer}.", f"decoder.layers.{layer}.")
        ours[f"decoder.{layer}.project.weight"] = theirs[f"decoder.layers.{layer}.projection.weight"]
    return ours


@pytest.mark.parametrize(
    ("horizon", "decoder_layers", "activation"),
    [(24, 1, "gelu"), (40, 2, "relu"), (8, 2, "gelu")],
    ids=["as-long-as-the-lookback", "longer", "shorter"],
)
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_it_equals_neuralforecast_with_the_same_weights(
    require: Callable[[str], ModuleType], horizon: int, decoder_layers: int, activation: str, training: bool
) -> None:
    require("neuralforecast")
    from neuralforecast.models import Autoformer as Theirs

    theirs = Theirs(
        h=horizon,
        input_size=L,
        futr_exog_list=["a", "b", "c", "d"],
        hidden_size=16,
        conv_hidden_size=24,
        n_head=4,
        factor=2,
        encoder_layers=2,
        decoder_layers=decoder_layers,
        MovingAvg_window=7,
        dropout=0.0,
        activation=activation,
        max_steps=1,
    ).train(training)
    ours = make(
        sizes={"variates": 1, "horizon": horizon}, decoder_layers=decoder_layers, activation=activation, dropout=0.0
    ).train(training)
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)
    ours.load_state_dict(renamed(theirs.state_dict(), decoder_layers))
    given = batch(variates=1, horizon=horizon)
    calendar = torch.cat([given.past_calendar, given.future_calendar], dim=1)
    expected = theirs({"insample_y": given.past, "futr_exog": calendar})
    torch.testing.assert_close(ours.outputs(given)[..., 0], expected, atol=1e-5, rtol=1e-5)

    ours.double().outputs(
        Batch(**{name: as_double(value) for name, value in tensors(given).items()})
    ).square().sum().backward()
    theirs.double()({"insample_y": given.past.double(), "futr_exog": calendar.double()}).square().sum().backward()
    gradients = {name: weight.grad for name, weight in theirs.named_parameters() if weight.grad is not None}
    there = renamed(gradients, decoder_layers)
    for name, weight in ours.named_parameters():
        assert weight.grad is not None and weight.grad.dtype == torch.float64
        torch.testing.assert_close(weight.grad, there[name], atol=1e-6, rtol=1e-6, msg=name)


@pytest.mark.parametrize(("length", "keys"), [(L, L), (24, L)], ids=["self", "cross"])
@pytest.mark.parametrize(("heads", "samples"), [(1, 5), (4, 1)], ids=["one-head", "one-sample"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_auto_correlation_equals_transformers(
    require: Callable[[str], ModuleType], length: int, keys: int, heads: int, samples: int, training: bool
) -> None:
    # with several of both, a head there gets weights and delays of other samples; and with fewer keys than queries it
    # cuts the queries too
    theirs = require("transformers.models.autoformer.modeling_autoformer").AutoformerAttention(
        embed_dim=16, num_heads=heads, autocorrelation_factor=2
    )
    ours = AutoCorrelation(16, heads, int(2 * math.log(length)))
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)
    state, made = theirs.state_dict(), {}
    for kind in ("weight", "bias"):
        made[f"project_in.{kind}"] = torch.cat([state[f"{part}_proj.{kind}"] for part in "qkv"])
        made[f"project_out.{kind}"] = state[f"out_proj.{kind}"]
    ours.load_state_dict(made)
    x, memory = torch.randn(samples, length, 16), torch.randn(samples, keys, 16) if keys != length else None
    expected = theirs.train(training)(x, memory)[0]
    torch.testing.assert_close(ours.train(training)(x, None, memory), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("window", [1, 4, 7, 25, 60])
def test_decomposition_takes_the_moving_average_away(window: int) -> None:
    x = torch.randn(2, 40, 3, requires_grad=True)
    seasonal = Decomposition(40, window)(x)
    torch.testing.assert_close(seasonal, x - MovingAverage(window)(x), atol=1e-6, rtol=1e-5)
    weight = torch.randn_like(x)
    ours, theirs = (torch.autograd.grad((weight * y).sum(), x)[0] for y in (seasonal, x - MovingAverage(window)(x)))
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    assert not list(Decomposition(40, window).state_dict())


def test_a_seasonal_norm_has_no_mean_over_time() -> None:
    norm, x = SeasonalLayerNorm(8), torch.randn(3, 20, 8)
    plain = torch.nn.functional.layer_norm(x, (8,))
    torch.testing.assert_close(norm(x), plain - plain.mean(1, keepdim=True))
    # a bias would change nothing
    torch.testing.assert_close(plain + 3 - (plain + 3).mean(1, keepdim=True), norm(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["point", "quantile", "student_t"])
@pytest.mark.parametrize("normalization", ["none", "instance"])
def test_seasonal_part_and_trend_add_up_to_the_forecast(kind: Any, normalization: Any) -> None:
    model, given = make(Recipe(HeadOptions(kind), normalization)), batch()
    output = model.outputs(given)
    assert output.shape == (5, H, C, model.head.size)
    seasonal, trend = model.parts(given)
    assert seasonal.shape == trend.shape == (5, H, C) and trend.abs().max() > 0.1 and seasonal.abs().max() > 0.1
    torch.testing.assert_close(seasonal + trend, model.head.point(output), atol=1e-4, rtol=1e-4)
    if kind != "point":
        # the whole distribution moves by the trend
        levels = torch.tensor([0.1, 0.5, 0.9])
        without = model.head.affine(output, -trend, torch.ones_like(trend))
        low, high = model.head.quantiles(without, levels), model.head.quantiles(output, levels)
        assert low is not None and high is not None
        torch.testing.assert_close(low + trend[..., None], high, atol=1e-3, rtol=1e-3)


def test_an_untrained_trend_starts_from_the_mean() -> None:
    model, given = make(), batch()
    for layer in model.decoder:
        nn.init.zeros_(layer.project.weight)  # type: ignore[union-attr, arg-type]
    torch.testing.assert_close(model.parts(given)[1], given.past.mean(1, keepdim=True).expand(-1, H, -1))


def test_missing_values_take_the_mean_of_the_observed_ones() -> None:
    values, mask = torch.tensor([[1.0, 5.0], [9.0, 7.0], [3.0, 8.0]])[None], torch.ones(1, 3, 2, dtype=torch.bool)
    mask[0, 1, 0] = mask[0, :, 1] = False
    expected = torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]])[None]
    torch.testing.assert_close(fill(values, mask), expected)
    model, given = make(), batch()
    given.past_mask[:, 10:20, 1] = False
    filled = given.past.clone()
    filled[:, 10:20, 1] = torch.cat([given.past[:, :10, 1], given.past[:, 20:, 1]], dim=1).mean(1, keepdim=True)
    whole = given.replace(past=filled, past_mask=torch.ones_like(given.past_mask))
    torch.testing.assert_close(model.outputs(given), model.outputs(whole))


def test_delays_are_periods_of_the_season() -> None:
    hours = torch.arange(96.0)
    past = torch.stack([torch.sin(2 * torch.pi * (hours + shift) / 24) for shift in (0, 5, 11)])[..., None]
    model = make(sizes={"lookback": 96, "horizon": 48, "variates": 1, "calendar": 0}, factor=1.0, window=25)
    given = batch(3, 1, 48).replace(past=past, past_mask=torch.ones_like(past, dtype=torch.bool))
    given = given.replace(past_calendar=torch.zeros(3, 96, 0), future_calendar=torch.zeros(3, 48, 0))
    found = model.periods(given)
    names = ["encoder.0.correlation", "encoder.1.correlation", "decoder.0.correlation", "decoder.0.cross"]
    assert list(found) == names
    for lags, weights in found.values():
        assert lags.shape == weights.shape == (3, 4)
        torch.testing.assert_close(weights.sum(1), torch.ones(3))
        assert (weights.diff(dim=1) <= 0).all() and (lags >= 0).all() and (lags < 96).all()
    # random projections shift the phase, but four periods fit, so that all four delays are one period apart
    spread = found["encoder.0.correlation"][0].sort(dim=1).values.diff(dim=1)
    assert ((spread - 24).abs() <= 1).all()
    quarters = model.periods(given, step=0.25)
    for name in names:
        torch.testing.assert_close(quarters[name][0], found[name][0] * 0.25)
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("part", ["past", "past_calendar", "future_calendar", "past_covariates", "future_covariates"])
def test_every_kind_of_input_is_used(part: str) -> None:
    model, given = make(sizes={"past": 2, "future": 3, "static": 1}), batch(covariates=True)
    value = getattr(given, part)
    before, after = model.outputs(given), model.outputs(given.replace(**{part: value + torch.randn_like(value)}))
    assert ((before - after).abs().amax((1, 2, 3)) > 1e-4).all()
    # the last known row too, and only in its own window
    last = value.clone()
    last[0, -1] += 1.0
    changed = (model.outputs(given.replace(**{part: last})) - before).abs().amax((1, 2, 3))
    assert changed[0] > 1e-5 and (changed[1:] < 1e-5).all()


def test_static_covariates_set_the_level() -> None:
    model, given = make(sizes={"past": 2, "future": 3, "static": 1}), batch(covariates=True)
    (_, before), (_, after) = model.parts(given), model.parts(given.replace(static=torch.ones(5, 1)))
    assert ((before - after).abs().amax((1, 2)) > 1e-4).all()


def test_what_is_not_in_the_task_is_ignored() -> None:
    model, given = make(), batch(covariates=True)
    bare = given.replace(past_covariates=None, future_covariates=None, static=None)
    assert torch.equal(model.outputs(given), model.outputs(bare))


def test_training_shares_the_delays_and_evaluation_does_not() -> None:
    model, given = make(dropout=0.0), batch(8)
    own = model.periods(given)
    for place in (0, 5):
        alone = Batch(**{name: value[place : place + 1] for name, value in tensors(given).items()})
        for name, (lags, _) in model.periods(alone).items():
            assert torch.equal(lags[0], own[name][0][place])
    for name, (lags, _) in model.train().periods(given).items():
        assert (lags == lags[:1]).all() and not (own[name][0] == own[name][0][:1]).all()


def test_a_window_that_is_not_scored_has_no_say() -> None:
    model, given = make(dropout=0.0).train(), batch(6)
    assert given.future_mask is not None
    mask = given.future_mask.clone()
    mask[4:] = False
    voting = model.periods(given.replace(future_mask=mask))
    for values in (100.0, -3.0):
        other = torch.cat([given.past[:4], values * torch.randn(2, L, C)])
        for name, (lags, _) in model.periods(given.replace(past=other, future_mask=mask)).items():
            assert torch.equal(lags, voting[name][0])


SHARE = """
import json, sys
import torch
import torch.distributed as dist
from datasets.windows import Batch
from forecasting.forecaster import Recipe, Task
from forecasting.models.autoformer import Autoformer
from forecasting.models.autoformer.config import AutoformerConfig

stored, rank = torch.load(sys.argv[1], weights_only=True), int(sys.argv[2])
dist.init_process_group("gloo", init_method=sys.argv[3], rank=rank, world_size=2)
model = Autoformer(Task(**stored["task"]), AutoformerConfig(**stored["options"]), Recipe(normalization="none"))
model.double().train()
model.load_state_dict(stored["weights"])
given = Batch(**stored["shares"][rank])
lags = {name: lags[0].tolist() for name, (lags, _) in model.periods(given).items()}
total, _ = model._loss(given)
total.backward()
gradient = torch.cat([weight.grad.flatten() for weight in model.parameters()])
dist.all_reduce(gradient)
print(json.dumps({"lags": lags, "gradient": gradient.tolist()}))
"""


def test_two_processes_choose_the_delays_of_one(python: Start, tmp_path: Path) -> None:
    options = {**SMALL, "layers": 1, "dropout": 0.0}
    model, whole = make(**options).double().train(), batch(9)
    everything = {name: as_double(value) for name, value in tensors(whole).items()}
    shares = [{name: value[rank::2] for name, value in everything.items()} for rank in (0, 1)]
    # the second process gets a window that is not scored, as at the end of an epoch
    unscored = {**shares[0], "past": 100 * shares[0]["past"], "future_mask": torch.zeros_like(shares[0]["future_mask"])}
    shares[1] = {name: torch.cat([value, unscored[name][:1]]) for name, value in shares[1].items()}
    task = {"lookback": L, "horizon": H, "variates": C, "calendar": CALENDAR}
    stored = {"task": task, "options": options, "weights": model.state_dict(), "shares": shares}
    torch.save(stored, tmp_path / "stored.pt")
    (tmp_path / "share.py").write_text(SHARE, encoding="utf-8")
    places = tmp_path / "share.py", tmp_path / "stored.pt"
    started = [python(*places, rank, f"file://{tmp_path}/meeting") for rank in (0, 1)]
    texts = [process.communicate()[0] for process in started]
    assert not any(process.returncode for process in started), texts
    first, second = (json.loads(text.splitlines()[-1]) for text in texts)

    def chosen(given: dict[str, Tensor]) -> dict[str, list[int]]:
        return {name: lags[0].tolist() for name, (lags, _) in model.periods(Batch(**given)).items()}

    assert first["lags"] == second["lags"] == chosen(everything) and first["gradient"] == second["gradient"]
    model._loss(Batch(**everything))[0].backward()
    gradient = torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])
    torch.testing.assert_close(torch.tensor(first["gradient"], dtype=torch.float64), gradient, atol=1e-6, rtol=1e-6)
    # each half by itself would have chosen others
    assert not {json.dumps(chosen(share)) for share in shares} & {json.dumps(first["lags"])}


def test_training_on_two_processes_takes_the_steps_of_one(
    config: Callable[..., Any], python: Start, tmp_path: Path
) -> None:
    import yaml

    from datasets.options import plain

    options = {"model": "autoformer", "architecture": {**SMALL, "layers": 1, "dropout": 0.0}, "normalization": "none"}
    training = {"max_epochs": 1, "batch_size": 65, "patience": 0, "learning_rate": 1e-3}
    shared = config(**options, training={**training, "devices": 2, "strategy": "ddp"})
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(plain(shared)), encoding="utf-8")
    started = python("-m", "forecasting", tmp_path / "run.yaml", tmp_path / "two")
    one = run(config(**options, training=training), tmp_path / "one", visible=False)
    text = started.communicate()[0]
    assert started.returncode == 0, text
    # the last batch of an epoch holds one window, and the second process none
    assert one is not None and len(one.prepared.windows("train")) == 456 == 7 * 65 + 1
    two = artifact.load(tmp_path / "two")
    for mine, theirs in zip(one.artifact.metrics["training"]["epochs"], two.metrics["training"]["epochs"], strict=True):
        assert mine["validation_loss"] == pytest.approx(theirs["validation_loss"], rel=1e-3)
    for metric in ("mse", "mae"):
        expected = one.artifact.metrics["scores"]["autoformer"][metric]
        assert two.metrics["scores"]["autoformer"][metric] == pytest.approx(expected, rel=1e-3)


def test_gradients_reach_every_weight() -> None:
    model = make(sizes={"past": 2, "future": 3, "static": 1}, decoder_layers=2).train()
    model.training_step(batch(covariates=True), 0).backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None and weight.grad.isfinite().all() and weight.grad.abs().max() > 0, name


def test_half_precision_stays_close() -> None:
    model, given = make(), batch()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    exact = model.outputs(given)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model.outputs(given)
        model.train().training_step(given, 0).backward()
    assert rough.dtype == torch.float32 and (rough - exact).abs().mean() < 0.05 * exact.std()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_length": 49}, "architecture.label_length: found 49, expected at most the lookback of 36 rows"),
        ({"label_length": -1}, "architecture.label_length: found -1, expected 0 or more"),
        ({"d_model": 18}, "architecture.d_model: found 18, expected a multiple of architecture.heads = 4"),
        ({"factor": 0.1}, "architecture.factor: found 0.1, which makes 0 delays of the lookback of 36 rows"),
        ({"factor": 11}, "architecture.factor: found 11.0, which makes 39 delays of the lookback of 36 rows"),
        ({"factor": 0}, "architecture.factor: found 0.0, expected a positive number"),
        ({"label_length": 0, "factor": 0.3}, "makes 0 delays of label length and horizon of 12 rows"),
        ({"window": 0}, "architecture.window: found 0, expected at least 1"),
        ({"dropout": 1.0}, "architecture.dropout: found 1.0"),
        ({"moving_avg": 25}, "unknown option 'moving_avg'"),
    ],
)
def test_bad_options_end_in_one_line_before_training(
    options: dict[str, Any], message: str, config: Callable[..., Any], tmp_path: Path
) -> None:
    with pytest.raises(ForetideError) as caught:
        run(config(model="autoformer", architecture={**SMALL, **options}), tmp_path / "run", visible=False)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_run_is_stored_and_forecasts_the_same_again(config: Callable[..., Any], tmp_path: Path) -> None:
    training = {"max_epochs": 6, "schedule": "constant"}
    chosen = config(
        model="autoformer",
        architecture=SMALL,
        normalization="none",
        head={"kind": "student_t"},
        intervals={"method": "head"},
        training=training,
    )
    made = run(chosen, tmp_path / "run", visible=False)
    assert made is not None
    # the mean of the training rows would score about 1
    assert made.artifact.metrics["scores"]["autoformer"]["mse"] < 0.7
    series = made.prepared.series
    one, other = (Predictor(kept).forecast(series) for kept in (made.artifact, artifact.load(tmp_path / "run")))
    for name in ("forecast", "quantile"):
        np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_published_settings_fit(path: Path) -> None:
    chosen = read_config(path)
    options = models.architecture(chosen.model, chosen.architecture)
    task = Task(chosen.lookback, chosen.horizon, 1)
    models.find(chosen.model).check_architecture(task, options)
    assert (options.d_model, options.d_ff, options.heads, options.window) == (512, 2048, 8, 25)
    assert chosen.normalization == "none" and chosen.training.learning_rate == 1e-4
