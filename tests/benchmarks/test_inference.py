"""The inference benchmark: contenders that compute the same function, and tables of what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import typer

from benchmarks.common.report import RESULTS, placed
from benchmarks.inference import command as inference
from benchmarks.inference import plain
from benchmarks.inference import report as inference_report
from benchmarks.inference.networks import COMPILED, EAGER, MAIN, NETWORKS, PLAIN
from benchmarks.inference.operators import operator_times, seconds_by_operator
from model_export.export.precision import Precision
from model_export.networks.registry import parse_architecture
from service.packages.probe_clips import probe_clips

SMALL = parse_architecture("blvnet-tam-mini-f2x2", num_classes=5, size=32)
PAGE = "# Page\n" + inference.START + inference.END


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "made.pt"
    plain.write_random_checkpoint(path, SMALL, labels=list("abcde"))
    return path


@pytest.fixture(scope="module")
def graph(checkpoint: Path) -> Path:
    plain.export_plain(checkpoint, checkpoint.with_name("plain.onnx"))
    return checkpoint.with_name("plain.onnx")


def test_made_weights_are_always_the_same_and_of_a_sensible_size() -> None:
    first, second = (plain.random_network(SMALL).state_dict() for _ in range(2))
    assert all((first[name] == second[name]).all() for name in first)
    deviations = [value.sqrt() for name, value in first.items() if name.endswith("running_var")]
    assert all(0 < float(value.max()) < 100 for value in deviations)


def test_plain_export_equals_eager_pytorch(checkpoint: Path, graph: Path) -> None:
    clips = probe_clips(SMALL.clip_spec())
    wanted = plain.load_eager(checkpoint, threads=1)(clips)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    for name, found in zip(("logits", "evidence"), session.run(["logits", "evidence"], clips), strict=True):
        np.testing.assert_allclose(found, wanted[name], rtol=1e-4, atol=1e-4)


def test_compiling_without_a_compiler_says_so(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(plain.NoCompiler, match="needs a C\\+\\+ compiler"):
        plain.load_compiled(checkpoint, 1, tmp_path)


def test_operators_of_a_graph_are_timed(graph: Path) -> None:
    times = operator_times(graph, probe_clips(SMALL.clip_spec(), 1), threads=1)
    assert {"Conv", "Pad", "ReduceSum"} <= set(times)  # taps shifted and summed
    assert all(seconds >= 0 for seconds in times.values())
    assert list(times.values()) == sorted(times.values(), reverse=True)


def test_first_runs_of_a_profile_do_not_count() -> None:
    def run(start: int, dur: int) -> list[dict[str, Any]]:
        node = {"cat": "Node", "name": "x_kernel_time", "args": {"op_name": "Conv"}, "ts": start, "dur": dur}
        return [{"cat": "Session", "name": "model_run", "ts": start, "dur": dur}, node]

    events = [*run(0, 900_000), *run(1_000_000, 900_000), *run(2_000_000, 2_000), *run(3_000_000, 4_000)]
    assert seconds_by_operator(events) == {"Conv": pytest.approx(0.003)}


def entry(
    workload: str,
    ms: float,
    multiple: float,
    *,
    agrees: bool | None = None,
    threads: int = 2,
    batches: tuple[int, ...] = (1,),
) -> Any:
    rows = [
        {
            "batch": batch,
            "latency_s": dict.fromkeys(("median", "lower_quartile", "upper_quartile"), ms * batch / 1e3),
            "clips_per_s": 1e3 / ms,
            "gflops": 1.0,
            "times_matrix_product": multiple,
            "peak_memory_bytes": 10**8,
        }
        for batch in batches
    ]
    return {
        "contender": workload,
        "threads": threads,
        "load_s": 1.5,
        "agreement": {"difference": 1e-6, "agrees": agrees},
        "error": None,
        "batches": rows,
    }


def network(*entries: Any) -> Any:
    return {
        "gmacs": 23.85,
        "machine": {"cores": 2, "cpu": "a processor"},
        "matrix_product": [{"threads": 2, "gflops": {"median": 400.0}}],
        "results": entries,
        "not_exported": {"int8": "no clips"},
        "operators": {"plain": {"Conv": 0.2, "Pad": 0.1}, "fp32": {"Conv": 0.15, "Reorder": 0.01}},
    }


def test_ratios_are_those_of_one_clip_on_all_cores() -> None:
    found = inference_report.ratios(
        network(
            entry(EAGER, 700, 0.2),
            entry(PLAIN, 300, 0.5),
            entry("cpu, fp32 package", 999, 0.1, agrees=True, threads=1),
            entry("cpu, fp32 package", 150, 1.0, agrees=True),
            entry("cpu, int8 package", 80, 2.0, agrees=True),
            entry("openvino, int8 package", 70, 2.2, agrees=True),
            entry("openvino bf16, fp32 package", 50, 3.3, agrees=False),
        )
    )
    assert [ratio.value for ratio in found] == pytest.approx([1.0, 2.0, 2.0, 2.2, 10.0, 1.5])
    assert [ratio.holds for ratio in found] == [True, True, True, False, True, True]
    assert "(openvino, int8 package)" in found[3].what


def test_ratios_without_measurements_are_undecided() -> None:
    found = inference_report.ratios(network(entry(EAGER, 700, 0.2)))
    assert {ratio.holds for ratio in found} == {None}
    assert "not measured" in inference_report.ratio_table(found)


def test_page_shows_one_clip_on_all_cores_and_of_the_rest_the_clips_a_second() -> None:
    measured = network(
        entry("fast", 100, 2.0, batches=(1, 4)),
        entry("fast", 200, 2.0, batches=(1, 4), threads=1),
        entry("slow", 400, 0.5, batches=(1,)),
    )
    brief, full = (inference_report.network_text(measured, full=full) for full in (False, True))
    assert [line for line in brief.splitlines() if line.startswith(("| fast", "| slow"))] == [
        "| fast | 2 | 1 | 100.0 | 100.0 to 100.0 | 10.0 | 1 | 2.00 | 1.50 | 100 | 1e-06 |",
        "| slow | 2 | 1 | 400.0 | 400.0 to 400.0 | 2.5 | 1 | 0.50 | 1.50 | 100 | 1e-06 |",
        "| fast | 10.0 | 10.0 | 5.0 | 5.0 |",
        "| slow | 2.5 |  |  |  |",
    ]
    assert "|  | 2 threads, 1 | 2 threads, 4 | 1 thread, 1 | 1 thread, 4 |" in brief
    assert len([line for line in full.splitlines() if line.startswith("| fast")]) == 4


def test_each_heat_has_its_matrix_product() -> None:
    product = {"threads": 2, "gflops": {"median": 410.0}}
    alone = {"threads": 1, "gflops": {"median": 200.0}}
    measured = network(entry("fast", 100, 2.0))
    measured["matrix_product"] += [product, alone]
    assert (
        "Matrix product: 400 and 410 GFLOP/s with 2 threads, 200 GFLOP/s with 1 thread.\n"
        in inference_report.network_text(measured)
    )
    assert inference_report.APART in inference_report.network_text(measured | {"apart": True})


def test_operator_table_adds_up() -> None:
    table = inference_report.operator_table(network())
    assert table.splitlines()[2:] == [
        "| Conv | 200.0 | 150.0 |",
        "| Pad | 100.0 | 0.0 |",
        "| Reorder | 0.0 | 10.0 |",
        "| others | 0.0 | 0.0 |",
        "| total | 300.0 | 160.0 |",
    ]


def test_unknown_network_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(typer.BadParameter, match=f"unknown network nonesuch; known: .*{MAIN}"):
        inference.main(networks=["nonesuch"])


def test_a_network_is_measured_written_and_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    mini = NETWORKS[0]
    monkeypatch.setattr(
        inference, "precisions", lambda: [Precision.FP32]
    )  # the others take half a minute each
    options: dict[str, Any] = {"networks": [mini], "batches": [2, 1], "threads": [1], "quick": True}
    inference.main(**options, apart=True, out=tmp_path, page=page)
    document = json.loads((tmp_path / "inference.json").read_text())
    measured = document["networks"][mini]
    assert measured["gmacs"] == pytest.approx(0.23, abs=0.01)
    by_name = {entry["contender"]: entry for entry in measured["results"]}
    assert {EAGER, PLAIN, "cpu, fp32 package"} <= set(by_name)
    assert COMPILED not in by_name
    assert all([row["batch"] for row in entry["batches"]] == [1, 2] for entry in by_name.values())
    assert by_name["cpu, fp32 package"]["agreement"]["difference"] < 1e-4
    assert {"Pad", "ReduceSum"} <= set(measured["operators"]["plain"])
    assert "Pad" not in measured["operators"]["fp32"]
    assert len(measured["matrix_product"]) == 2  # one for each group
    assert f"### {mini}" in (text := page.read_text())
    assert inference_report.APART in text

    monkeypatch.setattr(inference, "measure", None)  # calling it would fail
    inference.main(**options, missing=True, out=tmp_path, page=page)


def test_page_has_the_tables_of_the_results() -> None:
    document = json.loads((RESULTS / "inference.json").read_text())
    page = inference.PAGE.read_text()
    text = inference_report.markdown(document, full=False)
    assert placed(page, text, inference.START, inference.END) == page


def test_pictures_are_small() -> None:
    for name in ("inference-latency.png", "inference-operators.png"):
        assert 5_000 < (inference.PAGE.parent / name).stat().st_size < 200_000
