"""Which engine serves: the fastest of those whose answer is PyTorch's, and none whose is not."""

from __future__ import annotations

import importlib.util
import json
import logging
import re
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from service.errors import PackageError, ProviderUnavailable
from service.manifest import Reference, read_manifest
from service.runtime import choice
from service.runtime.choice import ChosenBy, Opened, open_package
from service.runtime.config import AUTO, RuntimeConfig
from service.runtime.providers import candidates, installed_providers
from service.runtime.session import Arithmetic
from tests.tiny_models import GAIN, TinyModel, reference, write_package

QUICK = TinyModel()
SLOW = TinyModel(work=1000)  # some hundred times slower
WRONG = TinyModel(gain=GAIN * 1.01)
NAN = TinyModel(gain=float("nan"))


OPENED_ALONE = """
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from service.manifest import read_manifest
from service.runtime.choice import open_package
from service.runtime.config import RuntimeConfig
folder, cache = map(Path, sys.argv[1:])
opened = open_package(folder, read_manifest(folder), RuntimeConfig(cache_dir=cache))
print(opened.chosen, *sorted({"onnxruntime", "openvino"} & sys.modules.keys()))
"""


@pytest.fixture(autouse=True)
def measured_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "MEASURING_S", 0.05)


def two_graphs(models: Path, onnxruntime: TinyModel, openvino: TinyModel, **manifest: Any) -> Path:
    """A package with a graph for each engine, and the right answers."""
    fields = {"reference": reference()} | manifest
    return write_package(models, model=onnxruntime, engines={"openvino": openvino}, **fields)


def opened(folder: Path, provider: str = AUTO, cache: Path | None = None) -> Opened:
    return open_package(folder, read_manifest(folder), RuntimeConfig(provider, cache_dir=cache))


@pytest.mark.parametrize(
    ("onnxruntime", "openvino", "fastest"), [(QUICK, SLOW, "cpu"), (SLOW, QUICK, "openvino")]
)
def test_the_fastest_serves_and_says_what_was_measured(
    tmp_path: Path, onnxruntime: TinyModel, openvino: TinyModel, fastest: str
) -> None:
    found = opened(two_graphs(tmp_path, onnxruntime, openvino))
    assert (found.session.runtime.provider, found.chosen) == (fastest, ChosenBy.MEASURED)
    measured = dict(found.measured_ms)
    assert measured.keys() == {"cpu-f32", "openvino-f32"}
    assert measured.pop(f"{fastest}-f32") * 3 < min(measured.values())


@pytest.mark.parametrize("wrong", [WRONG, NAN], ids=["one percent off", "not numbers"])
def test_an_engine_that_answers_wrongly_is_left_out_however_fast(
    tmp_path: Path, wrong: TinyModel, caplog: pytest.LogCaptureFixture
) -> None:
    found = opened(two_graphs(tmp_path, SLOW, wrong))
    assert found.session.runtime.provider == "cpu"
    assert found.measured_ms.keys() == {"cpu-f32"}
    (record,) = (record for record in caplog.records if record.levelno == logging.WARNING)
    assert record.getMessage().startswith("openvino-f32 is left out for tiny/1: ")


def test_the_log_says_by_how_much_an_answer_is_wrong(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    opened(two_graphs(tmp_path, QUICK, WRONG))
    assert "the largest difference is 0.01 of the largest logit, 0.0001 is allowed" in caplog.text


def test_a_package_that_no_engine_answers_rightly_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="its answer to the probe clips is not PyTorch's"):
        opened(two_graphs(tmp_path, WRONG, WRONG))


def test_an_engine_that_takes_its_process_down_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As one does that was built with instructions that the processor does not have."""
    (tmp_path / "openvino.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = opened(two_graphs(tmp_path, SLOW, QUICK))
    assert found.session.runtime.provider == "cpu"
    assert "openvino-f32 is left out for tiny/1: its process was ended by SIGILL" in caplog.text


def test_only_the_engine_that_serves_is_loaded(tmp_path: Path) -> None:
    """When it was measured and when it is remembered; another would be in the memory of every service."""
    folder, cache = two_graphs(tmp_path / "models", SLOW, QUICK), tmp_path / "cache"
    for chosen in ("measured", "remembered"):
        ran = subprocess.run(
            [sys.executable, "-c", OPENED_ALONE, folder, cache], check=True, capture_output=True, text=True
        )
        assert ran.stdout.split() == [chosen, "openvino"]


def test_different_reasons_are_told_by_name(tmp_path: Path) -> None:
    with pytest.raises(PackageError) as caught:
        opened(two_graphs(tmp_path, WRONG, TinyModel(classes=4)))
    assert re.match(r"cpu-f32: its answer .*; openvino-f32: output logits has shape", caught.value.message)


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
def test_a_provider_that_was_asked_for_serves(tmp_path: Path, provider: str) -> None:
    found = opened(two_graphs(tmp_path, SLOW, SLOW), provider)
    assert (found.session.runtime.provider, found.chosen) == (provider, ChosenBy.ASKED)
    assert dict(found.measured_ms) == {}


@pytest.mark.parametrize(
    ("provider", "graphs"), [("cpu", (WRONG, QUICK)), ("openvino", (QUICK, WRONG))], ids=["cpu", "openvino"]
)
def test_a_provider_that_was_asked_for_has_to_agree_too(
    tmp_path: Path, provider: str, graphs: tuple[TinyModel, TinyModel]
) -> None:
    with pytest.raises(PackageError, match="not PyTorch's"):
        opened(two_graphs(tmp_path, *graphs), provider)


def test_without_a_reference_the_first_that_works_serves(tmp_path: Path) -> None:
    found = opened(write_package(tmp_path, model=SLOW, engines={"openvino": QUICK}))
    assert (found.session.runtime.provider, found.chosen) == ("cpu", ChosenBy.FIRST)


def test_without_a_reference_the_next_serves_where_the_first_does_not_work(tmp_path: Path) -> None:
    found = opened(write_package(tmp_path, model=NAN, engines={"openvino": QUICK}))
    assert (found.session.runtime.provider, found.chosen) == ("openvino", ChosenBy.FIRST)


def test_a_choice_is_remembered(tmp_path: Path) -> None:
    folder, cache = two_graphs(tmp_path / "models", SLOW, QUICK), tmp_path / "cache"
    first, second = (opened(folder, cache=cache) for _ in range(2))
    assert (first.chosen, second.chosen) == (ChosenBy.MEASURED, ChosenBy.REMEMBERED)
    assert first.measured_ms == second.measured_ms
    assert second.session.runtime.provider == "openvino"


def test_a_remembered_choice_that_answers_wrongly_is_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a bad update of a library that did not change its version."""
    folder, cache = two_graphs(tmp_path / "models", SLOW, QUICK), tmp_path / "cache"
    opened(folder, cache=cache)
    (folder / "openvino.onnx").write_bytes(
        (two_graphs(tmp_path / "other", QUICK, WRONG) / "openvino.onnx").read_bytes()
    )
    found = opened(folder, cache=cache)
    assert (found.session.runtime.provider, found.chosen) == ("cpu", ChosenBy.MEASURED)


def test_another_package_of_the_same_name_is_measured_for_itself(tmp_path: Path) -> None:
    opened(two_graphs(tmp_path / "one", SLOW, QUICK), cache=tmp_path / "cache")
    found = opened(two_graphs(tmp_path / "two", QUICK, SLOW), cache=tmp_path / "cache")
    assert (found.session.runtime.provider, found.chosen) == ("cpu", ChosenBy.MEASURED)


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_bytes(b"")
    with caplog.at_level(logging.DEBUG):
        found = opened(two_graphs(tmp_path, QUICK, SLOW), cache=tmp_path / "file" / "cache")
    assert found.chosen is ChosenBy.MEASURED
    assert {record.levelno for record in caplog.records if "choice" in record.getMessage()} == {logging.DEBUG}


@pytest.mark.parametrize("content", ["", "[]", '{"key": 1}', '{"candidate": "cpu-f32"}'])
def test_a_cache_that_holds_nonsense_is_as_good_as_none(tmp_path: Path, content: str) -> None:
    folder, cache = two_graphs(tmp_path / "models", QUICK, SLOW), tmp_path / "cache"
    opened(folder, cache=cache)
    (file,) = cache.glob("choices/*.json")
    file.write_text(content)
    assert opened(folder, cache=cache).chosen is ChosenBy.MEASURED
    assert json.loads(file.read_text())["candidate"] == "cpu-f32"
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_cache_that_names_no_candidate_is_as_good_as_none(tmp_path: Path) -> None:
    folder, cache = two_graphs(tmp_path / "models", QUICK, SLOW), tmp_path / "cache"
    opened(folder, cache=cache)
    (file,) = cache.glob("choices/*.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"candidate": "abacus-f32"}))
    assert opened(folder, cache=cache).chosen is ChosenBy.MEASURED


def test_the_machine_is_quiet_before_anything_is_timed(tmp_path: Path) -> None:
    asked = []
    folder = two_graphs(tmp_path, QUICK, SLOW)
    config = RuntimeConfig(cache_dir=tmp_path / "cache")
    for _ in range(2):
        open_package(folder, read_manifest(folder), config, before_measuring=lambda: asked.append(1))
    assert asked == [1]  # nothing is timed the second time


def test_a_reference_to_other_clips_is_refused(tmp_path: Path) -> None:
    other = Reference(2, 1e-4, reference().logits)
    with pytest.raises(PackageError, match="probe clips of version 2, this service makes 1"):
        opened(two_graphs(tmp_path, QUICK, QUICK, reference=other))


def test_half_precision_serves_within_its_bound(tmp_path: Path) -> None:
    folder = two_graphs(tmp_path, SLOW, QUICK, precision="fp16", reference=reference(bound=0.02))
    runtime = opened(folder, "openvino").session.runtime
    assert runtime.arithmetic in (Arithmetic.BF16, Arithmetic.F16, Arithmetic.F32)


@pytest.mark.parametrize(
    ("precision", "names"),
    [
        ("fp32", ["cpu-f32", "openvino-f32"]),
        ("fp16", ["cpu-f16", "openvino-bf16", "openvino-f16", "openvino-f32"]),
        ("int8", ["cpu-int8", "openvino-int8"]),
    ],
)
def test_candidates_keep_what_the_precision_promises(precision: str, names: list[str]) -> None:
    found = [str(item) for item in candidates(AUTO, precision) if item.provider in ("cpu", "openvino")]
    assert found == names


def test_providers_are_known_without_loading_their_engine() -> None:
    names = {
        "CPUExecutionProvider": "cpu",
        "CUDAExecutionProvider": "cuda",
        "TensorrtExecutionProvider": "tensorrt",
    }
    built = set(onnxruntime.get_available_providers())
    wanted = {provider for name, provider in names.items() if name in built}
    assert set(installed_providers()) - {"openvino"} == wanted


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_provider_is_installed_with_its_library(
    provider: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "onnxruntime" / "capi").mkdir(parents=True)
    (tmp_path / "onnxruntime" / "capi" / f"libonnxruntime_providers_{provider}.so").touch()
    found = ModuleSpec("onnxruntime", None, is_package=True)
    found.submodule_search_locations = [str(tmp_path / "onnxruntime")]
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: found if name == "onnxruntime" else find(name, *rest)
    )
    assert set(installed_providers()) - {"openvino"} == {"cpu", provider}


@pytest.mark.parametrize(("missing", "left"), [("openvino", ["cpu-f32"]), ("onnxruntime", ["openvino-f32"])])
def test_an_engine_that_is_not_installed_is_no_candidate(
    missing: str, left: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _hide(monkeypatch, missing)
    assert [str(item) for item in candidates(AUTO, "fp32") if item.provider in ("cpu", "openvino")] == left


@pytest.mark.parametrize(
    ("provider", "words"),
    [
        ("openvino", r"openvino is not installed; install blvnet-serve\[openvino\]"),
        ("cpu", r"onnxruntime is not installed; install blvnet-serve\[cpu\]"),
        (AUTO, r"onnxruntime is not installed; install blvnet-serve\[cpu\].* or blvnet-serve\[openvino\]"),
    ],
)
def test_without_its_engine_a_provider_says_what_to_install(
    provider: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _hide(monkeypatch, "openvino", "onnxruntime")
    with pytest.raises(ProviderUnavailable, match=words):
        candidates(provider, "fp32")


def _hide(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name in modules else find(name, *rest)
    )
