"""GET /v1/models: what is served, and what may be asked."""

from __future__ import annotations

from tests.server import RunningServer
from tests.tiny_models import LABELS


def test_list_has_the_models_and_the_limits(server: RunningServer) -> None:
    answer = server.get("/v1/models").json()
    [model] = answer["models"]
    assert (model["name"], model["version"], model["state"], model["provider"]) == ("tiny", 1, "ready", "cpu")
    assert (model["labels"], model["precision"]) == (list(LABELS), "fp32")
    assert model["inputs"][0] == {"name": "little", "frames": "even", "size": 32, "scale": 36}
    assert len(model["sha256"]) == 64
    assert answer["limits"] == {
        "max_upload_bytes": 2_000_000,
        "max_pixels": 500_000,
        "max_duration_s": 600.0,
        "max_frames": 36_000,
        "max_decoded_pixels": 20_000_000_000,
        "max_streams": 64,
        "max_edits": 1000,
        "request_timeout_s": 30.0,
        "decode_sandbox": ["seccomp", "landlock"],
    }


def test_one_model_by_name(server: RunningServer) -> None:
    assert server.get("/v1/models/tiny").json() == server.get("/v1/models").json()["models"][0]


def test_unknown_model_is_a_problem(server: RunningServer) -> None:
    answer = server.get("/v1/models/nonesuch")
    assert (answer.status_code, answer.json()["code"]) == (404, "model_not_found")
