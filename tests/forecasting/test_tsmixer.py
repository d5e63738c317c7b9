"""TSMixer against the authors' release with the same weights, and its reconciliation heads against the equations."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
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
from forecasting.forecaster import Recipe, Task
from forecasting.models.tsmixer import TSMixer
from forecasting.models.tsmixer.config import TSMixerConfig
from forecasting.pretraining import MaskedPretraining, MaskingOptions

L, H, C, PATCH = 32, 12, 3, 4
SMALL: dict[str, Any] = {"patch_length": PATCH, "stride": PATCH, "layers": 2, "d_model": 6, "expansion": 2}


def make(task: Task | None = None, recipe: Recipe | None = None, std: float = 0.3, **options: Any) -> TSMixer:
    """A small model whose weights are drawn so wide that no part of it can hide."""
    made = TSMixer(task or Task(L, H, C), TSMixerConfig(**{**SMALL, **options}), recipe or Recipe()).eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=std)
    return made


def batch(count: int = 5, variates: int = C, missing: bool = False) -> Batch:
    past, future = torch.randn(count, L, variates).cumsum(1), torch.randn(count, H, variates)
    masks = [torch.rand(t.shape) > 0.2 if missing else torch.ones_like(t, dtype=torch.bool) for t in (past, future)]
    return Batch(
        past=torch.where(masks[0], past, 0.0),
        past_mask=masks[0],
        past_calendar=torch.zeros(count, L, 0),
        future_calendar=torch.zeros(count, H, 0),
        series=torch.zeros(count, dtype=torch.long),
        origin=torch.arange(count),
        future=torch.where(masks[1], future, torch.nan),
        future_mask=masks[1],
    )


MODES: list[dict[str, Any]] = [
    {"backbone": backbone, "gated": gated, "self_attention": attention, "norm": norm, "stride": stride}
    for backbone, gated, attention, norm in product(
        ("independent", "inter_channel"), (True, False), (True, False), ("layer", "batch")
    )
    for stride in ((PATCH,) if attention else (PATCH, 2))
]


def their_config(transformers: Any, options: dict[str, Any], normalization: str, **more: Any) -> Any:
    names = {"independent": "common_channel", "inter_channel": "mix_channel"}
    return transformers.PatchTSMixerConfig(
        context_length=L,
        prediction_length=H,
        num_input_channels=C,
        patch_length=PATCH,
        patch_stride=options["stride"],
        d_model=SMALL["d_model"],
        num_layers=SMALL["layers"],
        expansion_factor=SMALL["expansion"],
        mode=names[options["backbone"]],
        gated_attn=options["gated"],
        self_attn=options["self_attention"],
        self_attn_heads=2,
        norm_mlp={"layer": "LayerNorm", "batch": "BatchNorm"}[options["norm"]],
        scaling="std" if normalization == "instance" else None,
        attn_implementation="eager",
        **more,
    )


def ours_from(theirs: dict[str, Tensor], options: dict[str, Any]) -> dict[str, Tensor]:
    """Weights of PatchTSMixer's encoder under the names of our backbone."""
    kinds = ["patch_mixer", "feature_mixer"]
    if options["backbone"] == "inter_channel":
        kinds.insert(0, "channel_feature_mixer")
    made = {f"embed.{kind}": theirs[f"model.encoder.patcher.{kind}"] for kind in ("weight", "bias")}
    parts = {"mlp.fc1": "mlp.widen", "mlp.fc2": "mlp.narrow", "gating_block.attn_layer": "gate.score"}
    parts |= {"self_attn_layer.out_proj": "attention.project_out"}
    norms = {"norm.norm": "norm", "norm_attn.norm": "norm_attention"}
    for layer, (place, kind) in product(range(SMALL["layers"]), enumerate(kinds)):
        there = f"model.encoder.mlp_mixer_encoder.mixers.{layer}.{kind}."
        here = f"layers.{layer * len(kinds) + place}."
        found = {name.removeprefix(there): tensor for name, tensor in theirs.items() if name.startswith(there)}
        for name, tensor in found.items():
            part, _, field = name.rpartition(".")
            if part in parts:
                made[f"{here}{parts[part]}.{field}"] = tensor
            elif part.removesuffix(".batchnorm") in norms:
                made[f"{here}{norms[part.removesuffix('.batchnorm')]}.{field}"] = tensor
        for field in ("weight", "bias"):
            rows = [found.get(f"self_attn_layer.{part}_proj.{field}") for part in "qkv"]
            if rows[0] is not None:
                made[f"{here}attention.project_in.{field}"] = torch.cat([row for row in rows if row is not None])
    return made


def randomise(model: torch.nn.Module) -> None:
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    for name, buffer in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            torch.nn.init.uniform_(buffer, 0.5, 1.5)


@pytest.mark.parametrize("options", MODES, ids=lambda o: "-".join(map(str, o.values())))
def test_every_mode_equals_the_released_model(require: Callable[[str], ModuleType], options: dict[str, Any]) -> None:
    transformers = require("transformers")
    for normalization in ("instance", "none"):
        theirs = transformers.PatchTSMixerForPrediction(their_config(transformers, options, normalization)).eval()
        randomise(theirs)
        ours = make(recipe=Recipe(normalization=normalization), heads=2, **options)
        state = theirs.state_dict()
        weights = {f"backbone.{name}": tensor for name, tensor in ours_from(state, options).items()}
        weights |= {f"project.{kind}": state[f"head.base_forecast_block.{kind}"] for kind in ("weight", "bias")}
        ours.load_state_dict(weights)
        made = batch()
        expected = theirs(past_values=made.past).prediction_outputs
        torch.testing.assert_close(ours.outputs(made)[..., 0], expected, atol=1e-5, rtol=1e-5)


def test_missing_values_are_scaled_as_in_the_released_model(require: Callable[[str], ModuleType]) -> None:
    transformers = require("transformers")
    theirs = transformers.PatchTSMixerForPrediction(their_config(transformers, MODES[0], "instance")).eval()
    made = batch(missing=True)
    theirs(past_values=made.past, observed_mask=made.past_mask)
    scaled, location, scale = theirs.model.scaler(made.past, made.past_mask)
    normalized, state = make()._normalization.normalize(made)
    torch.testing.assert_close(state, (location, scale), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(normalized.past, torch.where(made.past_mask, scaled, 0.0), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("backbone", ["independent", "inter_channel"])
@pytest.mark.parametrize("together", [True, False])
def test_masked_loss_equals_that_of_the_released_model(
    require: Callable[[str], ModuleType], backbone: str, together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    transformers = require("transformers")
    options = {**MODES[0], "backbone": backbone}
    chosen = their_config(transformers, options, "instance", random_mask_ratio=0.4, channel_consistent_masking=together)
    theirs = transformers.PatchTSMixerForPretraining(chosen).eval()
    randomise(theirs)
    ours = MaskedPretraining(make(heads=2, **options), MaskingOptions(0.4, together)).eval()
    state = theirs.state_dict()
    weights = {f"backbone.{name}": tensor for name, tensor in ours_from(state, options).items()}
    weights |= {f"reconstruct.1.{kind}": state[f"head.base_pt_block.{kind}"] for kind in ("weight", "bias")}
    ours.load_state_dict(weights)
    made = batch()
    seen: list[Tensor] = []
    masking = theirs.model.masking.forward
    monkeypatch.setattr(theirs.model.masking, "forward", lambda x: _noted(masking(x), seen))
    expected = theirs(past_values=made.past)
    monkeypatch.setattr(ours, "_hidden", lambda tokens: seen[0][..., None])
    total, count = ours.errors(made)
    assert count == seen[0].sum() * PATCH and seen[0].sum(-1).unique().tolist() == [L // PATCH - int(L // PATCH * 0.6)]
    torch.testing.assert_close(total / count, expected.loss, atol=1e-5, rtol=1e-5)


def _noted(made: tuple[Tensor, Tensor], seen: list[Tensor]) -> tuple[Tensor, Tensor]:
    seen.append(made[1])
    return made


def test_the_vanilla_backbone_equals_one_series_of_flattened_patches() -> None:
    """With the patches of all variates in a row, it is the independent backbone on a single series."""
    vanilla = make(recipe=Recipe(normalization="none"), backbone="vanilla")
    single = make(
        Task(L * C, H * C, 1),
        Recipe(normalization="none"),
        patch_length=PATCH * C,
        stride=PATCH * C,
    )
    single.load_state_dict(vanilla.state_dict())
    made = batch()
    rows = (
        made.past.unflatten(1, (-1, PATCH)).transpose(2, 3).reshape(5, L * C, 1)
    )  # patch after patch, in it by variate
    flat = made.replace(past=rows, past_mask=torch.ones_like(rows, dtype=torch.bool))
    expected = single.outputs(flat)[:, :, 0, 0].unflatten(1, (C, H)).transpose(1, 2)
    torch.testing.assert_close(vanilla.outputs(made)[..., 0], expected, atol=1e-5, rtol=1e-5)


def parts(model: TSMixer) -> dict[str, np.ndarray]:
    return {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}


def plain_forecast(model: TSMixer, made: Batch) -> tuple[np.ndarray, np.ndarray]:
    """What the forecast head says before any reconciliation ``(B, H, C)``, and flat features ``(B, C, N · D)``."""
    with torch.no_grad():
        features = model.backbone(model.backbone.tokens(model._normalization.normalize(made)[0].past)).flatten(2)
    features = features.double().numpy()
    weights = parts(model)
    return (features @ weights["project.weight"].T + weights["project.bias"]).transpose(0, 2, 1), features


def scaled_back(model: TSMixer, made: Batch, forecast: np.ndarray) -> np.ndarray:
    location, scale = (tensor.double().numpy() for tensor in model._normalization.normalize(made)[1])
    return forecast * scale + location


def by_channels(weights: dict[str, np.ndarray], forecast: np.ndarray, context: int) -> np.ndarray:
    """The cross-channel head, one step at a time: window, flatten over channels, gate, linear map, residual."""
    count, horizon, variates = forecast.shape
    revised = forecast.copy()
    for b, h in product(range(count), range(horizon)):
        window = []
        for c in range(variates):
            for offset in range(-context, context + 1):
                inside = 0 <= h + offset < horizon
                window.append(forecast[b, h + offset, c] if inside else 0.0)
        x = np.array(window)
        score = weights["channel_reconciliation.gate.score.weight"] @ x
        score = np.exp(score + weights["channel_reconciliation.gate.score.bias"])
        gated = x * score / score.sum()
        project = weights["channel_reconciliation.project.weight"] @ gated
        revised[b, h] += project + weights["channel_reconciliation.project.bias"]
    return revised


def by_hierarchy(
    weights: dict[str, np.ndarray], forecast: np.ndarray, features: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The patch head, one patch at a time: append the forecast of its sum, linear map, residual."""
    count, horizon, variates = forecast.shape
    sums = np.zeros((count, horizon // PATCH, variates))
    revised = forecast.copy()
    for b, c, m in product(range(count), range(variates), range(horizon // PATCH)):
        sums[b, m, c] = weights["sums.weight"][m] @ features[b, c] + weights["sums.bias"][m]
        rows = slice(m * PATCH, (m + 1) * PATCH)
        appended = np.append(forecast[b, rows, c], sums[b, m, c])
        revised[b, rows, c] += weights["patch_reconciliation.project.weight"] @ appended
        revised[b, rows, c] += weights["patch_reconciliation.project.bias"]
    return revised, sums


@pytest.mark.parametrize("context", [0, 1, 3])
def test_the_cross_channel_head_step_by_step(context: int) -> None:
    model, made = make(cross_channel=True, context=context), batch()
    forecast, _ = plain_forecast(model, made)
    expected = scaled_back(model, made, by_channels(parts(model), forecast, context))
    np.testing.assert_allclose(model.outputs(made).detach()[..., 0], expected, atol=1e-4, rtol=1e-5)
    alone = make(context=context)
    alone.load_state_dict({k: v for k, v in model.state_dict().items() if "reconciliation" not in k})
    assert not torch.allclose(alone.outputs(made), model.outputs(made), atol=1e-2)


def test_the_hierarchy_head_patch_by_patch() -> None:
    model, made = make(hierarchy=True), batch()
    expected, _ = by_hierarchy(parts(model), *plain_forecast(model, made))
    np.testing.assert_allclose(
        model.outputs(made).detach()[..., 0], scaled_back(model, made, expected), atol=1e-4, rtol=1e-5
    )


def test_both_heads_the_cross_channel_one_first() -> None:
    model, made = make(hierarchy=True, cross_channel=True), batch()
    forecast, features = plain_forecast(model, made)
    weights = parts(model)
    expected, _ = by_hierarchy(weights, by_channels(weights, forecast, 1), features)
    np.testing.assert_allclose(
        model.outputs(made).detach()[..., 0], scaled_back(model, made, expected), atol=1e-4, rtol=1e-5
    )


@pytest.mark.parametrize("loss", ["mse", "mae"])
def test_the_loss_of_the_hierarchy_from_its_equation(loss: Any) -> None:
    model, made = make(recipe=Recipe(HeadOptions(loss=loss)), hierarchy=True, dropout=0.0, head_dropout=0.0), batch()
    revised, sums = by_hierarchy(parts(model), *plain_forecast(model, made))
    location, scale = (tensor.double().numpy() for tensor in model._normalization.normalize(made)[1])
    revised, sums = revised * scale + location, sums * scale + PATCH * location
    assert made.future is not None
    actual = made.future.double().numpy()
    actual_sums = actual.reshape(5, H // PATCH, PATCH, C).sum(2)
    bottom_up = revised.reshape(5, H // PATCH, PATCH, C).sum(2)
    measure, factor = (np.square, PATCH**2) if loss == "mse" else (np.abs, PATCH)
    terms = [measure(actual_sums - sums).mean() / factor, measure(actual_sums - bottom_up).mean() / factor]
    plain = measure(actual - revised).mean()
    total, count = model.train()._loss(made)
    np.testing.assert_allclose(float((total / count).detach()), plain + sum(terms), rtol=1e-5)
    total, count = model.eval()._loss(made)
    np.testing.assert_allclose(float((total / count).detach()), plain, rtol=1e-5)


def test_a_patch_with_a_missing_target_has_no_sum_to_be_scored() -> None:
    model, made = make(hierarchy=True, dropout=0.0, head_dropout=0.0).train(), batch()
    assert made.future is not None and made.future_mask is not None
    holes = made.future_mask.clone()
    holes[:, 5] = False
    spoilt = made.future.clone()
    spoilt[:, 5] = torch.nan
    total, count = model._loss(made.replace(future=spoilt, future_mask=holes))
    total.backward()
    assert count == 5 * (H - 1) * C and total.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    outputs, sums = model.eval()._forecast(model._normalization.normalize(made)[0])
    location, scale = model._normalization.normalize(made)[1]
    point = (outputs[..., 0] * scale + location).detach()
    assert sums is not None
    patches = [point.unflatten(1, (-1, PATCH)).mean(2), (sums / PATCH * scale + location).detach()]
    kept = torch.tensor([True, False, True])
    actual = made.future.unflatten(1, (-1, PATCH)).mean(2)
    expected = ((point - made.future) ** 2)[holes].sum()
    expected = expected + PATCH * sum(((patch - actual) ** 2)[:, kept].sum() for patch in patches)
    torch.testing.assert_close(total.detach(), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("kind", ["quantile", "student_t"])
@pytest.mark.parametrize("backbone", ["independent", "inter_channel", "vanilla"])
def test_probabilistic_heads_are_reconciled_output_by_output(kind: Any, backbone: str) -> None:
    model = make(recipe=Recipe(HeadOptions(kind)), std=0.1, backbone=backbone, hierarchy=True, cross_channel=True)
    made, size = batch(missing=True), model.head.size
    outputs, _ = model._forecast(made)
    assert outputs.shape == (5, H, C, size)
    assert model.channel_reconciliation is not None and model.patch_reconciliation is not None
    features = model.backbone(model.backbone.tokens(made.past)).flatten(2)
    plain = model.project(features).reshape(5, C, size, H)
    sums = model.sums(features).reshape(5, C, -1)  # type: ignore[misc]
    for one in (0, size - 1):
        revised = model.patch_reconciliation(model.channel_reconciliation(plain[:, :, one : one + 1]), sums)
        torch.testing.assert_close(outputs[..., one], revised[:, :, 0].transpose(1, 2), atol=1e-5, rtol=1e-5)
    total, count = model.train()._loss(made)
    (total / count).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("options", [{}, {"hierarchy": True}, {"gated": False, "self_attention": True}])
def test_independent_weights_serve_any_variates_and_never_mix_them(options: dict[str, Any]) -> None:
    model, made = make(**options), batch()
    assert model.supports.any_variates
    together = model.outputs(made)
    for c in range(C):
        torch.testing.assert_close(
            model.outputs(made.variates(torch.tensor([c])))[:, :, 0], together[:, :, c], atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("options", [{"backbone": "inter_channel"}, {"backbone": "vanilla"}, {"cross_channel": True}])
def test_what_mixes_variates_is_bound_to_them(options: dict[str, Any]) -> None:
    model, made = make(**options), batch()
    assert not model.supports.any_variates and TSMixer.supports.any_variates
    changed = made.past.clone()
    changed[:, :, 0] = torch.randn(5, L)
    moved = (model.outputs(made.replace(past=changed)) - model.outputs(made)).abs().amax((0, 1, 3))
    assert (moved > 1e-3).all()
    with pytest.raises(ForetideError, match=r"training\.variate_fraction 0\.5, expected 1"):
        make(recipe=Recipe(training=TrainingOptions(variate_fraction=0.5)), **options)
    make(recipe=Recipe(training=TrainingOptions(variate_fraction=0.5)))


def test_gates_are_returned_as_they_are_applied() -> None:
    model, made = make(backbone="inter_channel", cross_channel=True), batch()
    found = model.gates(made)
    assert len(found) == 2 * 3 + 1 and not model.backbone.layers[0]._forward_hooks
    shapes = {"layers.0": (5, 6, 8, C), "layers.1": (5, C, 6, 8), "layers.2": (5, C, 8, 6)}
    for name, shape in shapes.items():
        assert found[f"backbone.{name}.gate"].shape == shape
    assert found["channel_reconciliation.gate"].shape == (5, 1, H, 3 * C)
    for weights in found.values():
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    assert make(gated=False).gates(made) == {}


@pytest.mark.parametrize(
    ("sizes", "options", "words"),
    [
        (
            {"lookback": 33},
            {},
            "found lookback 33, which patches of 4 rows every 4 do not fill; set --lookback 32 or 36",
        ),
        ({"lookback": 3}, {}, "set --lookback at least 4"),
        ({"variates": 1}, {"backbone": "inter_channel"}, "inter_channel: found 1 variate, expected at least 2"),
        ({"variates": 1}, {"cross_channel": True}, "cross_channel true: found 1 variate, expected at least 2"),
        (
            {},
            {"cross_channel": True, "context": 6},
            "found 6, a window of 13 steps, expected at most 5 for the horizon",
        ),
        (
            {"horizon": 10},
            {"hierarchy": True},
            r"found horizon 10, expected a multiple of architecture\.patch_length = 4",
        ),
    ],
)
def test_sizes_that_do_not_fit_are_told_in_one_line(sizes: dict[str, int], options: dict[str, Any], words: str) -> None:
    task = replace(Task(L, H, C), **sizes)
    with pytest.raises(ForetideError, match=words) as told:
        TSMixer.check_architecture(task, TSMixerConfig(**{**SMALL, **options}))
    assert "\n" not in str(told.value)
    with pytest.raises(ForetideError, match=words):
        make(task, **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"patch_length": 0}, r"architecture\.patch_length: found 0, expected at least 1"),
        ({"stride": 9}, r"architecture\.stride: found 9, expected at most architecture\.patch_length = 8"),
        ({"self_attention": True, "heads": 5}, r"architecture\.heads: found 5, expected a divisor of"),
        ({"dropout": 1.0}, r"architecture\.dropout: found 1\.0, expected 0 to below 1"),
        ({"context": -1}, r"architecture\.context: found -1, expected 0 or more"),
        ({"norm": "group"}, "expected one of layer, batch"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ForetideError, match=words):
        models.architecture("tsmixer", options)


def test_gradients_in_double_precision() -> None:
    model = make(backbone="inter_channel", hierarchy=True, cross_channel=True, norm="layer").double()
    past = torch.randn(1, L, C, dtype=torch.float64, requires_grad=True)
    made = batch(1)
    assert torch.autograd.gradcheck(lambda x: model.outputs(made.replace(past=x)), past, fast_mode=True)


@pytest.mark.parametrize("options", [{}, {"backbone": "vanilla"}, {"hierarchy": True, "cross_channel": True}])
@torch.inference_mode()
def test_export_gives_equal_outputs(options: dict[str, Any]) -> None:
    model, made = make(**options), batch()
    exported = torch.export.export(model, (made,)).module()
    torch.testing.assert_close(exported(made), model(made), atol=1e-6, rtol=1e-5)
