"""Posts the corpus to a real service and checks for forbidden effects.

A listener runs at the address that files reference, a secret is stored at the referenced path, and in the
first pass a valid video is posted after every file.
"""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.hostile.corpus import corpus
from tests.hostile.item import FRAMES, Item, Lure, base
from tests.support.server import RunningServer

# The documented time limit of an answer.
PROMISE_S = 10.0
SECRET = b"The canary is called Caruso."
REFUSALS = {400, 413, 415, 422}
# Answers must not contain paths, memory addresses, or messages of FFmpeg and Python.
TELLTALE = re.compile(
    r"(?<![\w/])/(?:tmp|proc|home|usr|opt|root|etc)/|0x[0-9a-f]{6}|errno|traceback|avcodec|libav", re.I
)


class Listener:
    """Counts connections to a loopback address."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.connections = 0
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._count, daemon=True)
        self._thread.start()

    def _count(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            connection.close()

    def close(self) -> None:
        """Stop listening."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


@dataclass
class Report:
    """The result of a run: descriptions of faults, and counts of answers."""

    faults: list[str] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    slowest: tuple[float, str] = (0.0, "")
    items: int = 0
    first: dict[str, str] = field(default_factory=dict)
    memory_mb: list[float] = field(default_factory=list)


@contextmanager
def lured(folder: Path) -> Iterator[tuple[Lure, Listener]]:
    """The address of the listener and the path of the secret."""
    listener = Listener()
    secret = folder / "canary.mp4"
    secret.write_bytes(base() + SECRET)
    try:
        yield Lure(listener.url, str(secret)), listener
    finally:
        listener.close()


def run(
    server: RunningServer,
    folder: Path,
    passes: int,
    told: Callable[[str], object] = lambda _: None,
    chosen: Callable[[Item], bool] = lambda _: True,
) -> Report:
    """Post the whole corpus `passes` times.

    Args:
        server: the service; its temporary folder is `folder`/tmp.
        folder: folder for the secret.
        passes: number of passes.
        told: called with lines of progress.
        chosen: selects the files.
    """
    report = Report()
    with lured(folder) as (lure, listener), server.client() as client:
        items = [item for item in corpus(lure) if chosen(item)]
        _post(client, Item("valid", "good", base(), FRAMES), report)
        for number in range(passes):
            for item in items:
                report.items += 1
                _post(client, item, report)
                if item.frames is None and number == 0:
                    _post(client, Item("good after", item.name, base(), FRAMES), report)
                if listener.connections:
                    report.faults.append(f"{item.category}/{item.name}: a connection was made")
                    listener.connections = 0
            report.memory_mb.append(memory_mb(server.process.pid))
            told(f"pass {number + 1}: {report.memory_mb[-1]:.0f} MB, {dict(report.answers)}")
    left = [path.name for path in (folder / "tmp").iterdir()]
    report.faults += [f"left behind: {name}" for name in left]
    return report


def _post(client: httpx.Client, item: Item, report: Report) -> None:
    what = f"{item.category}/{item.name}"
    began = time.monotonic()
    try:
        answer = client.post("/v1/classify", **_body(item))
    except httpx.TransportError as exc:
        report.faults.append(f"{what}: the connection was dropped: {exc!r}")
        return
    took_s = time.monotonic() - began
    report.slowest = max(report.slowest, (took_s, what))
    told = f"{answer.status_code} {answer.json().get('code', '')}".strip()
    report.answers[told] += 1
    if (first := report.first.setdefault(what, told)) != told:
        report.faults.append(f"{what}: first {first}, then {told}")
    report.faults += [f"{what}: {fault}" for fault in _faults(item, answer, took_s)]


def _body(item: Item) -> dict[str, Any]:
    """The request body: raw, or a form if there is a file name, which is inserted without escaping."""
    if item.file_name is None:
        return {"content": item.data}
    name = item.file_name.encode("utf-8", "surrogatepass")
    head = b'--BOUNDARY\r\nContent-Disposition: form-data; name="file"; filename="' + name + b'"\r\n\r\n'
    body = head + item.data + b"\r\n--BOUNDARY--\r\n"
    return {"content": body, "headers": {"Content-Type": "multipart/form-data; boundary=BOUNDARY"}}


def _faults(item: Item, answer: httpx.Response, took_s: float) -> Iterator[str]:
    document = answer.json()
    if took_s > PROMISE_S:
        yield f"answered after {took_s:.1f} s"
    if SECRET.decode() in answer.text or TELLTALE.search(answer.text):
        yield f"tells too much: {answer.text[:300]}"
    if answer.status_code == 200:
        video = document["video"]
        if item.frames is not None and video["frames"] != item.frames:
            yield f"{video['frames']} frames, not {item.frames}"
        if item.size is not None and (video["width"], video["height"]) != item.size:
            yield f"{video['width']}x{video['height']}, not {item.size}"
        if item.category == "photograph":
            yield "a photograph passes for a video"
    elif item.frames is not None and not (item.category == "name" and answer.status_code == 400):
        yield f"a sound clip is refused: {document}"
    elif answer.status_code not in REFUSALS:
        yield f"{answer.status_code}: {document}"
    elif document["code"] == "over_limit" and not {"limit", "value", "maximum"} <= document.keys():
        yield f"does not say which limit: {document}"


def memory_mb(root: int) -> float:
    """Resident memory of a process tree, counting shared memory in each process."""
    pids, total = [root], 0.0
    for pid in pids:
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            fields = Path(f"/proc/{pid}/statm").read_text().split()
        except (FileNotFoundError, ProcessLookupError):  # a worker that has ended in the meantime
            continue
        pids.extend(map(int, children))
        total += (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE") / 1e6
    return total
