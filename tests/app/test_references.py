"""Which stored model a name means."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.references import Reference, find_model
from app.runs import RunStore
from datasets import sources
from datasets.errors import ForetideError
from tests.app.conftest import TRAIN, make_table, write_table

Foretide = Callable[..., Any]


def read(name: str) -> Callable[[Reference], Any]:
    return lambda reference: sources.load(name, reference.config.reader).series


@pytest.fixture
def two(site: Path, foretide: Foretide) -> Path:
    """A site with a second project of the same variates, ``works``, and a third of others, ``shop``."""
    write_table(site / "works.csv", make_table(300))
    write_table(site / "shop.csv", make_table(300, ("sales",)))
    for name in ("works", "shop"):
        assert foretide(*TRAIN, "--data", f"{name}.csv", "--promote").code == 0
    return site


class TestOneProject:
    """Names where there is nothing to confuse."""

    @pytest.mark.parametrize("name", ["champion", "1", "latest"])
    def test_an_alias_or_a_version(self, name: str, site: Path) -> None:
        found = find_model(name)
        assert found.label == "plant version 1" and found.folder == RunStore().resolve("plant").artifact
        assert found.config.model == "dlinear" and found.stored.schema["project"] == "plant"

    def test_an_alias_of_ones_own(self, site: Path) -> None:
        RunStore().set_alias("plant", "facade", 1)
        assert find_model("facade").label == "plant version 1"

    @pytest.mark.parametrize("length", [4, 6, 12])
    def test_a_run_or_the_beginning_of_it(self, length: int, site: Path) -> None:
        run_id = RunStore().resolve("plant").run_id
        if run_id[:length].isdigit():
            pytest.skip("not here: this beginning of the identifier is a number, which means a version")
        assert find_model(run_id[:length]).label == f"run {run_id}"

    def test_a_folder(self, site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = RunStore().resolve("plant").artifact
        assert find_model(str(folder)).folder == folder
        monkeypatch.chdir(folder.parent)
        assert find_model(folder.name).folder == Path(folder.name)

    def test_a_folder_named_like_an_alias_does_not_hide_it(self, site: Path) -> None:
        (site / "champion").mkdir()
        assert find_model("champion").label == "plant version 1"

    @pytest.mark.parametrize(
        ("name", "project", "message"),
        [
            ("best", None, "--model: project 'plant': has no version or alias 'best'; found 1 = champion"),
            ("2", "plant", "--model: project 'plant': has no version or alias '2'"),
            ("champion", "plan", "project 'plan': has no registered model; did you mean 'plant'?"),
            ("ffffffff", None, "run 'ffffffff': no such run"),
            ("./nothing", None, "nothing: found nothing, expected the folder of an artifact"),
        ],
    )
    def test_a_name_that_is_not_there(self, name: str, project: str | None, message: str, site: Path) -> None:
        with pytest.raises(ForetideError) as error:
            _ = find_model(name, project).stored
        assert message in str(error.value)

    def test_an_empty_home_says_how_to_begin(self, home: Path) -> None:
        with pytest.raises(ForetideError, match=r"no model is registered under .*; make one with 'foretide train"):
            find_model("champion")
        assert not home.exists()


class TestSeveralProjects:
    """Names that several projects have."""

    def test_the_data_decides(self, two: Path) -> None:
        assert find_model("champion", None, read("shop.csv")).label == "shop version 1"

    def test_projects_alike_are_listed(self, two: Path) -> None:
        with pytest.raises(ForetideError) as error:
            find_model("champion", None, read("plant.csv"))
        assert (
            str(error.value) == "--model champion: the projects plant, works all fit the data; name one with --project"
        )
        assert find_model("champion", "works", read("plant.csv")).label == "works version 1"

    def test_without_data_all_are_listed(self, two: Path) -> None:
        with pytest.raises(ForetideError, match="the projects plant, shop, works have one; name one with --project"):
            find_model("champion")

    def test_only_projects_that_have_the_name_count(self, two: Path) -> None:
        RunStore().set_alias("works", "night", 1)
        assert find_model("night", None, read("plant.csv")).label == "works version 1"
        with pytest.raises(ForetideError, match="'day', which none of the projects plant, shop, works has"):
            find_model("day", None, read("plant.csv"))

    def test_data_that_fits_nothing(self, two: Path) -> None:
        write_table(two / "slow.csv", make_table(100, hours=6))
        with pytest.raises(ForetideError, match="none of the projects plant, shop, works fits"):
            find_model("champion", None, read("slow.csv"))

    def test_data_that_nobody_can_read_gives_the_reason(self, two: Path) -> None:
        with pytest.raises(ForetideError, match=r"nowhere\.csv: there is no such file"):
            find_model("champion", None, read("nowhere.csv"))

    def test_a_damaged_project_does_not_block_another(self, two: Path) -> None:
        (RunStore().resolve("works").artifact / "schema.json").unlink()
        assert find_model("champion", None, read("plant.csv")).label == "plant version 1"

    def test_data_is_read_as_in_training(self, two: Path, foretide: Foretide) -> None:
        lines = [line.replace(",", ";").replace(".", ",") for line in make_table(300, ("load", "flow"))]
        write_table(two / "semicolons.csv", lines)
        options = ("--reader.delimiter", ";", "--reader.decimal", ",", "--reader.variates", "flow", "load")
        assert foretide(*TRAIN, "--data", "semicolons.csv", *options, "--promote").code == 0
        done = foretide("forecast", "--data", "semicolons.csv")
        assert done.code == 0 and "forecast by semicolons version 1" in done.out
