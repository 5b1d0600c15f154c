"""`blvnet bench`: one document, tables, and one-line errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from service.engines.providers import candidates, open_session
from service.machine.resources import usable_cores
from service.packages.manifest import (
    GRAPH_FILE,
    GraphFile,
    Reference,
    read_manifest,
    sha256_of,
    write_manifest,
)
from service.packages.probe_clips import PROBE, probe_clips
from tests.service.test_cli import blvnet
from tests.support.tiny_models import write_package

BRIEFLY = ("--rounds", 1, "--turn", 0, "--threads", 1)


def measured(*arguments: object) -> dict[str, Any]:
    done = blvnet("bench", *arguments, *BRIEFLY, "--json")
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def on_cpu(document: dict[str, Any]) -> dict[str, Any]:
    [result] = [result for result in document["results"] if result["provider"] == "cpu"]
    return result  # type: ignore[no-any-return]


def test_json_has_the_package_its_workloads_and_the_matrix_product(tmp_path: Path) -> None:
    folder = write_package(tmp_path, gmacs=0.5)
    document = measured(folder, "--batches", "2,1")
    assert list(document) == ["package", "machine", "plan", "reference", "matrix_product", "results"]
    assert (document["package"]["name"], document["package"]["gmacs"]) == ("tiny", 0.5)
    assert document["machine"]["cores"] == usable_cores()
    [product] = document["matrix_product"]
    result = on_cpu(document)
    assert (result["contender"], result["threads"], result["error"]) == ("cpu", 1, None)
    assert (result["provider"], result["arithmetic"]) == ("cpu", "f32")
    assert result["agreement"] == {
        "difference": 0,
        "same_top1": 1,
        "clips": 2,
        "bound": None,
        "agrees": None,
    }
    one, two = result["batches"]
    assert (one["batch"], two["batch"]) == (1, 2)
    assert one["gflops"] == pytest.approx(1 / one["latency_s"]["median"], rel=1e-4)
    assert one["times_matrix_product"] == pytest.approx(one["gflops"] / product["gflops"]["median"], rel=0.5)
    assert two["clips_per_s"] == pytest.approx(2 / two["latency_s"]["median"], rel=1e-4)
    assert two["peak_memory_bytes"] >= one["peak_memory_bytes"] > 10e6
    assert result["load_s"] > 0


def test_tables_go_to_standard_output_and_progress_to_standard_error(tiny_models: Path) -> None:
    done = blvnet("bench", tiny_models / "tiny" / "1", "--batches", 1, *BRIEFLY)
    assert done.returncode == 0, done.stderr
    assert "tiny 1 (colour-meter, fp32)" in done.stdout
    for word in ("cpu", "matrix", "clips/s", "first answer s", "difference"):
        assert word in done.stdout
    first, *_, last = done.stderr.splitlines()
    assert first.startswith("0 of ")
    assert "round 1 of 1" in last


@pytest.mark.parametrize(("wrong", "agrees"), [(0.0, True), (0.2, False)])
def test_outputs_are_compared_with_the_reference_of_the_package(
    tmp_path: Path, wrong: float, agrees: bool
) -> None:
    folder = write_package(tmp_path)
    session = open_session(folder / GRAPH_FILE, "cpu", 1)
    logits = session.run(probe_clips(read_manifest(folder).clip)).logits * (1 + wrong)
    reference = Reference(probe=PROBE, bound=0.01, logits=tuple(map(tuple, logits.tolist())))
    document = measured(write_package(tmp_path, "sure", reference=reference), "--batches", 1)
    assert document["reference"] == "the package's reference"
    found = on_cpu(document)["agreement"]
    assert (found["agrees"], found["bound"]) == (agrees, 0.01)
    assert found["difference"] == pytest.approx(wrong / (1 + wrong), abs=1e-3)


def test_unavailable_provider_is_named_and_the_others_are_measured(tiny_models: Path) -> None:
    providers = ("--provider", "tensorrt", "--provider", "cpu")
    done = blvnet("bench", tiny_models / "tiny" / "1", *providers, "--batches", 1, *BRIEFLY, "--json")
    assert done.returncode == 1
    tensorrt, cpu = json.loads(done.stdout)["results"]
    assert "the installed onnxruntime has no provider tensorrt" in tensorrt["error"]
    assert (tensorrt["batches"], tensorrt["load_s"]) == ([], None)
    assert (cpu["error"], len(cpu["batches"])) == (None, 1)


def test_engine_is_measured_with_its_own_graph(tmp_path: Path) -> None:
    folder = write_package(tmp_path)
    own, common = folder / "own.onnx", folder / GRAPH_FILE
    common.rename(own)
    common.write_bytes(b"a graph for others")
    graphs = {"onnxruntime": GraphFile(file=own.name, sha256=sha256_of(own))}
    manifest = read_manifest(folder).model_copy(update={"sha256": sha256_of(common), "graphs": graphs})
    write_manifest(manifest, folder)
    (cpu,) = measured(folder, "--batches", 1, "--provider", "cpu")["results"]
    assert cpu["error"] is None


def test_every_installed_engine_is_measured_in_each_arithmetic(tmp_path: Path) -> None:
    document = measured(write_package(tmp_path, precision="fp16"), "--batches", 1)
    found = [(result["provider"], result["arithmetic"]) for result in document["results"]]
    ways = candidates("auto", "fp16")
    assert found == [(way.provider, way.arithmetic) for way in ways]
    assert len(found) > len({provider for provider, _ in found})


def test_folder_of_a_model_means_its_highest_version(tmp_path: Path) -> None:
    for version in (2, 10):
        write_package(tmp_path, version=version)
    assert measured(tmp_path / "tiny", "--batches", 1)["package"]["version"] == 10


def test_folder_without_a_package_is_a_one_line_error(tmp_path: Path) -> None:
    done = blvnet("bench", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"blvnet: {tmp_path}: there is no model package (model.json) in it\n"


def test_changed_graph_is_refused_before_anything_runs(tmp_path: Path) -> None:
    folder = write_package(tmp_path)
    (folder / GRAPH_FILE).write_bytes(b"another graph")
    done = blvnet("bench", folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert "model.onnx has SHA-256" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batches", "one"], "--batches must be numbers from 1 to 256 with commas, it is 'one'"),
        (["--batches", "1,,2"], "it is '1,,2'"),
        (["--batches", "0"], "it is '0'"),
        (["--threads", "9999"], f"--threads must be numbers from 1 to {usable_cores()} with commas"),
        (["--rounds", "0"], "--rounds"),
        (["--provider", "abacus"], "'abacus' is not one of 'auto', 'cpu'"),
        (["--turn", "nan"], "--turn"),
    ],
)
def test_invalid_options_end_with_status_2(tiny_models: Path, arguments: list[str], message: str) -> None:
    done = blvnet("bench", tiny_models / "tiny" / "1", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
