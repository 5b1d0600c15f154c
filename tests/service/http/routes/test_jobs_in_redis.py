"""/v1/jobs while Redis is down, and after it has come back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.common.service_process import free_port
from service.settings import BadSetting, load_settings
from tests.service.http.routes.test_classify import assert_problem
from tests.service.http.routes.test_jobs import SLOW, ended, submit
from tests.support.redis_server import on_disk, redis_server
from tests.support.server import running_server
from tests.support.tiny_models import colour_clip


def assert_unavailable(answer: httpx.Response) -> None:
    assert_problem(answer, "jobs_unavailable")
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0


def test_accepted_jobs_survive_the_death_of_redis(tiny_models: Path, tmp_path: Path) -> None:
    port = free_port()
    with (
        running_server(tiny_models, JOBS_REDIS_URL=f"redis://127.0.0.1:{port}") as server,
        server.client() as client,
    ):
        with redis_server(port, *on_disk(tmp_path)) as redis:
            first = submit(client, SLOW, kind="timeline", window_s=4)
            second = submit(client, colour_clip((0, 0, 255)))
            path = f"/v1/jobs/{first['id']}"
            server.wait_for(lambda: client.get(path).json()["state"] == "running", "a running job")
            redis.kill()
        for method, url in (("GET", path), ("GET", f"{path}/result"), ("DELETE", path), ("POST", "/v1/jobs")):
            assert_unavailable(client.request(method, url, content=b"video" if method == "POST" else None))
        assert client.get("/readyz").is_success
        assert "blvnet_jobs{" not in client.get("/metrics").text
        with redis_server(port, *on_disk(tmp_path)):
            done = ended(server, client, first["id"])
            assert (done["state"], done["result"]["summary"]["windows"]) == ("done", 4)
            assert ended(server, client, second["id"])["result"]["predictions"][0]["label"] == "blue"
            assert server.metric("blvnet_jobs", state="done") == 2


def test_results_that_fill_the_limit_stop_submissions(tiny_models: Path, redis_address: str) -> None:
    settings: dict[str, Any] = {"JOBS_REDIS_URL": f"{redis_address}/5", "JOBS_PENDING_MB": 0.001}
    with running_server(tiny_models, **settings) as server, server.client() as client:
        clip = colour_clip((0, 255, 0))
        job = ended(server, client, submit(client, clip, evidence=True, top_k=3)["id"])
        job_ids = [job["id"]]
        while (answer := client.post("/v1/jobs", content=clip)).is_success:
            job_ids.append(ended(server, client, answer.json()["id"])["id"])
        assert_problem(answer, "overloaded")
        for job_id in job_ids:
            client.delete(f"/v1/jobs/{job_id}")
        submit(client, clip)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"jobs_redis_url": "localhost:6379"}, r"^BLVNET_JOBS_REDIS_URL \(--jobs-redis-url\): it must start"),
        (
            {"jobs_redis_url": "redis://user:secret@host", "jobs_dir": "jobs"},
            r"^BLVNET_JOBS_REDIS_URL \(--jobs-redis-url\): it cannot be combined with BLVNET_JOBS_DIR$",
        ),
    ],
)
def test_address_that_cannot_be_used_is_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(BadSetting, match=message):
        load_settings(options)
