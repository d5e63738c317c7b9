"""Informer against neuralforecast and transformers with the same weights, and what its options and inputs mean."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from datasets.errors import ForetideError
from datasets.windows import Batch
from forecasting import models
from forecasting.config import HeadOptions, TrainingOptions, read_config
from forecasting.experiment import run
from forecasting.forecaster import Recipe, Task
from forecasting.models.informer import Informer
from forecasting.models.informer.blocks import DecoderLayer, Distilling, Encoder, SelfAttention, fixed_sample, sines
from forecasting.models.informer.config import InformerConfig
from forecasting.predictor import Predictor

L, H, C, CALENDAR = 36, 12, 3, 4
SMALL: dict[str, Any] = {"d_model": 16, "d_ff": 24, "heads": 4, "factor": 2}
CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "informer").glob("*.yaml"))
COVARIATES = {"past": 2, "future": 3, "static": 1}


def make(recipe: Recipe | None = None, sizes: dict[str, int] | None = None, **options: Any) -> Informer:
    """A small model whose weights are drawn so wide that no part of it can hide."""
    task = Task(**{"lookback": L, "horizon": H, "variates": C, "calendar": CALENDAR, **(sizes or {})})
    made = Informer(task, InformerConfig(**{**SMALL, **options}), recipe or Recipe(normalization="none")).eval()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3)
    draw_statistics(made)
    return made


def draw_statistics(model: nn.Module) -> None:
    """Running statistics of batch normalisation as no training leaves them."""
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            nn.init.normal_(buffer)
        elif name.endswith("running_var"):
            nn.init.uniform_(buffer, 0.5, 2.0)


def batch(count: int = 5, variates: int = C, covariates: bool = False) -> Batch:
    past = torch.randn(count, L, variates)
    made = Batch(
        past=past,
        past_mask=torch.ones_like(past, dtype=torch.bool),
        past_calendar=torch.rand(count, L, CALENDAR) - 0.5,
        future_calendar=torch.rand(count, H, CALENDAR) - 0.5,
        series=torch.zeros(count, dtype=torch.long),
        origin=torch.arange(count),
        future=torch.randn(count, H, variates),
        future_mask=torch.ones(count, H, variates, dtype=torch.bool),
    )
    if not covariates:
        return made
    known = torch.randn(count, L, 2), torch.randn(count, L + H, 3), torch.randn(count, 1)
    return made.replace(past_covariates=known[0], future_covariates=known[1], static=known[2])


class Unmixed(nn.Module):
    """neuralforecast's ProbSparse attention with time before heads again, as its own full attention has them."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, **inputs: Any) -> tuple[Tensor, None]:
        return self.inner(**inputs)[0].transpose(1, 2).contiguous(), None


def their_informer(kind: str, layers: int, decoder_layers: int, mix: bool) -> Any:
    """neuralforecast's Informer, mended where it departs from the paper: full cross-attention, distilling that halves.

    Its ProbSparse attention leaves heads before time, which is ``mix``; the encoder's is put right.
    """
    from neuralforecast.common._modules import FullAttention
    from neuralforecast.models import Informer as Theirs

    made = Theirs(
        h=H,
        input_size=L,
        futr_exog_list=["a", "b", "c", "d"],
        hidden_size=16,
        conv_hidden_size=24,
        n_head=4,
        factor=2,
        encoder_layers=layers,
        decoder_layers=decoder_layers,
        dropout=0.1,
        max_steps=1,
    )
    for layer in made.encoder.attn_layers:
        inner = layer.attention.inner_attention
        layer.attention.inner_attention = Unmixed(inner) if kind == "probsparse" else FullAttention(False)
    for layer in made.decoder.layers:
        layer.cross_attention.inner_attention = FullAttention(False)
        if kind == "full":
            layer.self_attention.inner_attention = FullAttention(True, output_attention=True)
        elif not mix:
            layer.self_attention.inner_attention = Unmixed(layer.self_attention.inner_attention)
    for layer in made.encoder.conv_layers:
        layer.downConv.padding, layer.downConv._reversed_padding_repeated_twice = (1,), [1, 1]
    return made.eval()


def renamed(theirs: dict[str, Tensor], layers: int, decoder_layers: int) -> dict[str, Tensor]:
    """Weights of neuralforecast's Informer under our names; a convolution is a linear map of neighbours."""
    ours: dict[str, Tensor] = {}

    def copy(here: str, there: str, *parts: str) -> None:
        for kind in ("weight", "bias"):
            whole = torch.cat([theirs[f"{there}{part}.{kind}"] for part in parts or ("",)])
            # (out, in, kernel) → (out, kernel · in)
            ours[f"{here}.{kind}"] = whole.transpose(1, 2).flatten(1) if whole.ndim == 3 else whole

    def block(here: str, there: str) -> None:
        for mine, other in (("widen", "conv1"), ("narrow", "conv2")):
            copy(f"{here}.{mine}", f"{there}.{other}")

    for mine, other in (("embed", "enc_embedding"), ("embed_decoder", "dec_embedding")):
        ours[f"{mine}.values.weight"] = theirs[f"{other}.value_embedding.tokenConv.weight"].transpose(1, 2).flatten(1)
        ours[f"{mine}.calendar.weight"] = theirs[f"{other}.temporal_embedding.embed.weight"]
        ours[f"{mine}.values.bias"] = ours[f"{mine}.calendar.bias"] = torch.zeros(16)
    for number in range(layers):
        here, there = f"encoders.0.layers.{number}", f"encoder.attn_layers.{number}"
        names = ("query_projection", "key_projection", "value_projection")
        copy(f"{here}.attention.project_in", f"{there}.attention.", *names)
        copy(f"{here}.attention.project_out", f"{there}.attention.out_projection")
        block(here, there)
        copy(f"{here}.norm_attention", f"{there}.norm1")
        copy(f"{here}.norm_forward", f"{there}.norm2")
    for number in range(layers - 1):
        here, there = f"encoders.0.distil.{number}", f"encoder.conv_layers.{number}"
        copy(f"{here}.convolve", f"{there}.downConv")
        for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            ours[f"{here}.norm.{part}"] = theirs[f"{there}.norm.{part}"]
    for number in range(decoder_layers):
        here, there = f"decoder.{number}", f"decoder.layers.{number}"
        names = ("query_projection", "key_projection", "value_projection")
        copy(f"{here}.attention.project_in", f"{there}.self_attention.", *names)
        copy(f"{here}.attention.project_out", f"{there}.self_attention.out_projection")
        copy(f"{here}.cross.project_query", f"{there}.cross_attention.query_projection")
        copy(f"{here}.cross.project_memory", f"{there}.cross_attention.", *names[1:])
        copy(f"{here}.cross.project_out", f"{there}.cross_attention.out_projection")
        block(here, there)
        for mine, other in (("norm_attention", "norm1"), ("norm_cross", "norm2"), ("norm_forward", "norm3")):
            copy(f"{here}.{mine}", f"{there}.{other}")
    copy("encoders.0.norm", "encoder.norm")
    copy("norm", "decoder.norm")
    copy("project", "decoder.projection")
    return ours


@pytest.mark.parametrize(
    ("kind", "layers", "decoder_layers", "mix"),
    [("full", 2, 1, False), ("full", 3, 2, False), ("probsparse", 2, 1, True), ("probsparse", 3, 2, False)],
)
def test_it_equals_neuralforecast_with_the_same_weights(
    kind: str, layers: int, decoder_layers: int, mix: bool, require: Callable[[str], ModuleType]
) -> None:
    require("neuralforecast")
    theirs = their_informer(kind, layers, decoder_layers, mix)
    ours = make(
        sizes={"variates": 1},
        attention=kind,
        layers=layers,
        decoder_layers=decoder_layers,
        mix=mix,
        label_length=L // 2,
    )
    draw_statistics(theirs)
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)
    ours.load_state_dict(renamed(theirs.state_dict(), layers, decoder_layers))
    made = batch(variates=1)
    given = {"insample_y": made.past, "futr_exog": torch.cat([made.past_calendar, made.future_calendar], dim=1)}
    torch.manual_seed(3)
    expected = theirs(given)
    if kind == "probsparse":
        # what theirs drew, layer by layer
        torch.manual_seed(3)
        for attention in (module for module in ours.modules() if isinstance(module, SelfAttention)):
            attention.sample.copy_(torch.randint(len(attention.sample), attention.sample.shape))
    torch.testing.assert_close(ours.outputs(made)[..., 0], expected, atol=1e-5, rtol=1e-5)


def test_distilling_equals_transformers(require: Callable[[str], ModuleType]) -> None:
    require("transformers")
    from transformers.models.informer.modeling_informer import InformerConvLayer

    theirs, ours = InformerConvLayer(6), Distilling(6)
    ours.load_state_dict(
        {
            "convolve.weight": theirs.downConv.weight.transpose(1, 2).flatten(1),
            "convolve.bias": theirs.downConv.bias,
            **{f"norm.{name}": tensor for name, tensor in theirs.norm.state_dict().items()},
        }
    )
    for mode in (True, False):
        for length in (24, 13, 2):
            x = torch.randn(3, length, 6)
            found = ours.train(mode)(x)
            assert found.shape == (3, -(-length // 2), 6)
            torch.testing.assert_close(found, theirs.train(mode)(x), atol=1e-5, rtol=1e-5)


def test_positions_are_sines_and_cosines() -> None:
    found = sines(50, 7)
    for position in (0, 1, 49):
        for column in range(7):
            angle = torch.tensor(position / 10000 ** (2 * (column // 2) / 7))
            torch.testing.assert_close(found[position, column], angle.cos() if column % 2 else angle.sin())


def test_the_decoder_starts_with_known_rows_and_ends_with_zeros() -> None:
    model, made = make(sizes=COVARIATES, label_length=10), batch(covariates=True)
    seen: list[tuple[Tensor, Tensor]] = []
    for part in (model.embed, model.embed_decoder):
        part.register_forward_pre_hook(lambda module, inputs: seen.append(inputs))
    model.outputs(made)
    (encoder, encoder_calendar), (decoder, calendar) = seen
    assert made.past_covariates is not None and made.future_covariates is not None and made.static is not None
    static = made.static[:, None]
    past = torch.cat([made.past, made.past_covariates, made.future_covariates[:, :L], static.expand(-1, L, -1)], dim=2)
    assert torch.equal(encoder, past) and torch.equal(encoder_calendar, made.past_calendar)
    assert torch.equal(decoder[:, :10], past[:, -10:]) and torch.equal(decoder[:, 10:, -1:], static.expand(-1, H, -1))
    assert (decoder[:, 10:, : C + 2] == 0).all()
    assert torch.equal(decoder[:, 10:, C + 2 : -1], made.future_covariates[:, L:])
    assert torch.equal(calendar, torch.cat([made.past_calendar[:, -10:], made.future_calendar], dim=1))


@pytest.mark.parametrize(
    "part", ["past", "past_calendar", "future_calendar", "past_covariates", "future_covariates", "static"]
)
def test_every_kind_of_input_is_used(part: str) -> None:
    model, made = make(sizes=COVARIATES), batch(covariates=True)
    value, before = getattr(made, part), model.outputs(made)
    last = value.clone()
    last[0].view(-1)[-1] += 1.0
    changed = (model.outputs(made.replace(**{part: last})) - before).abs().amax((1, 2, 3))
    assert changed[0] > 1e-5 and (changed[1:] < 1e-5).all()


def test_what_is_not_in_the_task_is_ignored() -> None:
    model, made = make(sizes={"calendar": 0}), batch(covariates=True)
    bare = made.replace(past_covariates=None, future_covariates=None, static=None)
    bare = bare.replace(past_calendar=made.past_calendar[..., :0], future_calendar=made.future_calendar[..., :0])
    assert torch.equal(model.outputs(made), model.outputs(bare))


@pytest.mark.parametrize(
    ("layers", "stack", "lengths"), [(3, [2, 1], [36, 18, 9]), (3, [1], [36, 9]), (2, [1], [36, 18])]
)
def test_stacked_encoders_see_the_end_of_the_lookback_and_end_at_one_length(
    layers: int, stack: list[int], lengths: list[int]
) -> None:
    model, made = make(layers=layers, stack=stack), batch()
    x = model.embed(made.past, made.past_calendar)
    parts = []
    for encoder, length in zip(model.encoders, lengths, strict=True):
        assert isinstance(encoder, Encoder)
        y = x[:, -length:]
        for number, layer in enumerate(encoder.layers):
            y = layer(y)
            if number < len(encoder.layers) - 1:
                y = encoder.distil[number](y)
        parts.append(encoder.norm(y))
    assert {part.shape[1] for part in parts} == {9 if layers == 3 else 18}
    calendar = torch.cat([made.past_calendar, made.future_calendar], dim=1)
    memory = model._memory(F.pad(made.past, (0, 0, 0, H)), calendar)
    assert torch.equal(memory, torch.cat(parts, dim=1))


def test_without_distilling_the_length_stays() -> None:
    model = make(distil=False, layers=3)
    assert [len(sample) for sample in samples(model)] == [L, L, L, L // 2 + H]
    assert model.outputs(batch()).shape == (5, H, C, 1)


@pytest.mark.parametrize("kind", ["probsparse", "full"])
def test_the_decoder_is_masked_and_mixing_lifts_the_mask(kind: str) -> None:
    x = torch.randn(2, 20, 16)
    later = torch.cat([x[:, :14], torch.randn(2, 6, 16)], dim=1)
    for mix in (False, True):
        # with all queries active, none is chosen by what comes later
        options = InformerConfig(**{**SMALL, "factor": 9, "attention": kind, "mix": mix, "dropout": 0.0})
        masked = SelfAttention(20, 0, 0, options, causal=True).eval()
        same = torch.isclose(masked(x), masked(later), atol=1e-6).all(-1).all(0)
        assert not same[:14].all() if mix else torch.equal(same, torch.arange(20) < 14)
        free = SelfAttention(20, 0, 0, options).eval()
        assert not torch.isclose(free(x), free(later), atol=1e-6).all(-1).any()


def test_mixing_lays_the_heads_one_after_the_other() -> None:
    x = torch.randn(2, 20, 16)
    plain, mixed = (
        SelfAttention(20, 0, 0, InformerConfig(**SMALL, mix=mix), causal=True).eval() for mix in (False, True)
    )
    mixed.load_state_dict(plain.state_dict())
    plain.project_out, mixed.project_out = nn.Identity(), nn.Identity()  # type: ignore[assignment]
    heads = plain(x).unflatten(2, (4, 4))  # (B, time, head, E)
    flat = torch.stack([heads[:, step, head] for head in range(4) for step in range(20)], dim=1)
    assert torch.equal(mixed(x), flat.view(2, 20, 16))


def test_the_last_decoder_layer_makes_only_what_is_read() -> None:
    layer = DecoderLayer(30, 0, 0, InformerConfig(**SMALL)).eval()
    x, memory = torch.randn(2, 30, 16), torch.randn(2, 9, 16)
    torch.testing.assert_close(layer(x, memory, 12), layer(x, memory)[:, -12:], atol=1e-6, rtol=1e-6)


def samples(model: Informer) -> list[Tensor]:
    return [module.sample for module in model.modules() if isinstance(module, SelfAttention)]


def test_counts_of_active_queries_and_sampled_keys() -> None:
    # c ⌈ln L⌉, and never more than there are: 96 and 48 steps in the encoder, 48 + 8 in the decoder
    model = make(sizes={"lookback": 96, "horizon": 8}, factor=5, layers=2)
    attentions = [module for module in model.modules() if isinstance(module, SelfAttention)]
    assert [(len(a.sample), a.sample.shape[1], a.top) for a in attentions] == [(96, 25, 25), (48, 20, 20), (56, 25, 25)]
    assert SelfAttention(7, 0, 0, InformerConfig(**{**SMALL, "factor": 9})).top == 7


def test_samples_of_evaluation_depend_on_seed_layer_and_lengths_alone() -> None:
    first = samples(make())
    torch.manual_seed(1)
    state = torch.get_rng_state()
    again = fixed_sample(2023, 0, L, L, first[0].shape[1])
    assert torch.equal(torch.get_rng_state(), state) and torch.equal(first[0], again)
    assert all(torch.equal(a, b) for a, b in zip(first, samples(make()), strict=True))
    others = [fixed_sample(*key, first[0].shape[1]) for key in ((7, 0, L, L), (2023, 1, L, L), (2023, 0, L, L - 1))]
    assert all(not torch.equal(again, other) for other in others)
    assert set(again.unique().tolist()) == set(range(L))
    seeded = make(Recipe(normalization="none", training=TrainingOptions(seed=7)))
    assert not torch.equal(samples(seeded)[0], first[0])
    assert not any("sample" in name or "positions" in name for name in make().state_dict())


def test_a_forecast_depends_on_nothing_but_its_window() -> None:
    model, made = make(), batch(8)
    before = model.outputs(made)
    torch.rand(5)
    model.outputs(batch(3))
    assert torch.equal(model.outputs(made), before)
    for place in (0, 7):
        alone = made.replace(
            **{f.name: v[place : place + 1] for f in fields(made) if (v := getattr(made, f.name)) is not None}
        )
        torch.testing.assert_close(model.outputs(alone)[0], before[place], atol=1e-5, rtol=1e-5)


def test_training_draws_new_keys_from_the_global_generator() -> None:
    model, made = make(dropout=0.0, distil=False), batch()
    model.train()
    found = []
    for seed in (0, 1, 0):
        torch.manual_seed(seed)
        found.append(model.outputs(made))
    assert torch.equal(found[0], found[2]) and not torch.allclose(found[0], found[1])
    full = make(dropout=0.0, distil=False, attention="full").train()
    assert torch.equal(full.outputs(made), full.outputs(made))


@pytest.mark.parametrize("options", [{}, {"attention": "full", "mix": False}, {"layers": 3, "stack": [2, 1]}])
def test_gradients_reach_every_weight(options: dict[str, Any]) -> None:
    model = make(sizes=COVARIATES, **options).train()
    model.training_step(batch(covariates=True), 0).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name


def test_half_precision_stays_close() -> None:
    model, made = make(attention="full"), batch()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model.outputs(made)
    torch.testing.assert_close(found.float(), model.outputs(made), atol=0.05, rtol=0.05)
    sparse = make().train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        sparse.training_step(made, 0).backward()
    assert all(parameter.grad.isfinite().all() for parameter in sparse.parameters() if parameter.grad is not None)


def test_attention_on_request() -> None:
    model, made = make(layers=3, stack=[1], decoder_layers=2), batch()
    maps = model.attention(made)
    sizes = {name: (positions.shape[2], weights.shape[3]) for name, (positions, weights) in maps.items()}
    assert sizes == {
        "encoder 1, layer 1": (8, 36),
        "encoder 1, layer 2": (6, 18),
        "encoder 1, layer 3": (6, 9),
        "encoder 2, layer 1": (6, 9),
        "decoder, layer 1": (8, 30),
        "decoder to encoder, layer 1": (30, 18),
        "decoder, layer 2": (8, 30),
        "decoder to encoder, layer 2": (30, 18),
    }
    for name, (positions, weights) in maps.items():
        assert weights.shape == (5, 4, *sizes[name]) and (weights >= 0).all()
        torch.testing.assert_close(weights.sum(-1), torch.ones(5, 4, sizes[name][0]))
        assert all(len(set(row)) == sizes[name][0] for row in positions.flatten(0, 1).tolist())
        if name.startswith("decoder, "):
            assert (weights[torch.arange(weights.shape[3]) > positions[..., None]] == 0).all()
    whole = make(attention="full").attention(made)
    assert {weights.shape[2:] for _, weights in whole.values()} == {(36, 36), (18, 18), (30, 30), (30, 18)}
    assert torch.equal(whole["encoder 1, layer 1"][0], torch.arange(36).expand(5, 4, 36))


def test_normalization_and_heads_of_the_base() -> None:
    made = batch()
    for head in ("quantile", "student_t"):
        model = make(Recipe(HeadOptions(head), normalization="instance"))
        moved = made.replace(past=made.past * 7 + 100)
        assert model.outputs(made).shape == (5, H, C, model.head.size)
        point = model.head.point(model.outputs(made)) * 7 + 100
        torch.testing.assert_close(model.head.point(model.outputs(moved)), point, atol=1e-2, rtol=1e-3)
    assert not Informer.supports.any_variates and Informer.defaults["normalization"] == "none"


BAD: dict[str, dict[str, Any]] = {
    "label_length: found 40, expected at most the lookback of 36 rows": {"label_length": 40},
    "label_length: found 0, expected at least 1": {"label_length": 0},
    "lookback: found 36, too short for an encoder of 7 layers": {"layers": 7},
    "d_model: found 18, expected a multiple of architecture.heads = 4": {"d_model": 18, "heads": 4},
    r"stack: found \[3\], expected numbers from 1 to below architecture.layers = 3": {"layers": 3, "stack": [3]},
    "factor: found 0, expected at least 1": {"factor": 0},
    "dropout: found 1.0, expected 0 to below 1": {"dropout": 1.0},
    "architecture: attention: found 'sparse', expected one of probsparse, full": {"attention": "sparse"},
    "unknown option 'label_len'; did you mean 'label_length'": {"label_len": 3},
}


@pytest.mark.parametrize("message", BAD)
def test_bad_options_end_in_one_line_before_training(message: str, config: Callable[..., Any], tmp_path: Path) -> None:
    chosen = config(model="informer", architecture={"d_model": 16, "d_ff": 16, "heads": 2, **BAD[message]})
    with pytest.raises(ForetideError, match=message) as caught:
        run(chosen, tmp_path / "run", visible=False)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_a_run_is_stored_and_forecasts_the_same_again(config: Callable[..., Any], tmp_path: Path) -> None:
    chosen = config(
        model="informer",
        architecture={**SMALL, "label_length": 24},
        normalization="none",
        training={"max_epochs": 2, "learning_rate": 3e-3},
    )
    made = run(chosen, tmp_path / "run", visible=False)
    assert made is not None
    scores, epochs = made.artifact.metrics["scores"], made.artifact.metrics["training"]["epochs"]
    assert epochs[-1]["train_loss"] < epochs[0]["train_loss"] and scores["informer"]["mse"] < 1.5
    first, second = (Predictor(made.artifact) for _ in range(2))
    windows = made.prepared.windows("test")
    given = windows.batch(torch.arange(6))
    assert torch.equal(first.model.outputs(given), second.model.outputs(given))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_published_settings_fit(path: Path) -> None:
    chosen = read_config(path)
    variates = len(chosen.reader.variates or range(7))
    options = models.architecture("informer", chosen.architecture)
    Informer.check_architecture(Task(chosen.lookback, chosen.horizon, variates, calendar=4), options)
    assert (options.mix, options.distil, options.attention) == (True, True, "probsparse")
    assert (options.d_model, options.heads, options.d_ff, options.dropout) == (512, 8, 2048, 0.05)
