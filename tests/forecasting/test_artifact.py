"""An artifact is written whole, read back equal, and every kind of damage has its own words."""

import json
import os
import pickle
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.errors import ForetideError
from forecasting.artifact import (
    CONFIG,
    METRICS,
    PARTS,
    RUN,
    SCALING,
    SCHEMA,
    SUMS,
    WEIGHTS,
    Artifact,
    load,
    new_run_id,
    verify,
    write,
    write_sums,
)

ROOT = Path(__file__).parents[2]


def example(run_id: str = "0123456789ab") -> Artifact:
    return Artifact(
        config={"data": "ETTh1", "model": "itransformer", "training": {"seed": 2023}},
        weights={
            "model.layer.weight": torch.randn(7, 5),
            "model.layer.bias": torch.randn(7).to(torch.bfloat16),
            "calibration.quantiles": torch.randn(4, 7, 21, dtype=torch.float64),
        },
        scaling={"mean": [0.1 + 0.2, 1e-300], "scale": [1.0, 2.0]},
        schema={"variates": ["OT", "Größe"], "frequency": "h", "lookback": 96, "horizon": 4, "code_version": "0.1"},
        metrics={"scores": {"itransformer": {"mse": 0.386, "mase": float("nan")}}},
        run={"run_id": run_id, "seed": 2023, "command": "foretide train"},
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "artifact", example())


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def test_round_trip_is_exact(tmp_path: Path) -> None:
    artifact = example()
    back = load(write(tmp_path / "a" / "b", artifact))
    assert back.config == artifact.config and back.scaling == artifact.scaling and back.run == artifact.run
    assert back.schema == {"format": 1, **artifact.schema}
    assert back.metrics == {"scores": {"itransformer": {"mse": 0.386, "mase": None}}}
    assert back.weights.keys() == artifact.weights.keys()
    for name, tensor in artifact.weights.items():
        torch.testing.assert_close(back.weights[name], tensor, rtol=0, atol=0)


def test_folder_holds_plain_parts_alone_and_their_checksums(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {*PARTS, SUMS}
    assert [path.name for path in folder.parent.iterdir()] == ["artifact"]
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", SUMS], cwd=folder, capture_output=True, text=True, check=True
    )
    assert done.stdout.count(": OK") == len(PARTS) and done.stderr == ""


def test_views_and_tied_tensors_are_stored_each(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    weights = {"model.a": base, "model.b": base, "model.c": base.T, "model.d": base[1:, :2]}
    back = load(write(tmp_path / "a", replace(example(), weights=weights))).weights
    for name, tensor in weights.items():
        torch.testing.assert_close(back[name], tensor, rtol=0, atol=0)


def test_arrays_and_numbers_of_numpy_become_plain(tmp_path: Path) -> None:
    scaling = {"mean": np.array([1.5, 2.5], dtype=np.float32), "rows": np.int64(3)}
    assert load(write(tmp_path / "a", replace(example(), scaling=scaling))).scaling == {"mean": [1.5, 2.5], "rows": 3}


def test_password_of_a_database_is_not_stored(tmp_path: Path) -> None:
    url = "postgresql+psycopg://anna:s3cret@host:5432/base"
    run = {"run_id": "abcd", "command": f"foretide train --data {url}"}
    stored = write(tmp_path / "a", replace(example(), config={"data": url}, run=run))
    assert all(b"s3cret" not in path.read_bytes() for path in stored.iterdir())
    assert load(stored).config == {"data": "postgresql+psycopg://anna:***@host:5432/base"}


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"scaling": {"mean": [float("nan")]}}, "scaling.json: mean: found nan, expected a finite number"),
        ({"config": {"model": torch.nn.Linear}}, "config.yaml: model: found a type, expected a number, text"),
        ({"run": {"run_id": "../up"}}, "run.json: run_id: found '../up', expected 4 to 64 letters"),
        ({"schema": {"variates": ["a"]}}, "schema.json: frequency: found None, expected a str"),
    ],
)
def test_what_cannot_be_stored_is_refused(tmp_path: Path, part: dict, words: str) -> None:
    with pytest.raises(ForetideError, match=words):
        write(tmp_path / "a", replace(example(), **part))
    assert list(tmp_path.iterdir()) == []


def test_existing_artifact_is_replaced_only_when_asked(folder: Path) -> None:
    with pytest.raises(ForetideError, match="stands at this path already"):
        write(folder, example("other"))
    assert load(folder).run["run_id"] == "0123456789ab"
    assert load(write(folder, example("other"), replace=True)).run["run_id"] == "other"


def test_missing_folder_and_file_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ForetideError, match="found nothing, expected the folder of an artifact"):
        load(tmp_path / "none")
    with pytest.raises(ForetideError, match="found a file, expected the folder of an artifact"):
        load(tmp_path / "file")


@pytest.mark.parametrize("name", [*PARTS, SUMS])
def test_missing_part_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ForetideError, match=f"{name}: is missing"):
        load(folder)


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut, r"is truncated: found \d+ bytes, expected \d+"),
        (lambda path: path.write_bytes(path.read_bytes() + b" "), r"was altered: found \d+ bytes, expected \d+"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"!"), "was altered: its content does not match"),
    ],
    ids=["cut", "longer", "changed"],
)
def test_damaged_part_is_named(folder: Path, name: str, damage: Callable[[Path], None], words: str) -> None:
    damage(folder / name)
    with pytest.raises(ForetideError, match=f"{name}: {words}") as caught:
        load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (METRICS, b'{"scores": ', "is not readable as JSON"),
        (SCALING, b"\xff\xfe", "is not readable as JSON"),
        (SCALING, b"[1, 2]", "found a list, expected a mapping"),
        (
            SCHEMA,
            b'{"format": 1, "variates": ["a"], "frequency": "h", "lookback": 96}',
            "horizon: found None, expected",
        ),
        (
            SCHEMA,
            b'{"format": 2, "variates": [], "frequency": "h", "lookback": 9, "horizon": 4, "code_version": "9.1"}',
            r"format: found 2 \(written by version 9.1\), expected at most 1; update Foretide",
        ),
        (RUN, b"{}", "run_id: found None, expected a str"),
        (CONFIG, b"a: [1", "is not readable as plain YAML"),
        (CONFIG, b"a: !!python/object/apply:os.system [touch hacked]", "is not readable as plain YAML"),
        (WEIGHTS, b"", "is not readable as safetensors"),
        (WEIGHTS, bytes(7), "is not readable as safetensors"),
        (WEIGHTS, b"\xff" * 64, "is not readable as safetensors"),
        (WEIGHTS, (2).to_bytes(8, "little") + b"}{", "is not readable as safetensors"),
        (WEIGHTS, (200).to_bytes(8, "little") + b'{"a":', "is not readable as safetensors"),
    ],
)
def test_broken_part_with_a_right_checksum(folder: Path, name: str, content: bytes, words: str) -> None:
    (folder / name).write_bytes(content)
    write_sums(folder, PARTS)
    with pytest.raises(ForetideError, match=f"{name}: {words}") as caught:
        load(folder)
    assert "\n" not in str(caught.value) and not Path("hacked").exists()


@pytest.mark.parametrize(
    "save",
    [
        torch.save,
        lambda content, path: torch.save(content, path, _use_new_zipfile_serialization=False),
        lambda content, path: path.write_bytes(pickle.dumps(content, protocol=4)),
        lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2)),
    ],
    ids=["torch", "torch-legacy", "pickle4", "pickle2"],
)
@pytest.mark.parametrize("checksum", [True, False])
def test_pickle_in_place_of_weights(folder: Path, save: Callable[[object, Path], None], checksum: bool) -> None:
    save({"weight": [1.0]}, folder / WEIGHTS)
    if checksum:
        write_sums(folder, PARTS)
    with pytest.raises(ForetideError, match=r"weights.safetensors: found a pickle .* is never loaded"):
        load(folder)


def test_header_that_begins_like_a_pickle_is_read(tmp_path: Path) -> None:
    bare = write(tmp_path / "bare", replace(example(), weights={"model.": torch.ones(1)})) / WEIGHTS
    header = int.from_bytes(bare.read_bytes()[:8], "little")
    name = "model." + "x" * (0x280 - header)
    stored = write(tmp_path / "long", replace(example(), weights={name: torch.ones(1)}))
    assert (stored / WEIGHTS).read_bytes()[:2] == b"\x80\x02"
    assert load(stored).weights.keys() == {name}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nonsense\n", "row 1: found 'nonsense'"),
        (f"{'0' * 64}  ../../etc/passwd\n", "row 1: found"),
        (f"{'0' * 64}  config.yaml\n", r"config.yaml: was altered"),
        ("", "does not list config.yaml"),
    ],
)
def test_list_of_checksums_that_does_not_fit(folder: Path, text: str, words: str) -> None:
    (folder / SUMS).write_text(text)
    with pytest.raises(ForetideError, match=words):
        load(folder)


def test_list_made_by_the_system_is_enough(folder: Path) -> None:
    done = subprocess.run(["sha256sum", *PARTS], cwd=folder, capture_output=True, check=True)
    (folder / SUMS).write_bytes(done.stdout)
    assert load(folder).run["run_id"] == "0123456789ab" and verify(folder) == list(PARTS)


def test_without_weights_they_are_not_hashed_but_still_looked_at(folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert load(folder, weights=False).weights == {}
    cut(folder / WEIGHTS)
    with pytest.raises(ForetideError, match="is truncated"):
        load(folder, weights=False)


def test_description_needs_no_torch(folder: Path) -> None:
    code = "import sys, forecasting.artifact as a; a.load(sys.argv[1], weights=False)\nsys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code, str(folder)], cwd=ROOT, check=True)


def test_weights_are_equal_in_a_fresh_process(folder: Path) -> None:
    code = (
        "import sys, json, forecasting.artifact as a; weights = a.load(sys.argv[1]).weights\n"
        "print(json.dumps({name: tensor.double().flatten().tolist() for name, tensor in weights.items()}))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    here = {name: tensor.double().flatten().tolist() for name, tensor in load(folder).weights.items()}
    assert json.loads(done.stdout) == here


def test_disk_that_takes_no_more_leaves_nothing(tmp_path: Path) -> None:
    code = (
        "import sys, torch; from forecasting.artifact import *; sys.path.insert(0, 'tests/forecasting')\n"
        "from test_artifact import example; import dataclasses\n"
        "big = dataclasses.replace(example(), weights={'model.a': torch.rand(100_000)})\n"
        f"write({str(tmp_path / 'new' / 'artifact')!r}, big)"
    )

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        preexec_fn=limit,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    last = done.stderr.splitlines()[-1]
    assert last.startswith("datasets.errors.ForetideError: ") and "outgrew the size" in last
    assert list(tmp_path.iterdir()) == []


def test_identifiers_are_new_and_short() -> None:
    made = {new_run_id() for _ in range(100)}
    assert len(made) == 100 and all(len(name) == 12 and name.isalnum() for name in made)
