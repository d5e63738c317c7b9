"""Every YAML under configs/ is a complete run that the command line and a compute node read alike."""

from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from app.cli import COMMANDS, main, options_of
from datasets import catalog
from datasets.options import plain
from forecasting import models
from forecasting.config import RunConfig, read_config, read_yaml

ROOT = Path(__file__).parents[1] / "configs"
FILES = sorted(ROOT.glob("**/*.yaml"))
TRAIN = next(command for command in COMMANDS if command.name == "train")

every = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))


def test_there_are_configs_for_every_model() -> None:
    assert {path.parent.name for path in FILES} == set(models.names())


def test_they_are_package_data() -> None:
    assert files("configs").joinpath("itransformer/ETTh1_96.yaml").is_file()


@every
def test_it_parses_alike_on_the_command_line_and_on_a_compute_node(path: Path) -> None:
    words = ["--config", str(path)]
    given = options_of(TRAIN, words).parse(words)
    run = given.arguments()["run"]
    assert isinstance(run, RunConfig) and plain(run) == {**plain(read_config(path)), "architecture": run.architecture}
    assert (given.values["register"], given.values["promote"]) == (False, False)


@every
def test_it_names_what_exists(path: Path) -> None:
    run = read_config(path)
    features = "_univariate" if len(run.reader.variates or ()) == 1 else ""
    assert run.model == path.parent.name and path.stem == f"{run.data}{features}_{run.horizon}"
    assert models.architecture(run.model, run.architecture) is not None
    assert catalog.known(run.data) is not None and catalog.find(run.data).name == run.data
    assert all(models.find(name) for name in run.baselines)


@every
def test_it_states_the_protocol_and_what_was_published(path: Path) -> None:
    written = read_yaml(path)
    stated = {"data", "model", "lookback", "horizon", "normalization", "calendar", "split", "head"}
    assert stated <= set(written) and "project" not in written
    if models.find(written["model"]).trainable:
        training = {"batch_size", "max_epochs", "learning_rate", "schedule", "patience", "seed"}
        assert training <= set(written["training"]) and written["architecture"]
    assert path.read_text(encoding="utf-8").startswith("# ")


@pytest.mark.parametrize("model", models.names())
def test_it_prints_its_configuration(model: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = next(path for path in FILES if path.parent.name == model)
    assert main(["train", "--config", str(path), "--print_config"]) == 0
    printed = tmp_path / "printed.yaml"
    printed.write_text(capsys.readouterr().out)
    assert plain(read_config(printed)) == _complete(path)


def _complete(path: Path) -> dict[str, Any]:
    run = read_config(path)
    return {**plain(run), "architecture": plain(models.architecture(run.model, run.architecture))}
