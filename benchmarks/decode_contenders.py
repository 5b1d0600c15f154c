"""Ways to get the sampled frames of a clip, for processes of their own.

    python -m benchmarks.decode_contenders NAME

Such a process reads jobs from its standard input, a JSON line each, and answers each with a line: the time it
took, and which frames they turned out to be. Every contender starts from the file's name and ends with uint8
arrays at both of the network's sizes. What decides which frames are meant, the indices, they are told.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.decode_clips import read_stamp
from service.clip.geometry import crop_boxes, scaled_size
from service.clip.spec import ClipSpec, Frames, InputSpec

FRAMES = 16
LITTLE, BIG = 224, 112
SPEC = ClipSpec(
    FRAMES, (InputSpec("little", Frames.EVEN, LITTLE, LITTLE), InputSpec("big", Frames.ODD, BIG, BIG))
)

Images = list[NDArray[np.uint8]]


@dataclass(frozen=True)
class Job:
    """A clip, what of it is wanted, and the cores that it may have."""

    path: str
    width: int
    height: int
    indices: tuple[int, ...]
    cores: int

    @property
    def scaled(self) -> tuple[int, int]:
        """Width and height of the frames for the little branch before the crop."""
        return scaled_size(self.width, self.height, LITTLE)


def ours(job: Job) -> Images:
    """This project."""
    from service.clip.decode import decode_clip

    clip = decode_clip(Path(job.path), SPEC, threads=job.cores)
    assert clip.indices[0] == job.indices
    images: Images = [np.empty(0, np.uint8)] * FRAMES
    images[0::2], images[1::2] = list(clip.inputs["little"][0]), list(clip.inputs["big"][0])
    return images


def pyav(job: Job) -> Images:
    """PyAV, all decoded with its own choice of threads, the wanted frames to RGB and resized by OpenCV."""
    import av

    wanted = set(job.indices)
    found = {}
    with av.open(job.path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for index, frame in enumerate(container.decode(stream)):
            if index in wanted:
                found[index] = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
    return _resized([found[index] for index in job.indices])


def torchcodec_exact(job: Job) -> Images:
    """torchcodec, which first reads all packets to know where frames are."""
    return _torchcodec(job, "exact")


def torchcodec_approximate(job: Job) -> Images:
    """torchcodec, which trusts the header."""
    return _torchcodec(job, "approximate")


def _torchcodec(job: Job, mode: str) -> Images:
    decoders = import_module("torchcodec.decoders")  # of the `bench` extra, which may be absent
    decoder = decoders.VideoDecoder(job.path, seek_mode=mode, dimension_order="NHWC", num_ffmpeg_threads=0)
    return _resized(list(decoder.get_frames_at(list(job.indices)).data.numpy()))


def decord2(job: Job) -> Images:
    """decord2, which scales by itself."""
    decord = import_module("decord")
    width, height = job.scaled
    reader = decord.VideoReader(job.path, width=width, height=height)
    return _resized(list(reader.get_batch(list(job.indices)).asnumpy()))


def opencv(job: Job) -> Images:
    """OpenCV: `grab` for all frames, `retrieve` for those wanted."""
    wanted = set(job.indices)
    capture = cv2.VideoCapture(job.path)
    found = {}
    for index in range(max(wanted) + 1):
        if not capture.grab():
            break
        if index in wanted:
            rgb = cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB)
            found[index] = np.asarray(rgb, np.uint8)
    capture.release()
    return _resized([found[index] for index in job.indices])


def ffmpeg(job: Job) -> Images:
    """The ffmpeg command line, which selects and scales."""
    width, height = job.scaled
    chosen = "+".join(f"eq(n\\,{index})" for index in job.indices)
    command = [
        "ffmpeg",
        "-v",
        "error",
        "-i",
        job.path,
        "-an",
        "-vf",
        f"select={chosen},scale={width}:{height}",
    ]
    command += ["-vsync", "0", "-frames:v", str(len(job.indices)), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    output = subprocess.run(command, check=True, capture_output=True).stdout
    return _resized(list(np.frombuffer(output, np.uint8).reshape(-1, height, width, 3)))


CONTENDERS: dict[str, Callable[[Job], Images]] = {
    "ours": ours,
    "PyAV": pyav,
    "torchcodec exact": torchcodec_exact,
    "torchcodec approximate": torchcodec_approximate,
    "decord2": decord2,
    "OpenCV": opencv,
    "ffmpeg": ffmpeg,
}


def _resized(frames: Sequence[NDArray[np.uint8]]) -> Images:
    """Centre crops of the frames at the sizes of the two branches in turn."""
    return [_crop(frame, (LITTLE, BIG)[moment % 2]) for moment, frame in enumerate(frames)]


def _crop(frame: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    height, width, _ = frame.shape
    target = scaled_size(width, height, size)
    if (width, height) != target:
        frame = np.asarray(cv2.resize(frame, target, interpolation=cv2.INTER_AREA), np.uint8)
    (crop,) = crop_boxes(*target, size, 1)
    return np.ascontiguousarray(frame[crop.top : crop.top + size, crop.left : crop.left + size])


def _cpu_s() -> float:
    """Processor time of this process and of those it waited for."""
    parts = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(part.ru_utime + part.ru_stime for part in parts)


def answer(contender: Callable[[Job], Images], job: Job) -> dict[str, Any]:
    """Do the job; milliseconds of wall and processor time, and the numbers that the frames show."""
    began, cpu_began = time.perf_counter(), _cpu_s()
    try:
        images = contender(job)
    except Exception as exc:  # noqa: BLE001 - a peer may fail in any way on any clip; the table says so
        return {"error": f"{type(exc).__name__}: {exc}"[:200]}
    wall_ms, cpu_ms = 1e3 * (time.perf_counter() - began), 1e3 * (_cpu_s() - cpu_began)
    numbers = [read_stamp(image) for image in images]
    return {"wall_ms": round(wall_ms, 2), "cpu_ms": round(cpu_ms, 2), "numbers": numbers}


def answer_jobs(name: str) -> None:
    """Answer jobs until there are no more."""
    for line in sys.stdin:
        fields = json.loads(line)
        job = Job(**(fields | {"indices": tuple(fields["indices"])}))
        print(json.dumps(answer(CONTENDERS[name], job)), flush=True)


if __name__ == "__main__":
    answer_jobs(sys.argv[1])
