"""Selection of the engine: the fastest of those that agree with PyTorch, and no other."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import re
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from service.engines.providers import EngineConfig, Provider, candidates, installed_providers
from service.engines.session import Arithmetic
from service.errors import PackageError, ProviderUnavailable
from service.models import engine_selection
from service.models.engine_selection import ChosenBy, Opened, open_package
from service.models.selection_cache import default_cache_dir
from service.packages.manifest import Reference, read_manifest
from tests.support.tiny_models import GAIN, TinyModel, reference, write_package

QUICK = TinyModel()
SLOW = TinyModel(work=1000)  # about a hundred times slower
WRONG = TinyModel(gain=GAIN * 1.01)
NAN = TinyModel(gain=float("nan"))


OPENED_ALONE = """
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from service.packages.manifest import read_manifest
from service.models.engine_selection import open_package
from service.engines.providers import EngineConfig
folder, cache = map(Path, sys.argv[1:])
opened = open_package(folder, read_manifest(folder), EngineConfig(cache_dir=cache))
print(opened.chosen, *sorted({"onnxruntime", "openvino"} & sys.modules.keys()))
"""


@pytest.fixture(autouse=True)
def measured_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_selection, "MEASURING_S", 0.05)


def two_graphs(models: Path, onnxruntime: TinyModel, openvino: TinyModel, **manifest: Any) -> Path:
    """A package with a graph for each engine and the correct reference."""
    fields = {"reference": reference()} | manifest
    return write_package(models, model=onnxruntime, engines={"openvino": openvino}, **fields)


def opened(folder: Path, provider: str = Provider.AUTO, cache: Path | None = None) -> Opened:
    return open_package(folder, read_manifest(folder), EngineConfig(provider, cache_dir=cache))


@pytest.mark.parametrize(
    ("onnxruntime", "openvino", "fastest"), [(QUICK, SLOW, "cpu"), (SLOW, QUICK, "openvino")]
)
def test_fastest_engine_is_selected_and_measurements_are_reported(
    tmp_path: Path, onnxruntime: TinyModel, openvino: TinyModel, fastest: str
) -> None:
    found = opened(two_graphs(tmp_path, onnxruntime, openvino))
    assert (found.session.runtime.provider, found.chosen) == (fastest, ChosenBy.MEASURED)
    measured = dict(found.measured_ms)
    assert measured.keys() == {"cpu-f32", "openvino-f32"}
    assert measured.pop(f"{fastest}-f32") * 3 < min(measured.values())


@pytest.mark.parametrize("wrong", [WRONG, NAN], ids=["one percent off", "not numbers"])
def test_engine_with_wrong_answers_is_skipped_even_if_it_is_the_fastest(
    tmp_path: Path, wrong: TinyModel, caplog: pytest.LogCaptureFixture
) -> None:
    found = opened(two_graphs(tmp_path, SLOW, wrong))
    assert found.session.runtime.provider == "cpu"
    assert found.measured_ms.keys() == {"cpu-f32"}
    (record,) = (record for record in caplog.records if record.levelno == logging.WARNING)
    assert record.getMessage().startswith("openvino-f32 is skipped for tiny/1: ")


def test_log_says_by_how_much_an_answer_differs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    opened(two_graphs(tmp_path, QUICK, WRONG))
    assert "the largest difference is 0.01 of the largest logit, 0.0001 is allowed" in caplog.text


def test_package_without_a_correct_engine_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="its answer to the probe clips is not PyTorch's"):
        opened(two_graphs(tmp_path, WRONG, WRONG))


def test_engine_that_crashes_its_process_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """For example an engine built with instructions that the processor lacks."""
    (tmp_path / "openvino.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = opened(two_graphs(tmp_path, SLOW, QUICK))
    assert found.session.runtime.provider == "cpu"
    assert "openvino-f32 is skipped for tiny/1: its process was ended by SIGILL" in caplog.text


def test_only_the_selected_engine_is_loaded(tmp_path: Path) -> None:
    """Both after a measurement and with a cached selection: other engines would waste memory."""
    folder, cache = two_graphs(tmp_path / "models", SLOW, QUICK), tmp_path / "cache"
    for chosen in ("measured", "remembered"):
        ran = subprocess.run(
            [sys.executable, "-c", OPENED_ALONE, folder, cache], check=True, capture_output=True, text=True
        )
        assert ran.stdout.split() == [chosen, "openvino"]


def test_different_reasons_are_reported_for_each_candidate(tmp_path: Path) -> None:
    with pytest.raises(PackageError) as caught:
        opened(two_graphs(tmp_path, WRONG, TinyModel(classes=4)))
    assert re.match(r"cpu-f32: its answer .*; openvino-f32: output logits has shape", caught.value.message)


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
def test_requested_provider_is_used(tmp_path: Path, provider: str) -> None:
    found = opened(two_graphs(tmp_path, SLOW, SLOW), provider)
    assert (found.session.runtime.provider, found.chosen) == (provider, ChosenBy.ASKED)
    assert dict(found.measured_ms) == {}


@pytest.mark.parametrize(
    ("provider", "graphs"), [("cpu", (WRONG, QUICK)), ("openvino", (QUICK, WRONG))], ids=["cpu", "openvino"]
)
def test_requested_provider_must_agree_with_the_reference(
    tmp_path: Path, provider: str, graphs: tuple[TinyModel, TinyModel]
) -> None:
    with pytest.raises(PackageError, match="not PyTorch's"):
        opened(two_graphs(tmp_path, *graphs), provider)


def test_first_working_candidate_is_selected_without_a_reference(tmp_path: Path) -> None:
    found = opened(write_package(tmp_path, model=SLOW, engines={"openvino": QUICK}))
    assert (found.session.runtime.provider, found.chosen) == ("cpu", ChosenBy.FIRST)


def test_next_candidate_is_selected_where_the_first_fails(tmp_path: Path) -> None:
    found = opened(write_package(tmp_path, model=NAN, engines={"openvino": QUICK}))
    assert (found.session.runtime.provider, found.chosen) == ("openvino", ChosenBy.FIRST)


def test_selection_is_cached(tmp_path: Path) -> None:
    folder, cache = two_graphs(tmp_path / "models", SLOW, QUICK), tmp_path / "cache"
    first, second = (opened(folder, cache=cache) for _ in range(2))
    assert (first.chosen, second.chosen) == (ChosenBy.MEASURED, ChosenBy.REMEMBERED)
    assert first.measured_ms == second.measured_ms
    assert second.session.runtime.provider == "openvino"


def test_cached_selection_with_wrong_answers_is_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For example after a faulty update of a library that kept its version."""
    folder, cache = two_graphs(tmp_path / "models", SLOW, QUICK), tmp_path / "cache"
    opened(folder, cache=cache)
    (folder / "openvino.onnx").write_bytes(
        (two_graphs(tmp_path / "other", QUICK, WRONG) / "openvino.onnx").read_bytes()
    )
    found = opened(folder, cache=cache)
    assert (found.session.runtime.provider, found.chosen) == ("cpu", ChosenBy.MEASURED)


def test_other_package_of_the_same_name_is_measured_separately(tmp_path: Path) -> None:
    opened(two_graphs(tmp_path / "one", SLOW, QUICK), cache=tmp_path / "cache")
    found = opened(two_graphs(tmp_path / "two", QUICK, SLOW), cache=tmp_path / "cache")
    assert (found.session.runtime.provider, found.chosen) == ("cpu", ChosenBy.MEASURED)


def test_cache_that_cannot_be_written_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_bytes(b"")
    with caplog.at_level(logging.DEBUG):
        found = opened(two_graphs(tmp_path, QUICK, SLOW), cache=tmp_path / "file" / "cache")
    assert found.chosen is ChosenBy.MEASURED
    assert {record.levelno for record in caplog.records if "selection" in record.getMessage()} == {
        logging.DEBUG
    }


def cached_text(measured: str) -> str:
    return f'{{"key": {{}}, "candidate": "cpu-f32", "measured_ms": {{"cpu-f32": {measured}}}}}'


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"key": 1}',
        '{"candidate": "cpu-f32"}',
        "[" * 100_000,
        cached_text("NaN"),
        cached_text("9" * 400),
        cached_text("9" * 5000),
        '{"key": {}, "candidate": "\\ud800", "measured_ms": {}}',
        "\0" * 2_000_000,
    ],
    ids=lambda text: text[:30] or "empty",
)
def test_invalid_cache_entry_is_ignored_and_replaced(tmp_path: Path, content: str) -> None:
    folder, cache = two_graphs(tmp_path / "models", QUICK, SLOW), tmp_path / "cache"
    opened(folder, cache=cache)
    (file,) = cache.glob("selections/*.json")
    file.write_text(content)
    assert opened(folder, cache=cache).chosen is ChosenBy.MEASURED
    assert json.loads(file.read_text())["candidate"] == "cpu-f32"
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_fifo_in_the_cache_does_not_block_loading(tmp_path: Path) -> None:
    folder, cache = two_graphs(tmp_path / "models", QUICK, SLOW), tmp_path / "cache"
    opened(folder, cache=cache)
    (file,) = cache.glob("selections/*.json")
    file.unlink()
    os.mkfifo(file)
    assert opened(folder, cache=cache).chosen is ChosenBy.MEASURED
    assert opened(folder, cache=cache).chosen is ChosenBy.REMEMBERED


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
def test_nan_in_the_answer_to_a_probe_clip_refuses_the_package(tmp_path: Path, provider: str) -> None:
    """Only bright clips overflow here, so the black clip passes. The package has no reference."""
    folder = write_package(tmp_path, model=TinyModel(gain=3e38))
    with pytest.raises(PackageError, match="the probe clips give values that are not finite"):
        opened(folder, provider)


def test_user_without_a_home_has_no_default_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", without_home)
    assert default_cache_dir() is None


def test_cached_selection_of_an_unknown_candidate_is_ignored(tmp_path: Path) -> None:
    folder, cache = two_graphs(tmp_path / "models", QUICK, SLOW), tmp_path / "cache"
    opened(folder, cache=cache)
    (file,) = cache.glob("selections/*.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"candidate": "abacus-f32"}))
    assert opened(folder, cache=cache).chosen is ChosenBy.MEASURED


def test_callback_runs_before_anything_is_timed(tmp_path: Path) -> None:
    asked = []
    folder = two_graphs(tmp_path, QUICK, SLOW)
    config = EngineConfig(cache_dir=tmp_path / "cache")
    for _ in range(2):
        open_package(folder, read_manifest(folder), config, before_measuring=lambda: asked.append(1))
    assert asked == [1]  # the second time nothing is timed


def test_reference_for_other_probe_clips_is_refused(tmp_path: Path) -> None:
    other = Reference(probe=2, bound=1e-4, logits=reference().logits)
    with pytest.raises(PackageError, match="probe clips of version 2, this service makes 1"):
        opened(two_graphs(tmp_path, QUICK, QUICK, reference=other))


def test_float16_package_is_served_within_its_bound(tmp_path: Path) -> None:
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
def test_candidates_keep_the_precision_of_the_package(precision: str, names: list[str]) -> None:
    found = [
        str(item) for item in candidates(Provider.AUTO, precision) if item.provider in ("cpu", "openvino")
    ]
    assert found == names


def test_installed_providers_are_found_without_importing_engines() -> None:
    names = {
        "CPUExecutionProvider": "cpu",
        "CUDAExecutionProvider": "cuda",
        "TensorrtExecutionProvider": "tensorrt",
    }
    built = set(onnxruntime.get_available_providers())
    wanted = {provider for name, provider in names.items() if name in built}
    assert set(installed_providers()) - {"openvino"} == wanted


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_provider_is_installed_if_its_library_is(
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
def test_missing_engine_is_no_candidate(
    missing: str, left: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _hide(monkeypatch, missing)
    assert [
        str(item) for item in candidates(Provider.AUTO, "fp32") if item.provider in ("cpu", "openvino")
    ] == left


@pytest.mark.parametrize(
    ("provider", "words"),
    [
        ("openvino", r"openvino is not installed; in a checkout: pip install '\.\[openvino\]'"),
        ("cpu", r"onnxruntime is not installed; in a checkout: pip install '\.\[cpu\]'"),
        (
            Provider.AUTO,
            r"onnxruntime is not installed; in a checkout: pip install '\.\[cpu\]'",
        ),
    ],
)
def test_missing_engine_names_the_package_to_install(
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
