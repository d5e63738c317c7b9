"""The demonstration, with a model that trains in seconds: every file, the registry and the closing words."""

import itertools
import json
from pathlib import Path

import polars as pl
import pytest
import xarray as xr

from app.actions import demo
from app.runs import RunStore

FILES = {"forecast.parquet", "forecast.nc", "report.html", "stages.json"}


def test_the_demo_leaves_a_champion_a_forecast_and_a_report(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "CONFIG", "dlinear/ETTh1_96.yaml")
    output = tmp_path / "out"
    result = demo.demo(output)

    assert {path.name for path in output.iterdir()} - {"forecast.png"} == FILES
    champion = RunStore().resolve("ETTh1", "champion")
    assert (champion.version, champion.run_id) == (1, result.train.run_id)

    frame = pl.read_parquet(output / "forecast.parquet")
    assert len(frame) == 7 * 96
    assert str(frame["ds"].min()) == "2018-06-26 20:00:00"
    ends = ["lower_95", "lower_80", "lower_50", "median", "upper_50", "upper_80", "upper_95"]
    for below, above in itertools.pairwise(ends):
        assert (frame[below] <= frame[above]).all()
    with xr.open_dataset(output / "forecast.nc") as forecast:
        assert forecast["quantile"].dims == ("time", "variate", "level")
        assert str(forecast["unit"].sel(variate="OT").values) == "°C"

    stages = [row["stage"] for row in json.loads((output / "stages.json").read_text(encoding="utf-8"))]
    assert stages[0] == "data" and stages[-2:] == ["forecast", "report"]
    said = str(result)
    assert "DLinear is better than seasonal naive: its mean squared error is" in said
    assert "foretide train --data mine.csv" in said
    page = (output / "report.html").read_text(encoding="utf-8")
    assert result.train.sentence.split(":")[0] in page


def test_an_output_that_cannot_be_written_is_refused_before_training(home: Path, tmp_path: Path) -> None:
    from datasets.errors import ForetideError

    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ForetideError, match="cannot be written"):
        demo.demo(tmp_path / "file" / "out")
    assert not home.exists()
