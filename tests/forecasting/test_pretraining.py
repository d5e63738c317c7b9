"""Masked pre-training, and runs that start from its backbone or from another run."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from datasets.errors import ForetideError, ForetideWarning
from datasets.options import build, plain
from forecasting import artifact
from forecasting.__main__ import main
from forecasting.config import RunConfig
from forecasting.experiment import Outcome, build_model, run, train_model
from forecasting.predictor import Predictor
from forecasting.pretraining import MaskedPretraining, MaskingOptions, pretrain, read_pretraining
from forecasting.protocol import prepare

SMALL = {"patch_length": 6, "stride": 6, "layers": 2, "d_model": 12, "dropout": 0.1, "head_dropout": 0.1}


@pytest.fixture(scope="module")
def chosen(config: Callable[..., Any]) -> Callable[..., RunConfig]:
    """A function that makes a tiny TSMixer configuration."""

    def make(**changes: Any) -> RunConfig:
        values = {"model": "tsmixer", "architecture": SMALL, "baselines": ["seasonal_naive"], **changes}
        made: RunConfig = config(**values)
        return made

    return make


@pytest.fixture(scope="module")
def pretrained(chosen: Callable[..., RunConfig], tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A backbone that has learned for a few epochs."""
    folder = tmp_path_factory.mktemp("pretrained") / "backbone"
    made = pretrain(chosen(training={"max_epochs": 6}), MaskingOptions(0.34), folder, visible=False)
    assert made is not None
    return made


@pytest.fixture(scope="module")
def supervised(chosen: Callable[..., RunConfig], tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A whole forecaster."""
    made = run(chosen(training={"max_epochs": 4}), tmp_path_factory.mktemp("supervised") / "run", visible=False)
    assert made is not None
    return made


def test_a_backbone_learns_to_fill_in_what_is_hidden(pretrained: Outcome) -> None:
    stored = artifact.load(pretrained.folder)
    scores = stored.metrics["scores"]
    assert scores["tsmixer"]["masked_mse"] < 0.7 * scores["window_mean"]["masked_mse"]
    losses = [row["validation_loss"] for row in stored.metrics["training"]["epochs"]]
    assert losses[-1] < 0.8 * losses[0]
    assert stored.schema["holds"] == "backbone" and stored.schema["masking"] == {"ratio": 0.34, "together": True}
    kinds = {name.split(".")[1] for name in stored.weights}
    assert kinds == {"backbone", "reconstruct"} and stored.config["model"] == "tsmixer"
    assert not list(pretrained.folder.parent.glob(".*"))


def test_the_mean_of_the_window_is_scored_from_its_definition(
    chosen: Callable[..., RunConfig], pretrained: Outcome
) -> None:
    """Normalised rows have mean zero and variance one, so that is about its error."""
    assert 0.8 < pretrained.artifact.metrics["scores"]["window_mean"]["masked_mse"] < 1.2
    prepared = prepare(chosen())
    module = MaskedPretraining(build_model(chosen(), prepared), MaskingOptions(0.5)).eval()
    windows = prepared.windows("test").batch(torch.arange(20))
    module.hide_anew()
    total, count = module.errors(windows, zero=True)
    module.hide_anew()
    past = module._normalization.normalize(windows)[0].past
    tokens = past.unflatten(1, (6, 6)).permute(0, 3, 1, 2)
    hidden = module._hidden(tokens)
    assert count == 20 * 3 * 3 * 6
    torch.testing.assert_close(total, (tokens**2 * hidden).sum())


@pytest.mark.parametrize("together", [True, False])
def test_masks(chosen: Callable[..., RunConfig], together: bool) -> None:
    module = MaskedPretraining(build_model(chosen(), prepare(chosen())), MaskingOptions(0.4, together))
    tokens = torch.randn(500, 3, 6, 6)
    for mode in (True, False):
        hidden = module.train(mode)._hidden(tokens)[..., 0]
        assert hidden.shape == (500, 3, 6) and (hidden.sum(-1) == 3).all()
        assert bool((hidden == hidden[:, :1]).all()) is together
        share = hidden.float().mean((0, 1))
        assert ((share - 0.5).abs() < 0.1).all()
        assert not torch.equal(hidden, module._hidden(tokens)[..., 0])
    first = []
    for _ in range(2):
        module.hide_anew()
        first.append(module._hidden(tokens))
    assert torch.equal(*first)


def test_hidden_rows_are_not_seen_and_missing_ones_not_scored(chosen: Callable[..., RunConfig]) -> None:
    prepared = prepare(chosen(normalization="none"))
    module = MaskedPretraining(build_model(chosen(normalization="none"), prepared), MaskingOptions(0.5)).eval()
    made = prepared.windows("test").batch(torch.arange(4))
    module.hide_anew()
    hidden = module._hidden(module.backbone.tokens(made.past))  # type: ignore[operator]
    rows = hidden.expand(-1, -1, -1, 6).flatten(2).transpose(1, 2)
    missing = torch.rand(made.past.shape) < 0.3
    base = made.replace(past_mask=~missing)
    found = []
    for spoil in (0.0, 50.0):
        module.hide_anew()
        changed = torch.where(rows & missing, spoil, made.past)
        found.append(module.errors(base.replace(past=changed)))
    torch.testing.assert_close(found[0], found[1])
    assert found[0][1] == (rows & ~missing).sum()


def test_all_backbones_can_be_pretrained(chosen: Callable[..., RunConfig], tmp_path: Path) -> None:
    for backbone in ("inter_channel", "vanilla"):
        options = chosen(architecture={**SMALL, "backbone": backbone, "norm": "batch"}, training={"max_epochs": 1})
        made = pretrain(options, MaskingOptions(), tmp_path / backbone, visible=False)
        assert made is not None
        model = build_model(_from(options, made.folder), made.prepared)
        for name, tensor in model.backbone.state_dict().items():  # type: ignore[union-attr]
            assert torch.equal(tensor, made.artifact.weights[f"model.backbone.{name}"])


def _from(options: RunConfig, folder: Path, **training: Any) -> RunConfig:
    return options.of(training=replace(options.training, init_from=str(folder), **training))


@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_a_linear_probe_trains_the_head_alone(chosen: Callable[..., RunConfig], tmp_path: Path, norm: str) -> None:
    options = chosen(architecture={**SMALL, "norm": norm}, training={"max_epochs": 2})
    source = pretrain(options, MaskingOptions(), tmp_path / "source", visible=False)
    assert source is not None
    probe = run(_from(options, source.folder, freeze_backbone=True), tmp_path / "probe", visible=False)
    tuned = run(_from(options, source.folder), tmp_path / "tuned", visible=False)
    assert probe is not None and tuned is not None
    for name, tensor in source.artifact.weights.items():
        if name.startswith("model.backbone."):
            assert torch.equal(probe.artifact.weights[name], tensor)
    moved = [
        name
        for name, tensor in source.artifact.weights.items()
        if name.startswith("model.backbone.") and not torch.equal(tuned.artifact.weights[name], tensor)
    ]
    assert len(moved) > 10
    first, last = (probe.artifact.metrics["training"]["epochs"][i]["validation_loss"] for i in (0, -1))
    assert last < first
    assert not any(name.startswith("model.reconstruct") for name in probe.artifact.weights)


def test_a_frozen_backbone_stays_in_evaluation_mode(chosen: Callable[..., RunConfig], pretrained: Outcome) -> None:
    model: Any = build_model(_from(chosen(), pretrained.folder, freeze_backbone=True), pretrained.prepared)
    for mode in (model, model.eval().train()):
        assert mode.training and not mode.backbone.training and not mode.backbone.layers[0].mlp.dropout.training
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {"project.weight", "project.bias"}
    groups = model.configure_optimizers()["optimizer"].param_groups
    assert sum(len(group["params"]) for group in groups) == 2


def test_a_probe_is_continued_after_a_break(
    chosen: Callable[..., RunConfig], pretrained: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = _from(chosen(training={"max_epochs": 3}), pretrained.folder, freeze_backbone=True)
    whole = train_model(options, pretrained.prepared, tmp_path / "whole", False).model.state_dict()
    broken = options.of(training=replace(options.training, max_epochs=1))
    train_model(broken, pretrained.prepared, tmp_path / "broken", False)
    (tmp_path / "broken" / "tsmixer" / "fit.json").unlink()
    again = train_model(options, pretrained.prepared, tmp_path / "broken", False).model.state_dict()
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_whole_forecasters_are_taken_over_as_they_are(
    chosen: Callable[..., RunConfig], supervised: Outcome, tmp_path: Path
) -> None:
    """Without training, a forecaster on its own data scores what it scored."""
    same = run(_from(chosen(), supervised.folder, max_epochs=0), tmp_path / "same", visible=False)
    assert same is not None and same.artifact.metrics["training"]["epochs"] == []
    scores = [made.artifact.metrics["scores"]["tsmixer"]["mse"] for made in (supervised, same)]
    assert scores[0] == scores[1]
    assert same.artifact.metrics["scores"]["seasonal_naive"] == supervised.artifact.metrics["scores"]["seasonal_naive"]


def test_transfer_without_training_to_other_data_beats_seasonal_naive(
    chosen: Callable[..., RunConfig],
    supervised: Outcome,
    tmp_path: Path,
    daily: Callable[..., np.ndarray],
    write_csv: Callable[..., Path],
) -> None:
    other = write_csv(tmp_path / "other.csv", 40 - 7 * daily(variates=5, seed=9))
    moved = run(_from(chosen(data=str(other)), supervised.folder, max_epochs=0), tmp_path / "moved", visible=False)
    assert moved is not None
    row = next(r for r in moved.artifact.metrics["comparison"] if r["metric"] == "mse")
    assert row["baseline"] == "seasonal_naive" and row["verdict"] == "better"
    assert Predictor.load(moved.folder).forecast(moved.prepared.series)["forecast"].shape == (12, 5)


def test_a_head_that_does_not_fit_is_new(
    chosen: Callable[..., RunConfig], supervised: Outcome, pretrained: Outcome, recwarn: pytest.WarningsRecorder
) -> None:
    longer = chosen(horizon=24)
    prepared = prepare(longer)
    with pytest.warns(ForetideWarning, match=r"project\.weight: found \(12, 72\), expected \(24, 72\); only the back"):
        model = build_model(_from(longer, supervised.folder), prepared)
    stored, fresh = supervised.artifact.weights, build_model(longer, prepared)
    assert torch.equal(model.state_dict()["backbone.embed.weight"], stored["model.backbone.embed.weight"])
    assert torch.equal(model.state_dict()["project.weight"], fresh.state_dict()["project.weight"])
    recwarn.clear()
    build_model(_from(longer, pretrained.folder), prepared)
    assert not recwarn.list


@pytest.mark.parametrize(
    ("changes", "training", "words"),
    [
        (
            {"architecture": {**SMALL, "d_model": 24}},
            {},
            r"backbone\.embed\.weight: found \(12, 6\), expected \(24, 6\)",
        ),
        (
            {"architecture": {**SMALL, "gated": False}},
            {},
            r"gate\.score\.bias: found \(6,\), expected nothing; set --loo",
        ),
        ({"lookback": 48}, {}, r"backbone\.layers\.0\.mlp\.widen\.weight: found \(18, 6\), expected \(24, 8\)"),
        ({"model": "dlinear", "architecture": {}}, {}, "found a tsmixer, expected a dlinear as in --model"),
        ({}, {"max_epochs": 0}, r"project\.weight: found nothing, expected \(12, 72\); training\.max_epochs 0 needs"),
    ],
)
def test_weights_that_do_not_fit_are_told_in_one_line(
    chosen: Callable[..., RunConfig],
    pretrained: Outcome,
    tmp_path: Path,
    changes: dict[str, Any],
    training: dict[str, Any],
    words: str,
) -> None:
    with pytest.raises(ForetideError, match=words) as told:
        run(_from(chosen(**changes), pretrained.folder, **training), tmp_path / "run", visible=False)
    assert "\n" not in str(told.value) and str(pretrained.folder) in str(told.value)
    assert not list(tmp_path.iterdir())


def test_other_mistakes_are_told_in_one_line(
    chosen: Callable[..., RunConfig], config: Callable[..., Any], outcome: Outcome, pretrained: Outcome, tmp_path: Path
) -> None:
    with pytest.raises(
        ForetideError, match=r"training\.freeze_backbone: found True, expected false, or training\.init"
    ):
        chosen(training={"freeze_backbone": True})
    with pytest.raises(ForetideError, match=r"training\.max_epochs: found 0, expected at least 1"):
        chosen(training={"max_epochs": 0})
    with pytest.raises(ForetideError, match="found nothing, expected the folder of an artifact"):
        build_model(_from(chosen(), tmp_path / "nowhere"), pretrained.prepared)
    with pytest.raises(ForetideError, match="itransformer has no part that is its backbone"):
        build_model(_from(config(), outcome.folder, freeze_backbone=True), outcome.prepared)
    with pytest.raises(ForetideError, match="is a pre-trained backbone, which forecasts nothing yet"):
        Predictor.load(pretrained.folder)
    for options, masking, words in [
        (config(), {}, "itransformer has no backbone that can be pre-trained, expected one of tsmixer"),
        (
            chosen(architecture={**SMALL, "stride": 3}),
            {},
            r"architecture\.stride: found 3, expected architecture\.patch",
        ),
        (chosen(), {"ratio": 0.999}, r"masking\.ratio: found 0\.999, expected a share that hides some of 6 patches"),
        (_from(chosen(), pretrained.folder, freeze_backbone=True), {}, "pre-training trains the backbone"),
    ]:
        with pytest.raises(ForetideError, match=words):
            pretrain(options, build(MaskingOptions, masking, "masking"), tmp_path / "run", visible=False)
    with pytest.raises(ForetideError, match=r"masking\.ratio: found 1\.5, expected a number between 0 and 1"):
        MaskingOptions(1.5)
    assert not list(tmp_path.iterdir())


def test_models_without_a_backbone_start_from_all_of_their_weights(
    config: Callable[..., Any], outcome: Outcome
) -> None:
    model = build_model(_from(config(), outcome.folder), outcome.prepared)
    assert all(torch.equal(tensor, outcome.artifact.weights[f"model.{k}"]) for k, tensor in model.state_dict().items())
    with pytest.raises(ForetideError, match=r"project\.weight: found \(12, 16\), expected \(6, 16\)"):
        build_model(_from(config(horizon=6), outcome.folder), prepare(config(horizon=6)))


def test_the_plain_entry_pretrains(
    chosen: Callable[..., RunConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = {**plain(chosen(training={"max_epochs": 1})), "masking": {"ratio": 0.5, "together": False}}
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    assert read_pretraining(file)[1] == MaskingOptions(0.5, False)
    assert main(["pretrain", str(file), str(tmp_path / "out")]) == 0
    assert f"wrote {tmp_path / 'out'}" in capsys.readouterr().out
    schema = json.loads((tmp_path / "out" / "schema.json").read_text(encoding="utf-8"))
    assert schema["masking"] == {"ratio": 0.5, "together": False}
    assert main(["pretrain", str(file), str(tmp_path / "out")]) == 2
    assert "exists already" in capsys.readouterr().err
    file.write_text(yaml.safe_dump({**values, "masking": {"share": 0.5}}), encoding="utf-8")
    assert main(["pretrain", str(file), str(tmp_path / "other")]) == 2
    assert "masking: unknown option 'share'" in capsys.readouterr().err
    assert main(["pretrain", str(file)]) == 2


def test_etth1_to_etth2_without_training_beats_seasonal_naive(data_folder: Path, tmp_path: Path) -> None:
    options = build(
        RunConfig,
        {
            "data": "ETTh1",
            "model": "tsmixer",
            "lookback": 192,
            "architecture": {**SMALL, "patch_length": 12, "stride": 12, "layers": 1},
            "training": {"max_epochs": 1, "batch_size": 64, "learning_rate": 3e-3, "accelerator": "cpu"},
            "baselines": ["seasonal_naive"],
        },
        "test",
    )
    source = run(options, tmp_path / "ETTh1", visible=False)
    assert source is not None
    moved = run(_from(options.of(data="ETTh2"), source.folder, max_epochs=0), tmp_path / "ETTh2", visible=False)
    assert moved is not None
    own, naive = (moved.artifact.metrics["scores"][name]["mse"] for name in ("tsmixer", "seasonal_naive"))
    row = next(r for r in moved.artifact.metrics["comparison"] if r["metric"] == "mse")
    assert own < 0.9 * naive and row["verdict"] == "better"
