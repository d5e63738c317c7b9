"""What a person can do, from the command line and from Python, on a small real project."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

from app.actions import data, forecasting, models, runs, training
from app.runs import RunStore
from datasets import sources
from datasets.errors import ForetideError
from forecasting import models as kinds
from forecasting.config import RunConfig, TrainingOptions
from forecasting.experiment import run as run_experiment
from forecasting.predictor import Predictor
from tests.app.conftest import TRAIN, make_table, tree, write_table

Foretide = Callable[..., Any]
FLAT = RunConfig(data="plant.csv", model="seasonal_naive", lookback=24, horizon=6, baselines=[])


def train(run: RunConfig, **options: bool) -> training.TrainResult:
    result = training.train(run, **options)
    assert result is not None
    return result


def champion(site: Path) -> Path:
    return RunStore(site / ".foretide").resolve("plant").artifact


class TestTrain:
    """Training and its record."""

    def test_the_run_can_be_repeated_from_what_is_stored(self, site: Path, foretide: Foretide) -> None:
        first = RunStore().runs()[0]
        assert first.tags["command"] == "foretide " + " ".join([*TRAIN, "--data", "plant.csv", "--promote"])
        done = foretide(*first.tags["command"].split()[1:])
        assert done.code == 0
        again = RunStore().runs()[0]
        assert again.run_id != first.run_id
        assert again.metrics == {name: pytest.approx(value, rel=1e-6) for name, value in first.metrics.items()}
        assert not (site / ".foretide" / "work").exists()

    def test_what_it_says(self, site: Path, foretide: Foretide) -> None:
        out = foretide(*TRAIN, "--data", "plant.csv").out
        assert re.search(r"DLinear: epoch 1/2 .* left\n", out)
        assert re.search(r"^DLinear +0\.\d{4} .* [+-]\d+\.\d %$", out, re.MULTILINE)
        assert re.search(r"\nDLinear is (better|worse) than seasonal naive: .*interval.*\.\n", out)
        run_id = RunStore().runs()[0].run_id
        assert out.endswith(f"to make it the champion: foretide models register {run_id} --promote\n")
        assert RunStore().resolve("plant").version == 1

    def test_registered_and_promoted(self, site: Path) -> None:
        assert train(FLAT, register=True).version == 2
        assert RunStore().resolve("plant").version == 1
        result = train(FLAT.of(project="other"), promote=True)
        assert (result.project, result.version) == ("other", 1)
        assert RunStore().resolve("other").run_id == result.run_id

    def test_from_a_yaml_that_was_printed(self, site: Path, foretide: Foretide) -> None:
        words = [*TRAIN, "--data", "plant.csv", "--training.seed", "7"]
        (site / "run.yaml").write_text(foretide(*words, "--print_config").out)
        assert foretide("train", "--config", "run.yaml").code == foretide(*words).code == 0
        second, first = RunStore().runs(limit=2)
        assert first.params == second.params and first.metrics == pytest.approx(second.metrics)

    def test_a_result_made_elsewhere_comes_in(self, site: Path, foretide: Foretide) -> None:
        outcome = run_experiment(FLAT, site / "results", visible=False)
        assert outcome is not None
        run_id = outcome.artifact.run["run_id"]
        for _ in range(2):
            done = foretide("runs", "import", "results")
            assert (done.code, done.out) == (0, f"run {run_id} is in the store\n")
        assert [row.run_id for row in RunStore().runs()].count(run_id) == 1
        assert foretide("forecast", "--data", "plant.csv", "--model", run_id).code == 0

    def test_a_model_without_options_of_its_own(self, site: Path, foretide: Foretide) -> None:
        words = ("train", "--data", "plant.csv", "--model", "seasonal_naive", "--lookback", "24", "--horizon", "6")
        assert foretide(*words, "--baselines", "drift").code == 0
        assert set(RunStore().runs()[0].metrics) >= {"mse", "drift/mse"}


class TestForecast:
    """Forecasts by the champion and others."""

    def test_equals_that_in_memory(self, site: Path, fresh: Foretide) -> None:
        done = fresh(
            "forecast",
            "--model",
            "champion",
            "--data",
            "plant.csv",
            "--horizon",
            "4",
            "--output",
            "f.parquet",
            cwd=site,
        )
        assert (done.code, done.err) == (0, "")
        series: Any = sources.load("plant.csv").series
        expected = Predictor.load(champion(site)).forecast(series, 4)
        stored = pl.read_parquet(site / "f.parquet")
        np.testing.assert_array_equal(stored["forecast"].to_numpy(), expected["forecast"].values.T.reshape(-1))
        lower = expected["quantile"].sel(level=0.1).values.T.reshape(-1)
        np.testing.assert_array_equal(stored["lower_80"].to_numpy(), lower)

    def test_equals_that_of_the_training_process(self, site: Path) -> None:
        run = RunConfig(
            data="plant.csv",
            model="dlinear",
            lookback=24,
            horizon=6,
            baselines=[],
            normalization="none",
            training=TrainingOptions(max_epochs=1, learning_rate=1e-2),
        )
        outcome = training.train_and_log(run, visible=False)
        assert outcome is not None
        series: Any = outcome.prepared.series
        expected = Predictor(outcome.artifact).forecast(series)
        made = forecasting.forecast("plant.csv", model=outcome.artifact.run["run_id"]).forecast
        np.testing.assert_array_equal(made["forecast"], expected["forecast"])
        np.testing.assert_array_equal(made["quantile"], expected["quantile"])

    def test_of_new_rows_in_original_units(self, site: Path) -> None:
        write_table(site / "later.csv", make_table(600))
        made = forecasting.forecast("later.csv").forecast
        series: Any = sources.load("later.csv").series
        assert made["time"].values[0] == series["time"].values[-1] + np.timedelta64(1, "h")
        assert np.abs(made["forecast"].sel(variate="temperature") - 20).max() < 5

    def test_after_the_home_was_moved(self, site: Path, fresh: Foretide, tmp_path: Path) -> None:
        before = fresh("forecast", "--data", "plant.csv", cwd=site)
        shutil.move(site / ".foretide", tmp_path / "elsewhere")
        after = fresh("forecast", "--data", "plant.csv", cwd=site, home=tmp_path / "elsewhere")
        assert (after.code, after.out) == (0, before.out)
        assert not (site / ".foretide").exists()

    def test_two_projects_alike_need_a_name(self, site: Path, foretide: Foretide) -> None:
        write_table(site / "works.csv", make_table(300))
        assert foretide(*TRAIN, "--data", "works.csv", "--promote").code == 0
        done = foretide("forecast", "--data", "plant.csv", "--output", "f.csv")
        assert (done.code, done.out) == (2, "") and "plant, works" in done.err and not (site / "f.csv").exists()
        done = foretide("forecast", "--data", "plant.csv", "--output", "f.csv", "--project", "works")
        assert done.code == 0 and "forecast by works version 1" in done.out and (site / "f.csv").exists()

    def test_what_it_says(self, site: Path, foretide: Foretide) -> None:
        lines = foretide("forecast", "--data", "plant.csv").out.splitlines()
        assert lines[0] == "forecast by plant version 1 of what follows 2024-01-20 23:00:00"
        numbers = [line.split() for line in lines[4:10]]
        assert [row[0] for row in numbers] == ["load"] * 3 + ["temperature"] * 3
        assert all(float(row[4]) <= float(row[3]) <= float(row[5]) for row in numbers)
        assert lines[-1] == "6 of 12 rows (6 steps of 2 series); nothing was written; name a file with --output"

    def test_samples_go_into_netcdf(self, site: Path, foretide: Foretide) -> None:
        import xarray as xr

        assert foretide("forecast", "--data", "plant.csv", "--samples", "5", "--output", "f.nc").code == 0
        with xr.open_dataset(site / "f.nc") as stored:
            assert 5 in stored["sample"].shape

    def test_columns_beyond_the_training_are_left_out_aloud(self, site: Path, foretide: Foretide) -> None:
        write_table(site / "more.csv", make_table(100, ("load", "temperature", "price")))
        done = foretide("forecast", "--data", "more.csv")
        assert done.code == 0
        assert done.err == "warning: more.csv: price was not part of the training and is left out\n"


class TestScores:
    """Evaluate, backtest and compare."""

    def test_evaluation_repeats_the_scores_of_the_training(self, site: Path, foretide: Foretide) -> None:
        done = foretide("evaluate", "--data", "plant.csv", "--output", "scores.json")
        assert done.code == 0 and "plant version 1 on" in done.out
        stored = json.loads((site / "scores.json").read_text())["scores"]
        trained = RunStore().runs()[0].metrics
        assert {f"{name}": stored["dlinear"][name] for name in ("mse", "mae", "crps")} == pytest.approx(
            {name: trained[name] for name in ("mse", "mae", "crps")}, rel=1e-5
        )
        assert stored["seasonal_naive"]["mse"] == pytest.approx(trained["seasonal_naive/mse"], rel=1e-5)

    @pytest.mark.parametrize("suffix", ["csv", "parquet"])
    def test_a_backtest_keeps_every_forecast(self, suffix: str, site: Path, foretide: Foretide) -> None:
        done = foretide("backtest", "--data", "plant.csv", "--stride", "6", "--origins", "5", "--output", f"b.{suffix}")
        assert done.code == 0 and "5 origins, 60 forecasts" in done.out
        frame = pl.read_csv(site / f"b.{suffix}") if suffix == "csv" else pl.read_parquet(site / f"b.{suffix}")
        assert len(frame) == 5 * 6 * 2 and {"cutoff", "ds", "y", "forecast", "lower_80"} <= set(frame.columns)

    def test_a_backtest_at_every_origin_is_an_evaluation(self, site: Path) -> None:
        rolled = forecasting.backtest("plant.csv").metrics["scores"]["dlinear"]
        scored = forecasting.evaluate("plant.csv").metrics["scores"]["dlinear"]
        assert rolled["mse"] == pytest.approx(scored["mse"]) and rolled["crps"] == pytest.approx(scored["crps"])

    def test_comparison_of_two_runs(self, site: Path, foretide: Foretide) -> None:
        other = train(FLAT).run_id
        first = RunStore().resolve("plant").run_id
        done = foretide("compare", first, other)
        assert done.code == 0
        assert re.search(rf"{other} seasonal_naive +{first} dlinear +MSE +[+-]\d", done.out)
        result = runs.compare([first, other])
        mse = {name: scores["mse"] for name, scores in result.scores.items()}
        difference = mse[f"{other} seasonal_naive"] - mse[f"{first} dlinear"]
        assert result.differences[0]["difference"] == pytest.approx(difference, rel=1e-4)

    def test_comparison_by_default_takes_the_best_that_are_alike(self, site: Path, foretide: Foretide) -> None:
        assert "found 1 run, expected at least 2" in foretide("compare").err
        train(FLAT)
        train(FLAT.of(horizon=4))
        result = runs.compare(project="plant")
        assert len(result.scores) == 2
        train(FLAT.of(project="other"))
        assert "there are runs of other, plant" in foretide("compare").err

    def test_runs_of_other_data_are_not_compared(self, site: Path, foretide: Foretide) -> None:
        other = train(FLAT.of(horizon=4)).run_id
        done = foretide("compare", other, RunStore().resolve("plant").run_id)
        assert done.code == 2 and "differ in data or horizon" in done.err

    def test_a_run_is_not_compared_with_itself(self, site: Path, foretide: Foretide) -> None:
        run_id = RunStore().resolve("plant").run_id
        assert foretide("compare", run_id, run_id).code == 2


class TestRuns:
    """The run store from the command line."""

    def test_list(self, site: Path, foretide: Foretide) -> None:
        train(FLAT)
        out = foretide("runs", "list").out
        assert [line.split()[2] for line in out.splitlines()[2:]] == ["seasonal_naive", "dlinear"]
        assert len(foretide("runs", "list", "--limit", "1").out.splitlines()) == 3
        assert len({len(line) for line in out.splitlines()}) == 1

    def test_order(self, site: Path, foretide: Foretide) -> None:
        train(FLAT)
        best = foretide("runs", "list", "--order", "mse").out.splitlines()[2]
        assert foretide("runs", "list", "--order", "-mse").out.splitlines()[3] == best
        done = foretide("runs", "list", "--order", "beauty")
        assert (
            done.code == 2 and "order: found 'beauty', expected started, or a score: " in done.err and "mse" in done.err
        )
        assert "limit: found 0, expected at least 1" in foretide("runs", "list", "--limit", "0").err

    def test_an_empty_store(self, home: Path, foretide: Foretide) -> None:
        assert (
            foretide("runs", "list").out == "no runs yet; 'foretide demo' or 'foretide train --data FILE' makes one\n"
        )
        assert foretide("models", "list").out.startswith("no registered models yet; ")
        assert not home.exists()

    def test_show(self, site: Path, foretide: Foretide) -> None:
        run_id = RunStore().runs()[0].run_id
        out = foretide("runs", "show", run_id[:6]).out
        for part in (
            run_id,
            "foretide train --model dlinear",
            "training.max_epochs",
            "DLinear",
            "Seasonal naive",
            "data_checksum",
        ):
            assert part in out

    def test_delete(self, site: Path, foretide: Foretide) -> None:
        result = train(FLAT)
        kept = RunStore().resolve("plant").run_id
        assert "is the registered model plant 1" in foretide("runs", "delete", kept).err
        assert foretide("runs", "delete", result.run_id).out == f"deleted run {result.run_id}\n"
        assert not result.folder.exists() and [row.run_id for row in RunStore().runs()] == [kept]


class TestModels:
    """The registry from the command line."""

    def test_promote_and_roll_back(self, site: Path, foretide: Foretide) -> None:
        run_id = train(FLAT).run_id
        assert foretide("models", "register", run_id).out == f"run {run_id} is version 2 of plant\n"
        assert foretide("models", "promote", "plant", "2").out == "version 2 is the champion of plant\n"
        assert foretide("models", "rollback", "plant").out == "version 1 is the champion of plant again\n"
        assert foretide("models", "alias", "plant", "night", "2").out == "night of plant is version 2\n"
        listed = foretide("models", "list").out.splitlines()
        assert listed[2].endswith("champion") and listed[3].endswith("night, previous")
        assert listed[-1] == f"can be trained with 'foretide train --model NAME': {', '.join(kinds.names())}"
        assert foretide("forecast", "--data", "plant.csv", "--model", "night").code == 0

    def test_show(self, site: Path, foretide: Foretide) -> None:
        out = foretide("models", "show", "plant").out
        for part in (
            "version    1",
            "champion",
            "load (no unit), temperature (no unit)",
            "2024-01-01 00:00:00",
            "DLinear",
            "promote",
        ):
            assert part in out
        assert "Promotion(" not in out and foretide("models", "show", "plant", "1").out == out

    def test_list_of_one_project(self, site: Path, foretide: Foretide) -> None:
        assert "plant" in foretide("models", "list", "--project", "plant").out
        assert "did you mean 'plant'?" in foretide("models", "list", "--project", "plan").err

    def test_out_and_in_again(self, site: Path, foretide: Foretide, monkeypatch: pytest.MonkeyPatch) -> None:
        assert foretide("models", "export", "plant", "plant.tar.gz").out == "wrote plant.tar.gz\n"
        expected = foretide("forecast", "--data", "plant.csv").out
        monkeypatch.setenv("FORETIDE_HOME", str(site / "other"))
        assert "version 1 of plant and its champion" in foretide("models", "import", "plant.tar.gz", "--promote").out
        assert foretide("forecast", "--data", "plant.csv").out == expected

    def test_delete(self, site: Path, foretide: Foretide) -> None:
        assert "is the champion" in foretide("models", "delete", "plant", "1").err
        run_id = train(FLAT, register=True).run_id
        assert foretide("models", "delete", "plant", "2").code == 0
        assert RunStore().show(run_id).artifact.exists()

    def test_without_a_champion(self, site: Path, foretide: Foretide) -> None:
        train(FLAT.of(project="new"), register=True)
        done = foretide("forecast", "--data", "plant.csv", "--project", "new")
        assert "has no version or alias 'champion'; found 1" in done.err


class TestData:
    """Looking at data."""

    def test_check_reports_without_changing_anything(self, site: Path, foretide: Foretide) -> None:
        lines = make_table(60)
        write_table(
            site / "bad.csv",
            [
                *lines[:20],
                lines[19],
                *lines[24:40],
                lines[40].replace(",", ",-9999,", 1).rsplit(",", 1)[0],
                *lines[41:],
            ],
        )
        before = tree(site)
        done = foretide("data", "check", "bad.csv")
        assert done.code == 0 and tree(site) == before
        assert all(word in done.out for word in ("duplicate", "gap", "sentinel"))
        assert foretide("data", "check", "bad.csv", "--output", "report.json").code == 0
        kinds = {finding["kind"] for finding in json.loads((site / "report.json").read_text())["findings"]}
        assert {"duplicate", "gap", "sentinel"} <= kinds

    def test_describe_a_file(self, site: Path, foretide: Foretide) -> None:
        (site / "plant.csv.units.yaml").write_text("load: MW\n")
        out = foretide("data", "describe", "plant.csv").out
        assert "480" in out and re.search(r"^load +MW +\d", out, re.MULTILINE)

    def test_describe_a_catalogued_dataset(self, foretide: Foretide) -> None:
        out = " ".join(foretide("data", "describe", "ETTh1").out.split())
        assert "training 8,640 rows, validation 2,880 rows, test 2,880 rows" in out and "CC BY-ND 4.0" in out

    @pytest.mark.parametrize("name", ["air_temperature", "M1:monthly", "vic_elec", "weather"])
    def test_every_form_of_dataset(
        self, name: str, data_folder: Path, foretide: Foretide, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FORETIDE_DATA", str(data_folder))
        for command in ("describe", "check"):
            done = foretide("data", command, name)
            assert (done.code, done.err) == (0, "") and name.split(":")[0].lower()[:2] in done.out.lower()

    def test_list(self, foretide: Foretide, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FORETIDE_DATA", str(tmp_path))
        listed = data.list_datasets()
        here = {row["name"] for row in listed.rows if row["here"] == "yes"}
        assert here == {"ETTh1"} and len(listed.rows) >= 20
        assert str(tmp_path) in foretide("data", "list").out

    def test_export_for_a_compute_node(self, site: Path, foretide: Foretide) -> None:
        assert foretide("data", "export", "plant.csv", "plant.nc").code == 0
        assert (site / "plant.nc").exists()


class TestDoctor:
    """The diagnosis."""

    def test_of_a_sound_installation(self, site: Path, foretide: Foretide) -> None:
        out = foretide("doctor").out
        for part in ("torch", "GPU", "run store", "1 run, projects: plant", "datasets found", "nothing is wrong"):
            assert part in out

    def test_names_what_is_wrong(self, site: Path, foretide: Foretide) -> None:
        (site / ".foretide" / "runs.db").write_text("hello\n" * 100)
        done = foretide("doctor")
        assert done.code == 0 and "problem: " in done.out and "not an SQLite database" in done.out

    def test_leaves_an_empty_home_alone(self, home: Path, foretide: Foretide) -> None:
        assert foretide("doctor").code == 0 and not home.exists()


def test_actions_raise_instead_of_exiting(site: Path) -> None:
    for act in (
        lambda: forecasting.forecast("nowhere.csv"),
        lambda: runs.show_run("zz"),
        lambda: models.promote("plant", 7),
        lambda: data.describe("nowhere.csv"),
    ):
        with pytest.raises(ForetideError):
            act()


def test_a_printed_configuration_is_plain(foretide: Foretide) -> None:
    printed = yaml.safe_load(foretide("train", "--data", "a.csv", "--print_config").out)
    assert printed["data"] == "a.csv" and "promote" not in printed and printed["training"]["seed"] == 2023
