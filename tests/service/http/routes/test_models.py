"""GET /v1/models: models and limits."""

from __future__ import annotations

from pathlib import Path

import onnxruntime

from tests.support.server import RunningServer, running_server
from tests.support.tiny_models import LABELS, TinyModel, colour_clip, reference, write_package


def test_list_has_the_models_and_the_limits(server: RunningServer) -> None:
    answer = server.get("/v1/models").json()
    [model] = answer["models"]
    assert (model["name"], model["version"], model["state"], model["provider"]) == ("tiny", 1, "ready", "cpu")
    assert model["runtime"] == {
        "engine": "onnxruntime",
        "version": onnxruntime.__version__,
        "arithmetic": "f32",
        "threads": 1,
        "streams": 1,
        "chosen": "first",
        "batches": [],
        "measured_ms": {},
    }
    assert (model["labels"], model["precision"]) == (list(LABELS), "fp32")
    assert model["inputs"][0] == {"name": "little", "frames": "even", "size": 32, "scale": 36}
    assert len(model["sha256"]) == 64
    assert answer["limits"] == {
        "max_upload_bytes": 2_000_000,
        "max_json_bytes": 4_000_000,
        "max_pixels": 500_000,
        "max_duration_s": 600.0,
        "max_frames": 36_000,
        "max_decoded_pixels": 20_000_000_000,
        "max_streams": 64,
        "max_edits": 1000,
        "max_windows": 3600,
        "request_timeout_s": 30.0,
        "timeline_timeout_s": 600.0,
        "key_requests_per_minute": None,
        "key_requests_at_once": None,
        "decode_sandbox": ["seccomp", "landlock"],
    }


def test_selected_engine_is_in_the_list_the_log_and_the_metric(tmp_path: Path) -> None:
    slow, quick = TinyModel(work=1000), TinyModel()
    write_package(tmp_path / "models", model=slow, engines={"openvino": quick}, reference=reference())
    for chosen in ("measured", "remembered"):
        with running_server(tmp_path / "models", CACHE_DIR=tmp_path / "cache") as server:
            [model] = server.get("/v1/models").json()["models"]
            runtime = model["runtime"]
            assert (model["provider"], runtime["engine"], runtime["chosen"]) == (
                "openvino",
                "openvino",
                chosen,
            )
            assert runtime["measured_ms"]["openvino-f32"] < runtime["measured_ms"]["cpu-f32"]
            labels = {"engine": f"openvino {runtime['version']}", "arithmetic": "f32", "provider": "openvino"}
            assert (
                server.metric("blvnet_model_info", model="tiny", version="1", precision="fp32", **labels) == 1
            )
            line = (
                f"model tiny/1 serves on openvino {runtime['version']} on the CPU in f32, {chosen} (cpu-f32 "
            )
            assert any(str(entry.get("event", "")).startswith(line) for entry in server.log)
            assert server.post(colour_clip((0, 0, 255))).json()["predictions"][0]["label"] == "blue"


def test_one_model_by_name(server: RunningServer) -> None:
    assert server.get("/v1/models/tiny").json() == server.get("/v1/models").json()["models"][0]


def test_unknown_model_is_a_problem(server: RunningServer) -> None:
    answer = server.get("/v1/models/nonesuch")
    assert (answer.status_code, answer.json()["code"]) == (404, "model_not_found")


def test_requests_without_a_model_use_the_default_one(tmp_path: Path, red_clip: bytes) -> None:
    for name in ("first", "second"):
        write_package(tmp_path, name=name)
    for default, expected in (("", "first"), ("second", "second")):
        with running_server(tmp_path, DEFAULT_MODEL=default) as server:
            assert server.post(red_clip).json()["model"]["name"] == expected
            assert server.post(red_clip, model="first").json()["model"]["name"] == "first"
