"""The command line as a newcomer meets it: help, options in every form, mistakes in one line, files."""

import shlex
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.cli import COMMANDS, Command, options_of
from app.help import usage
from app.options import Given
from datasets.errors import ForetideError
from forecasting import models
from forecasting.config import read_config

Foretide = Callable[..., Any]
ROOT = Path(__file__).parents[2]
VALUES = "; a config holds values only, never a class or function"
HEAVY = ("torch", "mlflow", "jsonargparse", "xarray", "numpy", "pandas", "polars", "pytorch_lightning", "plotly")


def command(name: str) -> Command:
    return next(command for command in COMMANDS if command.name == name)


def parse(name: str, *words: str) -> Given:
    return options_of(command(name), words).parse(words)


def python(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=True,
        timeout=60,
    )
    return done.stdout


class TestHelp:
    """What --help says."""

    def test_imports_nothing_heavy(self) -> None:
        out = python(
            """
            import sys
            from app.cli import main
            for words in (["--help"], [], ["models"], ["help"]):
                assert main(words) == 0
            print("loaded:", *[name for name in sys.argv[1:] if name in sys.modules])
        """,
            *HEAVY,
        )
        assert out.splitlines()[-1] == "loaded:"

    def test_names_every_command(self, foretide: Foretide) -> None:
        out = foretide("--help").out
        assert all(f"  {command.name} " in out and command.help in out for command in COMMANDS)
        assert foretide().out == foretide("-h").out == out

    def test_of_a_group_names_its_commands(self, foretide: Foretide) -> None:
        out = foretide("models").out
        assert out == foretide("models", "--help").out
        assert "models promote" in out and "runs list" not in out

    @pytest.mark.parametrize("name", [command.name for command in COMMANDS])
    def test_of_a_command_explains_every_option_once(self, name: str, foretide: Foretide) -> None:
        done = foretide(*name.split(), "--help")
        assert (done.code, done.err) == (0, "")
        options = options_of(command(name))
        lines = done.out.splitlines()
        assert lines[0] == usage(options) and len(lines[0]) < 110
        flat = " ".join(done.out.split())
        for flag in options.flags:
            typed = flag.name.upper() if flag.name in options.positional else flag.text
            assert sum(f"{line} ".startswith(f"  {typed} ") for line in lines) == 1
            assert flag.help and flag.help in flat
        assert all(word in done.out for word in ("--config FILE", "--print_config", "--help"))

    @pytest.mark.parametrize("name", [command.name for command in COMMANDS])
    def test_ends_with_an_example_that_parses(self, name: str, foretide: Foretide) -> None:
        example = foretide(*name.split(), "--help").out.splitlines()[-1].removeprefix("example: foretide ")
        words = shlex.split(example)
        assert words[: len(name.split())] == name.split()
        parse(name, *words[len(name.split()) :]).arguments()

    def test_is_about_the_model_that_is_named(self, foretide: Foretide, tmp_path: Path) -> None:
        dlinear = foretide("train", "--help", "--model", "dlinear").out
        assert "--architecture.window" in dlinear and "--architecture.d_model" not in dlinear
        assert "(default: 0.001)" in dlinear
        config = tmp_path / "run.yaml"
        config.write_text("model: dlinear\n")
        assert foretide("train", "--config", str(config), "-h").out == dlinear
        assert "--architecture.d_model" in foretide("help", "train").out

    @pytest.mark.parametrize("model", models.names())
    def test_explains_the_options_of_every_model(self, model: str) -> None:
        assert all(flag.help for flag in options_of(command("train"), ["--model", model]).flags)

    def test_without_wide_terminal(self, foretide: Foretide, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLUMNS", "72")
        lines = foretide("forecast", "--help").out.splitlines()
        assert max(map(len, lines)) <= 110 and sum(len(line) > 72 for line in lines) <= 2

    def test_version(self, foretide: Foretide) -> None:
        assert foretide("--version").out.startswith("foretide ")


class TestWords:
    """Options in the forms that people type."""

    def test_a_switch_needs_no_value(self) -> None:
        assert parse("train", "--data", "a.csv", "--promote", "--training.refit").values["promote"] is True
        assert parse("train", "--promote", "--data", "a.csv").values["data"] == "a.csv"
        assert parse("train", "--data", "a.csv", "--promote", "false").values["promote"] is False
        assert parse("train", "--data=a.csv", "--calendar=False").values["calendar"] is False

    @pytest.mark.parametrize("words", [("a", "b"), ("a,b",), ("[a, b]",), ("[a,", "b]"), ("['a', 'b']",)])
    def test_a_list_in_every_form(self, words: tuple[str, ...]) -> None:
        assert parse("train", "--reader.past", *words, "--data", "x").values["reader"]["past"] == ["a", "b"]

    def test_a_list_given_twice_is_joined(self) -> None:
        assert parse("train", "--reader.past", "a", "--reader.past=b").values["reader"]["past"] == ["a", "b"]

    def test_names_that_look_like_numbers_stay_names(self) -> None:
        for words in (("0", "1"), ("[0, 1]",)):
            assert parse("train", "--reader.variates", *words).values["reader"]["variates"] == ["0", "1"]

    def test_a_name_with_a_comma_is_quoted(self) -> None:
        assert parse("train", "--reader.variates", '["a, b"]').values["reader"]["variates"] == ["a, b"]

    def test_negative_numbers_are_values(self) -> None:
        given = parse("data check", "x", "--reader.sentinels", "-9999", "-1")
        assert given.values["reader"]["sentinels"] == [-9999, -1]

    @pytest.mark.parametrize("words", [("load=MW", "temperature=°C"), ("{load: MW, temperature: °C}",)])
    def test_pairs(self, words: tuple[str, ...]) -> None:
        units = parse("train", "--data", "x", "--reader.units", *words).values["reader"]["units"]
        assert units == {"load": "MW", "temperature": "°C"}

    def test_words_without_a_flag_go_to_their_options(self) -> None:
        arguments = parse("models alias", "plant", "best", "3").arguments()
        assert arguments == {"project": "plant", "name": "best", "version": 3}
        assert parse("models alias", "--version", "3", "plant", "best").arguments()["version"] == 3
        assert parse("models register", "--promote", "3f2a").arguments()["run_id"] == "3f2a"
        assert parse("models export", "plant", "a.tar.gz").arguments()["output"] == Path("a.tar.gz")
        assert parse("compare", "3f2a", "77b0", "--limit", "2").arguments()["runs"] == ["3f2a", "77b0"]

    def test_a_number_may_be_given_as_science_writes_it(self, tmp_path: Path) -> None:
        config = tmp_path / "run.yaml"
        config.write_text(
            "data: x\ntraining: {learning_rate: 3e-4}\nsplit: {kind: dates, validation_from: 2020-01-01, "
            "test_from: 2021-01-01}\n"
        )
        run = parse("train", "--config", str(config), "--training.weight_decay", "1e-5").arguments()["run"]
        assert (run.training.learning_rate, run.training.weight_decay) == (3e-4, 1e-5)
        assert (run.split.validation_from, run.split.test_from) == ("2020-01-01", "2021-01-01")
        assert read_config(config).training.learning_rate == 3e-4

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ("train", "--data is missing; see 'foretide train --help'"),
            ("train --data", "--data: found nothing after it, expected text"),
            ("train --data --promote", "--data: found nothing after it, expected text"),
            ("train mine.csv", "'mine.csv': found a word without a flag before it; did you mean --data mine.csv?"),
            ("train --data a b", "'b': found a word without a flag before it; see 'foretide train --help'"),
            ("train --data a --horizn 4", "--horizn: there is no such option; did you mean --horizon?"),
            ("train --data a --horizon four", "--horizon: found 'four', expected a whole number"),
            ("train --data a --horizon 4.5", "--horizon: found '4.5', expected a whole number"),
            ("train --data a --horizon 0", "--horizon: found 0, expected at least 1"),
            ("train --data a --season x", "--season: found 'x', expected a whole number"),
            (
                "train --data a --training.learning_rate 2",
                "--training.learning_rate: found 2.0, expected a number between 0 and 1",
            ),
            ("train --data a --training.gradient_clip x", "--training.gradient_clip: found 'x', expected a number"),
            (
                "train --data a --head.kind gauss",
                "--head.kind: found 'gauss', expected one of point, quantile, student_t",
            ),
            ("train --data a --calendar=maybe", "--calendar: found 'maybe', expected true or false"),
            ("train --data a --model foo", f"--model: found 'foo', expected one of {', '.join(models.names())}"),
            (
                "train --data a --model dlinaer",
                f"--model: found 'dlinaer', did you mean 'dlinear'? expected one of {', '.join(models.names())}",
            ),
            (
                "train --data a --model dlinear --architecture.layers 2",
                "--architecture.layers: there is no such option; did you mean --architecture.window?",
            ),
            (
                "train --data a --reader x",
                "--reader: is a group of options; give them one by one, such as --reader.time, or all of them in a "
                "file for --config",
            ),
            ("train --data a --reader.sentinels x", "--reader.sentinels: found 'x', expected numbers"),
            ("train --data a --reader.units MW", "--reader.units: found 'MW', expected pairs NAME=TEXT"),
            ("train --data a -x", "-x: there is no such option; see 'foretide train --help'"),
            ("runs show", "RUN_ID is missing; see 'foretide runs show --help'"),
            ("models promote plant", "VERSION is missing; see 'foretide models promote --help'"),
            ("models promote plant two", "--version: found 'two', expected a whole number"),
            (
                "models promote plant 2 3",
                "'3': found a word without a flag before it; see 'foretide models promote --help'",
            ),
            ("forcast", "'forcast': there is no such command; did you mean 'forecast'? see 'foretide --help'"),
            (
                "models promot",
                "'models promot': there is no such command; did you mean 'models promote'? see 'foretide --help'",
            ),
            ("xyzzy", "'xyzzy': there is no such command; see 'foretide --help'"),
        ],
    )
    def test_a_mistake_is_one_line(self, words: str, message: str, foretide: Foretide, home: Path) -> None:
        done = foretide(*words.split())
        assert (done.code, done.out, done.err) == (2, "", f"error: {message}\n")
        assert not home.exists()


class TestFiles:
    """--config and --print_config."""

    def test_flags_win_over_files_and_later_files_over_earlier_ones(self, tmp_path: Path) -> None:
        first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
        first.write_text("data: one\nhorizon: 12\ntraining: {seed: 1, max_epochs: 3}\n")
        second.write_text("horizon: 24\ntraining: {seed: 2}\n")
        run = parse("train", "--horizon", "48", "--config", str(first), f"--config={second}").arguments()["run"]
        assert (run.data, run.horizon, run.training.seed, run.training.max_epochs) == ("one", 48, 2, 3)

    def test_the_model_of_a_file_brings_its_defaults(self, tmp_path: Path) -> None:
        config = tmp_path / "run.yaml"
        config.write_text("data: one\nmodel: dlinear\ntraining: {max_epochs: 3}\n")
        run = parse("train", "--config", str(config)).arguments()["run"]
        assert (run.normalization, run.training.learning_rate, run.architecture) == ("none", 1e-3, {"window": 25})
        other = parse("train", "--config", str(config), "--model", "itransformer").arguments()["run"]
        assert (other.normalization, other.training.max_epochs) == ("instance", 3)
        stored = read_config(config)
        assert (stored.normalization, stored.training.learning_rate, stored.training.max_epochs) == ("none", 1e-3, 3)

    @pytest.mark.parametrize(
        "words",
        [
            "train --data a,b.csv --model dlinear --promote --reader.units load=MW --training.gradient_clip 1",
            "train --data a.csv --model seasonal_naive",
            "train --data a.csv --reader.variates 0 1 --season 24",
            "forecast --data a.csv --horizon 4 --output out/f.parquet --quality.policy mask",
            "evaluate --data a.csv",
            "backtest --data a.csv --stride 24 --refits 2",
            "compare 3f2a 77b0",
            "runs show 3f2a",
            "runs list --order -mse",
            "data check a.csv --reader.sentinels -1 -2 --quality.outlier_limit 4",
            "models promote plant 2",
            "doctor",
            "models import a.tar.gz --promote",
            "data describe ETTh1",
            "demo --output there",
        ],
    )
    def test_what_is_printed_can_be_read_back(self, words: str, foretide: Foretide, tmp_path: Path) -> None:
        found = next(command for command in COMMANDS if f"{words} ".startswith(f"{command.name} "))
        rest = words.split()[len(found.name.split()) :]
        printed = foretide(*words.split(), "--print_config")
        assert (printed.code, printed.err) == (0, "")
        config = tmp_path / "printed.yaml"
        config.write_text(printed.out)
        again = options_of(found, ["--config", str(config)]).parse(["--config", str(config)])
        given = options_of(found, rest).parse(rest)
        assert again.values == given.values
        assert again.arguments() == given.arguments()
        assert foretide(*found.name.split(), "--config", config, "--print_config").out == printed.out

    def test_the_configuration_of_a_training_serves_a_compute_node(self, foretide: Foretide, tmp_path: Path) -> None:
        config = tmp_path / "run.yaml"
        config.write_text(foretide("train", "--data", "a.csv", "--model", "dlinear", "--print_config").out)
        assert read_config(config) == parse("train", "--data", "a.csv", "--model", "dlinear").arguments()["run"]

    def test_printing_needs_nothing(self, foretide: Foretide) -> None:
        printed = foretide("train", "--print_config")
        assert printed.code == 0 and "data:" not in printed.out and "horizon: 96" in printed.out

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (
                "data: !!python/object/apply:os.system ['touch hacked']\n",
                "{file}: line 1 is not plain YAML (could not determine a constructor for the tag "
                "'tag:yaml.org,2002:python/object/apply:os.system'){values}",
            ),
            (
                "data: x\nmodel: !!python/name:os.system\n",
                "{file}: line 2 is not plain YAML (could not determine a constructor for the tag "
                "'tag:yaml.org,2002:python/name:os.system'){values}",
            ),
            ("class_path: os.system\n", "{file}: found 'class_path'{values}"),
            (
                "data: x\nreader: {{class_path: os.system, init_args: {{command: touch hacked}}}}\n",
                "{file}: reader: found 'class_path'{values}",
            ),
            (
                "data: x\nreader: {{class_path: datasets.readers.ReaderOptions}}\n",
                "{file}: reader: found 'class_path'{values}",
            ),
            (
                "data: x\narchitecture: {{class_path: os.system, init_args: {{command: touch hacked}}}}\n",
                "{file}: architecture: found 'class_path'{values}",
            ),
            ("data: {{class_path: os.system}}\n", "{file}: data: found {{'class_path': 'os.system'}}, expected text"),
            ("data: x\ntraining: other.yaml\n", "{file}: training: found 'other.yaml', expected a mapping of options"),
            (
                "data: x\nconfig: other.yaml\n",
                "{file}: unknown option 'config'; expected one of architecture, baselines, ",
            ),
            ("data: x\ntrainin: {{seed: 1}}\n", "{file}: unknown option 'trainin'; did you mean 'training'?"),
            ("data: x\ntraining: {{sed: 1}}\n", "{file}: training: unknown option 'sed'; did you mean 'seed'?"),
            (
                "data: x\ntraining: {{max_epochs: ten}}\n",
                "{file}: training: max_epochs: found 'ten', expected a whole number",
            ),
            ("data: x\ntraining: {{max_epochs: 0}}\n", "{file}: training.max_epochs: found 0, expected at least 1"),
            (
                "data: x\nhead: {{kind: gauss}}\n",
                "{file}: head: kind: found 'gauss', expected one of point, quantile, student_t",
            ),
            ("data: 7\n", "{file}: data: found 7, expected text"),
            ("data: x\nreader: {{past: load}}\n", "{file}: reader: past: found 'load', expected a list"),
            ("- data\n", "{file}: found list, expected a mapping of options"),
            ("data: [\n", "{file}: line 2 is not plain YAML (expected the node content, but found '<stream end>'); "),
            ("model: lstm\n", "--model: found 'lstm', expected one of "),
        ],
    )
    def test_a_bad_file_is_one_line(
        self, text: str, message: str, foretide: Foretide, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        config = tmp_path / "run.yaml"
        config.write_text(text.format())
        (tmp_path / "other.yaml").write_text("data: y\n")
        done = foretide("train", "--config", "run.yaml")
        assert (done.code, done.out) == (2, "")
        assert (
            done.err.startswith("error: " + message.format(file="run.yaml", values=VALUES))
            and done.err.count("\n") == 1
        )
        assert sorted(path.name for path in tmp_path.iterdir()) == ["other.yaml", "run.yaml"]
        with pytest.raises(ForetideError):
            models.architecture(read_config(config).model, read_config(config).architecture)

    def test_a_missing_file_is_named(self, foretide: Foretide) -> None:
        err = foretide("train", "--config", "nowhere.yaml").err
        assert err == "error: nowhere.yaml: there is no such file; see the folder configs/ for examples\n"


class TestProcess:
    """The program as the system sees it."""

    def test_a_reader_that_goes_away_is_no_error(self) -> None:
        process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", "--help"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == "" and process.wait(30) == 0

    def test_an_interrupted_training_says_how_it_goes_on(self, trained: Path, tmp_path: Path) -> None:
        words = [
            "train",
            "--data",
            trained / "plant.csv",
            "--model",
            "dlinear",
            "--lookback",
            "24",
            "--horizon",
            "6",
            "--training.max_epochs",
            "100000",
            "--training.patience",
            "0",
        ]
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", "app.cli", *map(str, words)],
            cwd=tmp_path,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": ""},
        )
        assert process.stdout is not None
        assert "epoch 1/" in process.stdout.readline()
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (130, "interrupted; the same command continues from the last epoch\n")
