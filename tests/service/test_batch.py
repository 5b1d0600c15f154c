"""`blvnet batch` over folders, listings and S3: one row for each video, even if it is killed in between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer
from ray.cluster_utils import Cluster

from tests.service.test_cli import blvnet
from tests.support.processes import descendants, stat
from tests.support.server import PATIENCE_S, server_environment
from tests.support.tiny_models import TinyModel, colour_clip, write_package

VIDEOS = 40
BUCKET = "videos"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "id",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "eu-west-1",
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models; `slow` takes a noticeable time for each video."""
    models = tmp_path_factory.mktemp("models")
    write_package(models, "quick")
    write_package(models, "slow", model=TinyModel(work=400))
    return models


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A red and a blue video, a broken one, and a file that is not a video."""
    folder = tmp_path_factory.mktemp("videos")
    (folder / "red.mp4").write_bytes(colour_clip((255, 0, 0)))
    (folder / "blue.webm").write_bytes(colour_clip((0, 0, 255)))
    (folder / "broken.mp4").write_bytes(b"just words. " * 100)
    (folder / "notes.md").write_text("no video")
    return folder


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[str]:
    """An S3 bucket with `VIDEOS` videos; the environment names its endpoint."""
    server = ThreadedMotoServer(port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name, value in CREDENTIALS.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
        for number in range(VIDEOS):
            client.upload_file(str(folder / "red.mp4"), BUCKET, f"in/{number:03d}.mp4")
        yield f"s3://{BUCKET}/in"
    finally:
        server.stop()


def rows(path: Path) -> dict[str, dict[str, Any]]:
    """Rows by file name."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert max(Counter(line["clip"] for line in lines).values()) == 1
    return {Path(line["clip"]).name: line for line in lines}


def test_folder_has_a_row_for_each_video_with_errors_as_rows(
    folder: Path, models: Path, tmp_path: Path
) -> None:
    out = tmp_path / "rows.jsonl"
    options = ["--models", models, "--model", "quick", "--model", "slow", "--top-k", 1]
    done = blvnet("batch", folder, "--out", out, *options)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "1 of 3 videos have an error" in done.stderr
    assert "classified 3 of 3 videos" in done.stderr
    found = rows(out)
    assert set(found) == {"red.mp4", "blue.webm", "broken.mp4"}
    red = [(item["model"], item["predictions"][0]["label"]) for item in found["red.mp4"]["results"]]
    assert red == [("quick", "red"), ("slow", "red")]
    assert found["broken.mp4"]["error"]["code"] == "not_a_video"
    before = out.read_bytes()
    again = blvnet("batch", folder, "--out", out, *options)
    assert (again.returncode, f"{out} has 3 of 3 rows" in again.stderr) == (0, True)
    assert out.read_bytes() == before


def test_listing_becomes_parquet_that_grows(folder: Path, models: Path, tmp_path: Path) -> None:
    (listing := tmp_path / "list.txt").write_text(f"{folder}/red.mp4\nmissing.mp4\n{folder}/red.mp4\n")
    out = tmp_path / "rows.parquet"
    done = blvnet("batch", listing, "--out", out, "--models", models)
    assert done.returncode == 0, done.stderr
    table = pq.read_table(out).to_pylist()
    assert sorted(Path(row["clip"]).name for row in table) == ["missing.mp4", "red.mp4"]
    listing.write_text(f"{folder}/red.mp4\n{folder}/blue.webm\n")
    assert blvnet("batch", listing, "--out", out, "--models", models).returncode == 0
    table = pq.read_table(out).to_pylist()
    labels = {
        Path(row["clip"]).name: [item["predictions"][0]["label"] for item in row["results"]] for row in table
    }
    assert labels == {"red.mp4": ["red"], "missing.mp4": [], "blue.webm": ["blue"]}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["list.txt", "rows.parquet"]


@pytest.mark.parametrize("name", ["rows.parquet", "rows.jsonl"])
def test_run_that_writes_no_row_leaves_no_file(folder: Path, models: Path, tmp_path: Path, name: str) -> None:
    done = blvnet("batch", folder, "--out", tmp_path / name, "--models", models, "--model", "missing")
    assert (done.returncode, "no model 'missing'" in done.stderr) == (1, True), done.stderr
    assert list(tmp_path.iterdir()) == []


def test_names_that_are_not_utf8_become_parquet(models: Path, tmp_path: Path) -> None:
    (folder := tmp_path / "videos").mkdir()
    (folder / os.fsdecode(b"\xff.mp4")).write_bytes(colour_clip((255, 0, 0)))
    out = tmp_path / "rows.parquet"
    for rows in ("", f"{out} has 1 of 1 rows"):
        done = blvnet("batch", folder, "--out", out, "--models", models)
        assert (done.returncode, rows in done.stderr) == (0, True), done.stderr
        assert [Path(row["clip"]).name for row in pq.read_table(out).to_pylist()] == [r"\udcff.mp4"]


def test_wrong_sources_and_files_are_one_line(folder: Path, models: Path, tmp_path: Path) -> None:
    (other := tmp_path / "other.jsonl").write_text('{"a": 1}\n')
    (document := tmp_path / "document.jsonl").write_text('{"a": 1}')
    (table := tmp_path / "table.parquet").write_bytes(b"")
    pq.write_table(pa.table({"clip": ["a"], "label": ["b"]}), table)
    before = table.read_bytes()
    for source, out, message in (
        (tmp_path / "none", tmp_path / "a.jsonl", "no video"),
        ("s3://bucket/folder", tmp_path / "a.jsonl", "s3://bucket/folder: Unable to locate credentials"),
        (folder, tmp_path / "a.txt", ".jsonl or .parquet"),
        (folder, other, "not the file of a batch"),
        (folder, document, "not the file of a batch"),
        (folder, table, "it has the columns clip, label"),
    ):
        done = blvnet("batch", source, "--out", out, "--models", models, AWS_EC2_METADATA_DISABLED="true")
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done.stderr
        assert message in done.stderr
    assert document.read_text() == '{"a": 1}'
    assert table.read_bytes() == before


def workers_of(process: subprocess.Popen[bytes]) -> list[int]:
    """Decode workers: the processes below the fork server."""
    return [pid for pid in descendants(process.pid) if int(stat(pid)[1]) in children_of(process)]


def children_of(process: subprocess.Popen[bytes]) -> set[int]:
    return {pid for pid in descendants(process.pid) if int(stat(pid)[1]) == process.pid}


def wait_for_rows(out: Path, number: int, driver: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not out.exists() or out.read_bytes().count(b"\n") < number:
        assert driver.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_bucket_survives_the_death_of_the_driver_and_of_a_worker(
    bucket: str, models: Path, tmp_path: Path
) -> None:
    out = tmp_path / "rows.jsonl"
    program = [str(Path(sys.executable).with_name("blvnet")), "batch", bucket, "--out", str(out)]
    program += ["--models", str(models), "--model", "slow"]

    (copies := tmp_path / "copies").mkdir()
    environment = server_environment({}) | {"TMPDIR": str(copies)}
    with subprocess.Popen(program, env=environment, stderr=subprocess.DEVNULL) as driver:
        wait_for_rows(out, 5, driver)
        driver.kill()
    assert list(copies.iterdir()) == []
    finished = out.read_bytes().rpartition(b"\n")[0]
    with out.open("ab") as file:
        file.write(b'{"clip": "s3://vid')  # a row that was not complete
    with subprocess.Popen(program, env=environment, stderr=subprocess.PIPE) as driver:
        wait_for_rows(out, finished.count(b"\n") + 5, driver)
        os.kill(workers_of(driver)[0], signal.SIGKILL)
        _, errors = driver.communicate(timeout=PATIENCE_S)
    assert driver.returncode == 0, errors
    found = rows(out)
    assert len(found) == VIDEOS
    assert {row["results"][0]["predictions"][0]["label"] for row in found.values()} == {"red"}
    assert out.read_bytes().startswith(finished)  # no row was written again
    assert list(copies.iterdir()) == []


def test_loss_of_a_node_of_a_ray_cluster_costs_no_row(
    folder: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    for number in range(VIDEOS):
        (tmp_path / f"{number:03d}.mp4").symlink_to(folder / "red.mp4")
    out = tmp_path / "rows.jsonl"
    node = {"num_cpus": 1, "object_store_memory": 80_000_000}
    cluster = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
    try:
        lost = cluster.add_node(**node)
        program = [str(Path(sys.executable).with_name("blvnet")), "batch", str(tmp_path), "--out", str(out)]
        program += ["--models", str(models), "--model", "slow", "--ray", cluster.address]
        environment = server_environment({"RAY_USAGE_STATS_ENABLED": "0"})
        with subprocess.Popen(program, env=environment, stderr=subprocess.PIPE) as driver:
            wait_for_rows(out, VIDEOS // 4, driver)
            cluster.remove_node(lost, allow_graceful=False)
            _, errors = driver.communicate(timeout=PATIENCE_S)
    finally:
        cluster.shutdown()
    assert driver.returncode == 0, errors
    assert len(rows(out)) == VIDEOS  # each once, which `rows` checks
