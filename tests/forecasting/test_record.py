"""What a run says of itself."""

import time
from datetime import UTC, datetime, timedelta

from forecasting.config import RunConfig
from forecasting.record import Stages, digest, project_of, run_facts


def test_a_run_says_when_it_began_and_not_when_it_ended() -> None:
    facts = run_facts("a1b2c3", RunConfig("ETTh1"), "foretide train", time.perf_counter() - 100, Stages())
    began = datetime.fromisoformat(facts["started"])
    assert abs(began - (datetime.now(UTC) - timedelta(seconds=100))) < timedelta(minutes=1)
    assert facts["seconds"] >= 100 and facts["command"] == "foretide train"


def test_a_digest_changes_with_every_option_and_with_nothing_else() -> None:
    config = RunConfig("ETTh1")
    assert digest(config) == digest(RunConfig("ETTh1"))
    assert digest(config) != digest(config.of(horizon=97))


def test_a_project_is_the_name_of_the_data_without_suffixes() -> None:
    assert [project_of(title) for title in ("ETTh1", "mine.csv", "folder/plant.parquet", ".csv")] == [
        "ETTh1",
        "mine",
        "plant",
        "default",
    ]


def test_stages_keep_order_and_times() -> None:
    stages = Stages()
    with stages.stage("data"):
        pass
    with stages.stage("train"):
        pass
    assert [row["stage"] for row in stages.rows] == ["data", "train"]
    assert all(row["seconds"] >= 0 and row["cpu_seconds"] >= 0 for row in stages.rows)
