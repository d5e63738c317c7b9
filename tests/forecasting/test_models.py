"""The models: one file each, what each claims to support, and their arithmetic against independent code."""

import ast
import inspect
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from datasets import panel as panels
from datasets import schema
from datasets.errors import ForetideError
from datasets.panel import Panel
from datasets.windows import Batch, Windows
from forecasting import baselines, models
from forecasting.config import HeadOptions, TrainingOptions, search_space
from forecasting.engine import predict
from forecasting.experiment import run
from forecasting.forecaster import Forecaster, Recipe, Task
from forecasting.models.itransformer import ITransformer, ITransformerConfig

L, H, C = 30, 6, 3
MODELS = pytest.mark.parametrize("name", models.names())
SMALL: dict[str, dict[str, Any]] = {
    "autoformer": {"d_model": 16, "d_ff": 24, "heads": 4, "window": 7},
    "informer": {"d_model": 16, "d_ff": 24, "heads": 4},
    "itransformer": {"layers": 2, "d_model": 16, "d_ff": 24, "heads": 4},
    "tsmixer": {"layers": 2, "d_model": 8, "patch_length": 6, "stride": 6},
}


def make(name: str, *, head: HeadOptions | None = None, **sizes: int) -> Any:
    kind = models.find(name)
    recipe = Recipe(head or HeadOptions(), str(kind.defaults.get("normalization", "instance")))
    task = Task(**{"lookback": L, "horizon": H, "variates": C, "season": 24, **sizes})
    made = kind(task, models.architecture(name, SMALL.get(name, {})), recipe).eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return made


def batch(count: int = 5, variates: int = C, **tensors: Tensor) -> Batch:
    past = torch.randn(count, L, variates).cumsum(1)
    return Batch(
        **{
            "past": past,
            "past_mask": torch.ones_like(past, dtype=torch.bool),
            "past_calendar": torch.zeros(count, L, 0),
            "future_calendar": torch.zeros(count, H, 0),
            "series": torch.zeros(count, dtype=torch.long),
            "origin": torch.arange(count),
            **tensors,
        }
    )


def with_everything() -> tuple[Any, Batch]:
    """An iTransformer that takes every kind of covariate, and a batch that has them."""
    model = make("itransformer", calendar=4, past=2, future=2, static=3)
    return model, batch(
        past_calendar=torch.randn(5, L, 4),
        future_calendar=torch.randn(5, H, 4),
        past_covariates=torch.randn(5, L, 2),
        future_covariates=torch.randn(5, L + H, 2),
        static=torch.randn(5, 3),
    )


@MODELS
def test_a_file_holds_exactly_one_forecaster(name: str) -> None:
    kind = models.find(name)
    # a folder's __init__.py exports the one that its other files define
    tree = ast.parse(Path(inspect.getfile(kind)).read_text(encoding="utf-8"))
    classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    assert kind.__name__ in classes and issubclass(kind, Forecaster)
    assert kind.title and kind.__doc__
    assert all(space for space in search_space(kind.Config).values())
    assert {f.name for f in fields(kind.Config)} >= set(search_space(kind.Config))


def test_an_unknown_model_is_told_with_the_closest_name() -> None:
    assert models.find("iTransformer") is ITransformer and models.find("seasonal-naive").title == "Seasonal naive"
    with pytest.raises(ForetideError, match="found 'itransfomer', did you mean 'itransformer'"):
        models.find("itransfomer")
    with pytest.raises(ForetideError, match="d_modl"):
        models.architecture("itransformer", {"d_modl": 3})
    with pytest.raises(ForetideError, match=r"architecture\.d_model: found 30"):
        models.architecture("itransformer", {"d_model": 30})


TOY = '''
import torch
from dataclasses import dataclass

from datasets.options import tunable
from datasets.windows import Batch
from forecasting.forecaster import Architecture, Forecaster, Recipe, Supports, Task


@dataclass(frozen=True)
class ToyConfig(Architecture):
    scale: float = tunable(1.0, low=0.1, high=10.0)


class Toy(Forecaster):
    """One linear map."""

    Config = ToyConfig
    supports = Supports(any_variates=True)
    title = "Toy"

    def __init__(self, task: Task, architecture: ToyConfig, recipe: Recipe) -> None:
        super().__init__(task, architecture, recipe)
        self.project = torch.nn.Linear(task.lookback, task.horizon * self.head.size)

    def forward(self, batch: Batch) -> torch.Tensor:
        outputs = self.project(batch.past.transpose(1, 2)) * self.architecture.scale
        return outputs.unflatten(-1, (self.task.horizon, self.head.size)).transpose(1, 2)
'''


@pytest.fixture
def new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """A function that adds a file to the folder of models, as far as Python can tell."""

    def add(name: str, text: str) -> None:
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")

    monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path)])
    return add


def test_a_new_model_is_one_file(
    new_file: Callable[[str, str], None], config: Callable[..., Any], tmp_path: Path
) -> None:
    new_file("toy", TOY)
    assert "toy" in models.names()
    for kind in ("point", "student_t"):
        chosen = config(model="toy", architecture={"scale": 2.0}, head={"kind": kind})
        made = run(chosen, tmp_path / kind, visible=False)
        assert made is not None
        scores = made.artifact.metrics["scores"]
        assert set(scores) == {"toy", "seasonal_naive", "dlinear"} and scores["toy"]["mse"] < 1
        assert made.artifact.config["architecture"] == {"scale": 2.0}


def test_a_file_with_none_or_two_forecasters_is_an_error(new_file: Callable[[str, str], None]) -> None:
    new_file("empty", "from forecasting.forecaster import Forecaster\n")
    new_file("pair", TOY + TOY[TOY.index("class Toy(Forecaster)") :].replace("class Toy(", "class Second("))
    with pytest.raises(ForetideError, match=r"empty\.py: found 0 forecasters, expected exactly one"):
        models.find("empty")
    with pytest.raises(ForetideError, match=r"pair\.py: found 2 forecasters"):
        models.find("pair")


def holes(spoil: float) -> Panel:
    """A panel with missing values, whose cells under the mask hold ``spoil``."""
    rng = np.random.default_rng(3)
    values = rng.standard_normal((90, C)).cumsum(0)
    values[rng.random((90, C)) < 0.2] = np.nan
    stamps = np.datetime64("2024-01-01") + np.arange(90) * np.timedelta64(1, "h")
    panel = panels.from_series(schema.series(values, stamps, ["a", "b", "c"]))
    return replace(panel, value=torch.where(panel.observed, panel.value, spoil).float())


@MODELS
def test_what_stands_under_the_mask_does_not_matter(name: str) -> None:
    model, found = make(name), []
    for spoil in (0.0, 1e9, float("nan")):
        windows = Windows(holes(spoil), L, H, [(L, 85)])
        found.append(torch.cat([prediction.point for prediction in predict(model, windows)]))
    assert model.supports.missing and found[0].isfinite().all()
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


@MODELS
def test_a_forecast_does_not_depend_on_its_batch_mates(name: str) -> None:
    model, whole = make(name), batch(8)
    together = model.outputs(whole)
    for place in (0, 3, 7):
        alone = whole.replace(
            **{f.name: value[place : place + 1] for f in fields(whole) if (value := getattr(whole, f.name)) is not None}
        )
        torch.testing.assert_close(model.outputs(alone)[0], together[place], atol=1e-5, rtol=1e-5)
    mates = whole.replace(past=torch.cat([whole.past[:1], 1e3 * torch.randn(7, L, C)]))
    torch.testing.assert_close(model.outputs(mates)[0], together[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", [name for name in models.names() if models.find(name).supports.any_variates])
def test_weights_serve_another_number_of_variates_where_claimed(name: str) -> None:
    model = make(name)
    for variates in (1, 2, 11):
        assert model.outputs(batch(4, variates)).shape == (4, H, variates, 1)


@MODELS
@pytest.mark.parametrize("kind", ["point", "quantile", "student_t"])
def test_every_head_that_a_model_claims_fits(name: str, kind: Any) -> None:
    options = HeadOptions(kind)
    if kind != "point" and not models.find(name).supports.probabilistic:
        with pytest.raises(ForetideError, match=f"found head.kind {kind}, expected point"):
            make(name, head=options)
        return
    model = make(name, head=options)
    output = model.outputs(batch())
    assert output.shape == (5, H, C, model.head.size) and model.head.point(output).shape == (5, H, C)


@pytest.mark.parametrize("part", ["past", "past_calendar", "past_covariates", "future_covariates", "static"])
def test_itransformer_uses_every_kind_of_input(part: str) -> None:
    model, made = with_everything()
    value = getattr(made, part)
    before, after = model.outputs(made), model.outputs(made.replace(**{part: value + torch.randn_like(value)}))
    assert ((before - after).abs().amax((1, 2, 3)) > 1e-4).all()
    last = value.clone()
    last[0].view(-1)[-1] += 1.0
    changed = (model.outputs(made.replace(**{part: last})) - before).abs().amax((1, 2, 3))
    assert changed[0] > 1e-5 and (changed[1:] < 1e-5).all()


def test_itransformer_without_covariates_ignores_them() -> None:
    model, (_, made) = make("itransformer"), with_everything()
    bare = made.replace(past_covariates=None, future_covariates=None, static=None)
    assert torch.equal(model.outputs(made), model.outputs(bare))


def test_itransformer_has_no_order_of_variates() -> None:
    model, made = with_everything()
    order = torch.tensor([2, 0, 1])
    expected = model.outputs(made)[:, :, order]
    torch.testing.assert_close(model.outputs(made.variates(order)), expected, atol=1e-5, rtol=1e-5)


def test_attention_maps_over_variates() -> None:
    model, made = with_everything()
    maps = model.attention(made)
    tokens = C + 4 + 2 + 2 + 1
    assert maps.shape == (2, 5, 4, tokens, tokens) and (maps >= 0).all()
    torch.testing.assert_close(maps.sum(-1), torch.ones(2, 5, 4, tokens))
    assert make("itransformer").attention(batch()).shape == (2, 5, 4, C, C)
    first = maps[0].sum()
    assert first.isfinite() and not torch.allclose(maps[0], maps[1])


def test_dropout_only_in_training() -> None:
    model, made = with_everything()
    assert torch.equal(model.outputs(made), model.outputs(made))
    model.train()
    assert not torch.equal(model.outputs(made), model.outputs(made))


@pytest.mark.parametrize("use_norm", [True, False])
def test_itransformer_equals_neuralforecast_with_the_same_weights(
    require: Callable[[str], ModuleType], use_norm: bool
) -> None:
    require("neuralforecast")
    from neuralforecast.models import iTransformer

    theirs = iTransformer(
        h=H,
        input_size=L,
        n_series=C,
        hidden_size=16,
        n_heads=4,
        e_layers=2,
        d_ff=24,
        dropout=0.1,
        use_norm=use_norm,
        max_steps=1,
    ).eval()
    ours = ITransformer(
        Task(L, H, C),
        ITransformerConfig(layers=2, d_model=16, d_ff=24, heads=4),
        Recipe(normalization="instance" if use_norm else "none"),
    ).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    ours.load_state_dict(_renamed(theirs.state_dict()))
    made = batch()
    expected = theirs({"insample_y": made.past.clone()})
    torch.testing.assert_close(ours.outputs(made)[..., 0], expected, atol=1e-5, rtol=1e-5)


def _renamed(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of neuralforecast's iTransformer under our names; their convolutions of width one are linear maps."""
    ours = {}
    for kind in ("weight", "bias"):
        ours[f"embed.{kind}"] = theirs[f"enc_embedding.value_embedding.{kind}"]
        ours[f"norm.{kind}"] = theirs[f"encoder.norm.{kind}"]
        ours[f"project.{kind}"] = theirs[f"projector.{kind}"]
        for layer in range(2):
            there, here = f"encoder.attn_layers.{layer}.", f"encoder.{layer}."
            ours[f"{here}attention.project_in.{kind}"] = torch.cat(
                [theirs[f"{there}attention.{part}_projection.{kind}"] for part in ("query", "key", "value")]
            )
            ours[f"{here}attention.project_out.{kind}"] = theirs[f"{there}attention.out_projection.{kind}"]
            ours[f"{here}norm_attention.{kind}"] = theirs[f"{there}norm1.{kind}"]
            ours[f"{here}norm_forward.{kind}"] = theirs[f"{there}norm2.{kind}"]
            for mine, other in (("widen", "conv1"), ("narrow", "conv2")):
                ours[f"{here}{mine}.{kind}"] = theirs[f"{there}{other}.{kind}"].reshape(
                    theirs[f"{there}{other}.{kind}"].shape[:2]
                )
    return ours


@pytest.mark.parametrize("kind", ["point", "student_t"])
def test_dlinear_by_hand(kind: Any) -> None:
    model, made = make("dlinear", head=HeadOptions(kind)), batch()
    past, size = made.past.numpy(), model.head.size
    padded = np.pad(past, ((0, 0), (12, 12), (0, 0)), mode="edge")
    trend = np.stack([padded[:, t : t + 25].mean(1) for t in range(L)], axis=1)
    weights = {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}
    expected = np.zeros((5, H, C, size))
    for b in range(5):
        for c in range(C):
            flat = (
                weights["project_trend.weight"] @ trend[b, :, c]
                + weights["project_trend.bias"]
                + weights["project_rest.weight"] @ (past - trend)[b, :, c]
                + weights["project_rest.bias"]
            )
            expected[b, :, c] = flat.reshape(H, size)
    np.testing.assert_allclose(model.outputs(made).detach(), expected, atol=1e-4)


def test_dlinear_starts_from_the_mean_of_the_lookback() -> None:
    kind = models.find("dlinear")
    model: Any = kind(Task(L, H, C), kind.Config(), Recipe(normalization="none"))
    torch.nn.init.zeros_(model.project_trend.bias)
    torch.nn.init.zeros_(model.project_rest.bias)
    made = batch()
    torch.testing.assert_close(model.outputs(made)[..., 0], made.past.mean(1, keepdim=True).expand(-1, H, -1))


def test_naive_models_are_the_baselines() -> None:
    made = batch()
    made.past_mask[:, -5:, 1] = False
    torch.testing.assert_close(
        make("seasonal_naive").outputs(made)[..., 0], baselines.seasonal_naive(made.past, H, 24, made.past_mask)
    )
    torch.testing.assert_close(make("drift").outputs(made)[..., 0], baselines.drift(made.past, H, made.past_mask))
    assert not models.find("drift").trainable and not models.find("seasonal_naive").trainable


def test_what_a_model_cannot_do_is_refused_before_it_is_built() -> None:
    with pytest.raises(ForetideError, match="found lookback 12, expected at least the season of 24"):
        make("seasonal_naive", lookback=12)

    class Bound(ITransformer):
        supports = ITransformer.supports.__class__(any_variates=False, longest_lookback=20)
        title = "Bound"

    with pytest.raises(ForetideError, match="Bound: found lookback 30, expected at most 20"):
        Bound.check(Task(30, H, C), Recipe())
    with pytest.raises(ForetideError, match=r"training\.variate_fraction 0\.5, expected 1"):
        Bound.check(Task(20, H, C), Recipe(training=TrainingOptions(variate_fraction=0.5)))


def test_activations_differ() -> None:
    torch.manual_seed(1)
    gelu = ITransformer(Task(L, H, C), ITransformerConfig(1, 16, 16, 2), Recipe()).eval()
    relu = ITransformer(Task(L, H, C), ITransformerConfig(1, 16, 16, 2, activation="relu"), Recipe()).eval()
    relu.load_state_dict(gelu.state_dict())
    made = batch()
    assert not torch.allclose(gelu.outputs(made), relu.outputs(made))
