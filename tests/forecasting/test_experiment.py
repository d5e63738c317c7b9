"""Complete runs: what they leave, that they can be repeated and continued, and every kind of data and head."""

import json
import math
import sys
from collections.abc import Callable
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from datasets.errors import ForetideError
from datasets.options import build, plain
from forecasting import artifact, experiment, models
from forecasting.config import RunConfig, read_config
from forecasting.engine import predict
from forecasting.experiment import Outcome, run
from forecasting.predictor import Predictor

Make = Callable[..., Any]


@pytest.fixture
def long_csv(tmp_path: Path) -> Path:
    """Five daily series of unequal length, one shorter than the lookback, one with a hole."""
    rng, frames = np.random.default_rng(0), []
    for number, length in enumerate((150, 90, 40, 200, 120)):
        y = 10.0 * (number + 1) + 3 * np.sin(2 * np.pi * np.arange(length) / 7) + rng.standard_normal(length)
        days = pl.datetime_range(
            pl.datetime(2023, 1, 1), pl.datetime(2023, 1, 1) + pl.duration(days=length - 1), "1d", eager=True
        )
        frames.append(pl.DataFrame({"unique_id": f"s{number}", "ds": days, "y": y}))
    frames[1] = frames[1].with_columns(y=pl.when(pl.int_range(pl.len()) == 30).then(None).otherwise(pl.col("y")))
    pl.concat(frames).write_csv(tmp_path / "long.csv")
    return tmp_path / "long.csv"


def finite(table: Any) -> bool:
    """Whether every number in nested plain data is finite."""
    if isinstance(table, dict):
        return all(map(finite, table.values()))
    if isinstance(table, list):
        return all(map(finite, table))
    return not isinstance(table, float) or math.isfinite(table)


def test_a_run_leaves_everything_that_is_needed(outcome: Outcome) -> None:
    stored = artifact.load(outcome.folder)
    metrics = stored.metrics
    assert metrics["windows"] == {"train": 456, "validation": 62, "test": 133}
    assert set(metrics["scores"]) == {"itransformer", "seasonal_naive", "dlinear"} and finite(metrics)
    assert metrics["scores"]["seasonal_naive"]["skill_mae"] == 0
    assert {
        "mse",
        "mae",
        "mase",
        "smape",
        "crps",
        "coverage_50",
        "coverage_80",
        "coverage_95",
        "skill_mae",
        "skill_crps",
        "mae_original",
    } <= set(metrics["scores"]["itransformer"])
    assert len(metrics["by_step"]["dlinear"]["mae"]) == 12 and set(metrics["by_variate"]["dlinear"]["mae"]) == set(
        "abc"
    )
    pairs = {(row["model"], row["baseline"], row["metric"]) for row in metrics["comparison"]}
    assert pairs == set(product(["itransformer"], ["seasonal_naive", "dlinear"], ["mse", "mae"]))
    assert [row["epoch"] for row in metrics["training"]["epochs"]] == [1, 2, 3]
    schema = stored.schema
    assert (schema["variates"], schema["frequency"], schema["season"]) == (["a", "b", "c"], "h", 24)
    assert (schema["lookback"], schema["horizon"], schema["form"], schema["series"]) == (36, 12, "wide", 1)
    assert (schema["first"], schema["last"]) == ("2024-01-01T00:00:00", "2024-01-30T23:00:00")
    # the last target of validation is row 575
    assert schema["calibrated_until"] == "2024-01-24T23:00:00"
    assert stored.run["seed"] == 2023 and stored.run["versions"]["torch"] == version("torch")
    assert len(stored.weights["evaluation.itransformer.mse"]) == 133
    assert build(RunConfig, stored.config, "stored") == build(RunConfig, plain(outcome.artifact.config), "made")
    assert [path.name for path in outcome.folder.parent.iterdir() if path.name.startswith(".")] == []


def test_the_mean_of_the_stored_window_errors_is_the_score(outcome: Outcome) -> None:
    for name, scores in outcome.artifact.metrics["scores"].items():
        for metric in ("mse", "mae"):
            errors = outcome.artifact.weights[f"evaluation.{name}.{metric}"]
            assert float(errors.double().mean()) == pytest.approx(scores[metric], rel=1e-5)


def test_the_model_beats_the_baseline_on_a_series_made_for_it(outcome: Outcome) -> None:
    scores = outcome.artifact.metrics["scores"]
    assert scores["itransformer"]["mse"] < scores["seasonal_naive"]["mse"]
    row = outcome.artifact.metrics["comparison"][0]
    assert (row["baseline"], row["metric"], row["verdict"]) == ("seasonal_naive", "mse", "better")
    difference = scores["itransformer"]["mse"] - scores["seasonal_naive"]["mse"]
    assert (
        row["difference"] == pytest.approx(difference, rel=1e-4) and row["lower"] <= row["difference"] <= row["upper"]
    )


def test_the_same_configuration_gives_the_same_run(outcome: Outcome, config: Make, tmp_path: Path) -> None:
    again = run(config(), tmp_path / "again", visible=False)
    assert again is not None
    assert again.artifact.metrics["scores"] == outcome.artifact.metrics["scores"]
    assert all(torch.equal(tensor, again.artifact.weights[name]) for name, tensor in outcome.artifact.weights.items())


def test_a_run_refuses_a_folder_that_exists(config: Make, tmp_path: Path) -> None:
    with pytest.raises(ForetideError, match="exists already; name another folder"):
        run(config(), tmp_path, visible=False)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"baselines": ["seasonal_naive", "dlinaer"]}, "'dlinaer', did you mean 'dlinear'"),
        ({"data": "nowhere.csv"}, "nowhere.csv"),
        ({"lookback": 500}, "no window"),
    ],
)
def test_bad_input_is_found_before_training_and_leaves_nothing(
    config: Make, tmp_path: Path, changes: dict[str, Any], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ForetideError, match=words):
        run(config(**changes), tmp_path / "run")
    assert not list(tmp_path.iterdir()) and "epoch" not in capsys.readouterr().out


def test_seasonal_naive_sees_a_season_where_the_lookback_is_shorter(
    config: Make, tmp_path: Path, outcome: Outcome
) -> None:
    made = run(config(lookback=12), tmp_path / "run", visible=False)
    assert made is not None
    windows, scores = made.artifact.metrics["windows"], made.artifact.metrics["scores"]
    assert windows["test"] == 133 and windows["train"] == 480
    assert scores["seasonal_naive"]["mse"] == pytest.approx(outcome.artifact.metrics["scores"]["seasonal_naive"]["mse"])


def test_a_run_broken_off_after_training_continues_without_training(
    config: Make, tmp_path: Path, outcome: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        raise RuntimeError("lost")

    with monkeypatch.context() as patch:
        patch.setattr(experiment, "score", fail)
        with pytest.raises(RuntimeError, match="lost"):
            run(config(), tmp_path / "run", visible=False)
    with monkeypatch.context() as patch:
        patch.setattr(models.find("itransformer"), "training_step", fail)
        made = run(config(), tmp_path / "run", visible=False)
    assert made is not None and made.artifact.metrics["scores"] == outcome.artifact.metrics["scores"]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_other_data_under_the_same_name_is_trained_anew(
    config: Make, tmp_path: Path, daily: Make, write_csv: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = config(data=str(write_csv(tmp_path / "data.csv", daily())), baselines=[])

    def fail(*arguments: Any) -> None:
        raise RuntimeError("lost")

    with monkeypatch.context() as patch:
        patch.setattr(experiment, "score", fail)
        with pytest.raises(RuntimeError, match="lost"):
            run(chosen, tmp_path / "run", visible=False)
    write_csv(tmp_path / "data.csv", daily(seed=9))
    with monkeypatch.context() as patch:
        patch.setattr(models.find("itransformer"), "training_step", fail)
        with pytest.raises(RuntimeError, match="lost"):
            run(chosen, tmp_path / "run", visible=False)


@pytest.mark.parametrize(("head", "method"), [("quantile", "head"), ("student_t", "head"), ("student_t", "adaptive")])
def test_probabilistic_heads_from_end_to_end(config: Make, tmp_path: Path, head: str, method: str) -> None:
    chosen = config(
        head={"kind": head},
        intervals={"method": method},
        training={"max_epochs": 8, "schedule": "constant"},
        baselines=["seasonal_naive"],
    )
    made = run(chosen, tmp_path / "run", visible=False)
    assert made is not None
    scores = made.artifact.metrics["scores"]
    assert finite(scores) and scores["itransformer"]["skill_crps"] > -0.2
    assert 0.6 < scores["itransformer"]["coverage_80"] < 0.95
    assert scores["itransformer"]["width_50"] < scores["itransformer"]["width_80"] < scores["itransformer"]["width_95"]


@pytest.mark.parametrize("loss", ["mae", "huber"])
def test_other_losses_train(config: Make, tmp_path: Path, loss: str) -> None:
    made = run(config(head={"loss": loss}, baselines=[]), tmp_path / "run", visible=False)
    assert made is not None and made.artifact.metrics["scores"]["itransformer"]["mae"] < 0.5


def test_covariates_reach_the_model_and_help_it(config: Make, tmp_path: Path, daily: Make, write_csv: Make) -> None:
    driver = np.random.default_rng(5).standard_normal(720)
    values = daily(noise=0.1) + 4 * driver[:, None]
    data = write_csv(tmp_path / "driven.csv", values, driver=driver)
    scores = {}
    for name, reader in (("with", {"future": ["driver"]}), ("without", {"variates": ["a", "b", "c"]})):
        training = {"max_epochs": 20, "schedule": "constant", "learning_rate": 5e-3, "patience": 0}
        chosen = config(data=str(data), reader=reader, baselines=[], training=training)
        made = run(chosen, tmp_path / name, visible=False)
        assert made is not None
        scores[name] = made.artifact.metrics["scores"]["itransformer"]["mse"]
    assert scores["with"] < 0.6 * scores["without"]


def test_a_gap_as_long_as_the_horizon_is_not_scored(config: Make, tmp_path: Path, daily: Make, write_csv: Make) -> None:
    values = daily()
    values[640:660] = np.nan
    data = write_csv(tmp_path / "gap.csv", values)
    made = run(config(data=str(data), quality={"policy": "mask"}), tmp_path / "run", visible=False)
    assert made is not None and finite(made.artifact.metrics["scores"])
    assert made.artifact.metrics["windows"]["test"] == 133
    missing = made.artifact.weights["evaluation.itransformer.mse"].isnan()
    # origins 640 to 648, whose whole horizon lies in the gap
    assert missing.nonzero()[:, 0].tolist() == list(range(640 - 576, 649 - 576))
    assert {row["verdict"] for row in made.artifact.metrics["comparison"]} <= {"better", "worse", "no clear difference"}
    assert finite(made.artifact.metrics["comparison"])


def test_many_series_of_unequal_length(config: Make, tmp_path: Path, long_csv: Path) -> None:
    chosen = config(
        data=str(long_csv),
        reader={"id": "unique_id", "time": "ds"},
        quality={"policy": "mask"},
        lookback=56,
        horizon=7,
        training={"max_epochs": 3},
    )
    made = run(chosen, tmp_path / "run", visible=False)
    assert made is not None
    metrics, schema = made.artifact.metrics, made.artifact.schema
    assert metrics["windows"]["test"] == metrics["windows"]["validation"] == 5
    assert (schema["form"], schema["series"], schema["season"], schema["min_history"]) == ("long", 5, 7, 7)
    assert finite(metrics["scores"]) and set(metrics["by_series"]["itransformer"]["mase"]) == {
        f"s{n}" for n in range(5)
    }
    weighted = np.mean(list(metrics["by_series"]["dlinear"]["mase"].values()))
    assert weighted == pytest.approx(metrics["scores"]["dlinear"]["mase"])
    assert made.artifact.scaling["ids"] == [f"s{n}" for n in range(5)]


def test_a_series_that_repeats_itself_exactly_is_no_failure(config: Make, tmp_path: Path, write_csv: Make) -> None:
    values = np.tile(np.arange(24.0)[:, None] + np.arange(2), (30, 1))
    made = run(
        config(data=str(write_csv(tmp_path / "exact.csv", values)), baselines=["seasonal_naive"]),
        tmp_path / "run",
        visible=False,
    )
    assert made is not None and made.artifact.metrics["scores"]["seasonal_naive"]["mse"] == 0
    stored = artifact.load(made.folder).metrics["scores"]["itransformer"]
    assert "skill_mae" not in stored and math.isfinite(stored["mase"])


def test_bounds_of_a_transform_hold_in_every_forecast(
    config: Make, tmp_path: Path, daily: Make, write_csv: Make
) -> None:
    values = np.maximum(daily() - 11, 0.0)
    data = write_csv(tmp_path / "positive.csv", values)
    chosen = config(data=str(data), scaling={"transform": "log"}, baselines=["seasonal_naive"])
    made = run(chosen, tmp_path / "run", visible=False)
    assert made is not None
    predictor = Predictor(made.artifact)
    forecast = predictor.forecast(made.prepared.series, samples=50)
    for name in ("forecast", "quantile", "sample"):
        assert (forecast[name] >= 0).all()
    for prediction in predict(predictor.model, made.prepared.windows("test")):
        assert (made.prepared.scaler.inverse(prediction.point, prediction.batch.series) >= 0).all()


def test_refit_trains_on_all_rows_for_the_chosen_steps(
    config: Make, tmp_path: Path, outcome: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[tuple[int, int]] = []
    kind = models.find("itransformer")
    original = kind.training_step

    def counted(self: Any, batch: Any, index: int) -> Any:
        steps.append((len(self.trainer.train_dataloader.windows), int(batch.origin.max())))
        return original(self, batch, index)

    monkeypatch.setattr(kind, "training_step", counted)
    made = run(config(training={"refit": True}), tmp_path / "run", visible=False)
    assert made is not None
    first = [origin for count, origin in steps if count == 456]
    second = [origin for count, origin in steps if count == 720 - 36 - 12 + 1]
    best = made.artifact.metrics["training"]["best_epoch"]
    assert len(first) == 3 * 15 and len(second) == best * 15 and len(first) + len(second) == len(steps)
    assert max(first) == 503 - 12 and max(second) > 690
    # the scores are those of the model that had not seen the test rows
    assert made.artifact.metrics["scores"] == outcome.artifact.metrics["scores"]
    np.testing.assert_allclose(made.artifact.scaling["location"][0], made.prepared.panel.value.mean(0))
    assert made.artifact.schema["calibrated_until"] == "2024-01-30T23:00:00"


def test_a_refitted_model_forecasts_well(config: Make, tmp_path: Path, daily: Make, write_csv: Make) -> None:
    whole = daily(rows=732)
    training = {"refit": True, "max_epochs": 6, "schedule": "constant"}
    data = write_csv(tmp_path / "known.csv", whole[:720])
    made = run(config(data=str(data), training=training), tmp_path / "run", visible=False)
    assert made is not None
    forecast = Predictor(made.artifact).forecast(made.prepared.series)
    error = np.abs(forecast["forecast"].values - whole[720:])
    naive = np.abs(whole[720 - 24 : 720 - 12] - whole[720:])
    assert error.mean() < naive.mean() and error.mean() < 0.9
    inside = (forecast["quantile"].values[..., 0] <= whole[720:]) & (
        whole[720:] <= forecast["quantile"].values[..., -1]
    )
    assert inside.mean() > 0.8


def test_a_configuration_survives_yaml(config: Make, tmp_path: Path) -> None:
    import yaml

    chosen = config(training={"refit": True, "learning_rate": 1e-4}, reader={"units": {"a": "°C"}}, season=12)
    target = tmp_path / "run.yaml"
    target.write_text(yaml.safe_dump(plain(chosen), allow_unicode=True), encoding="utf-8")
    assert read_config(target) == chosen
    assert json.loads(json.dumps(plain(chosen))) == plain(chosen)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("data: [", "is not plain YAML"),
        ("- a\n- b\n", "found list, expected a mapping"),
        ("", "expected a mapping"),
        ("data: x\nmodel: !!python/object/apply:os.system ['true']\n", "never a class or function"),
        ("data: x\nlookbak: 3\n", "lookbak"),
        ("horizon: 3\n", "data"),
    ],
)
def test_a_file_that_is_no_configuration(tmp_path: Path, text: str, words: str) -> None:
    target = tmp_path / "run.yaml"
    target.write_text(text, encoding="utf-8")
    with pytest.raises(ForetideError, match=words) as caught:
        read_config(target)
    assert "\n" not in str(caught.value) and "run.yaml" in str(caught.value)
    with pytest.raises(ForetideError, match="there is no such file"):
        read_config(tmp_path / "none.yaml")


def test_the_plain_entry_reports_mistakes_with_exit_code_two(
    tmp_path: Path, python: Callable[..., Any], csv: Path
) -> None:
    (tmp_path / "run.yaml").write_text(f"data: {csv}\nmodel: itransformer\nlookback: 9999\n", encoding="utf-8")
    process = python("-m", "forecasting", tmp_path / "run.yaml", tmp_path / "out")
    text = process.communicate()[0]
    assert process.returncode == 2 and text.startswith("error: ") and text.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"]


def test_classical_baselines_are_scored_on_a_declared_sample(
    config: Make, tmp_path: Path, require: Callable[[str], Any]
) -> None:
    require("statsforecast")
    chosen = config(baselines=["seasonal_naive", "auto_ets"], classical_origins=4, model="dlinear", architecture={})
    made = run(chosen, tmp_path / "run", visible=False)
    assert made is not None
    metrics = made.artifact.metrics
    assert metrics["sampled"] == {"auto_ets": 4} and finite(metrics["scores"]["auto_ets"])
    assert {row["baseline"] for row in metrics["comparison"]} == {"seasonal_naive"}


def test_a_baseline_that_is_not_installed_is_found_before_training(
    config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "statsforecast.models", None)
    with pytest.raises(ForetideError, match="theta needs statsforecast"):
        run(config(baselines=["theta"]), tmp_path / "run")
    assert not list(tmp_path.iterdir()) and "epoch" not in capsys.readouterr().out


def test_holidays_are_a_feature_of_calendar_and_forecast(config: Make, tmp_path: Path) -> None:
    made = run(config(holidays="DE", baselines=[], training={"max_epochs": 1}), tmp_path / "run", visible=False)
    assert made is not None and made.artifact.schema["calendar_names"][-1] == "holiday"
    marks = made.prepared.panel.calendar[:, -1]
    assert marks[:24].tolist() == [0.5] * 24 and marks[24:].tolist() == [-0.5] * 696
    predictor = Predictor(made.artifact)
    assert np.isfinite(predictor.forecast(made.prepared.series)["forecast"]).all()
    assert predictor.model.task.calendar == 5
