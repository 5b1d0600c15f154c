"""Libraries that decode the sampled frames of a video, each run in its own process.

`python -m benchmarks.decode.libraries NAME` reads jobs from standard input, one JSON object per line, and
answers each with a line: the time it took and which frames the result shows. Every library starts from the
file name and ends with uint8 arrays at both input sizes of the network. The frame numbers are given.
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.decode.videos import read_stamp
from service.clip.geometry import crop_boxes, scaled_size
from service.clip.spec import ClipSpec, Frames, InputSpec

FRAMES = 16
LITTLE, BIG = 224, 112
SPEC = ClipSpec(
    FRAMES, (InputSpec("little", Frames.EVEN, LITTLE, LITTLE), InputSpec("big", Frames.ODD, BIG, BIG))
)
OURS = "ours"
THUMBNAIL = 28
# Largest differences in the mean grey level of a thumbnail: between a library's frame and the true one,
# because libraries convert and scale differently; and between frames that look the same, any of which counts
# as right.
MAX_DIFFERENCE = 12.0
TIE = 0.25

Images = list[NDArray[np.uint8]]


@dataclass(frozen=True)
class DecodeJob:
    """A video and the frames to decode.

    Attributes:
        path: The file.
        width: Width of the upright frames.
        height: Height of the upright frames.
        indices: Numbers of the wanted frames.
        cores: Cores that may be kept busy.
        thumbnails: A `.npy` file with the thumbnails of every frame at both input sizes,
            `(2, frames, THUMBNAIL, THUMBNAIL)`; None if the frames carry their numbers.
    """

    path: str
    width: int
    height: int
    indices: tuple[int, ...]
    cores: int
    thumbnails: str | None = None

    @property
    def scaled(self) -> tuple[int, int]:
        """Width and height of the frames of the little branch before the crop."""
        return scaled_size(self.width, self.height, LITTLE)


def ours(job: DecodeJob) -> Images:
    """This project."""
    from service.clip.decoding.clips import decode_video

    video = decode_video(Path(job.path), SPEC, threads=job.cores)
    assert video.indices[0] == job.indices
    images: Images = [np.empty(0, np.uint8)] * FRAMES
    images[0::2], images[1::2] = list(video.inputs["little"][0]), list(video.inputs["big"][0])
    return images


def pyav(job: DecodeJob) -> Images:
    """PyAV with its own choice of threads; decodes everything and resizes the wanted frames with OpenCV."""
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


def torchcodec_exact(job: DecodeJob) -> Images:
    """torchcodec, which reads all packets first to locate the frames."""
    return _torchcodec(job, "exact")


def torchcodec_approximate(job: DecodeJob) -> Images:
    """torchcodec, which trusts the header."""
    return _torchcodec(job, "approximate")


def _torchcodec(job: DecodeJob, mode: str) -> Images:
    decoders = import_module("torchcodec.decoders")  # optional, from the `bench` extra
    decoder = decoders.VideoDecoder(job.path, seek_mode=mode, dimension_order="NHWC", num_ffmpeg_threads=0)
    return _resized(list(decoder.get_frames_at(list(job.indices)).data.numpy()))


def decord2(job: DecodeJob) -> Images:
    """decord2, which scales the frames itself."""
    decord = import_module("decord")
    width, height = job.scaled
    reader = decord.VideoReader(job.path, width=width, height=height)
    return _resized(list(reader.get_batch(list(job.indices)).asnumpy()))


def opencv(job: DecodeJob) -> Images:
    """OpenCV: `grab` for every frame, `retrieve` for the wanted ones."""
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


def ffmpeg(job: DecodeJob) -> Images:
    """The ffmpeg command line, which selects and scales the frames."""
    width, height = job.scaled
    chosen = "+".join(f"eq(n\\,{index})" for index in sorted(set(job.indices)))
    filters = f"select={chosen},scale={width}:{height}"
    command = ["ffmpeg", "-v", "error", "-i", job.path, "-an", "-vf", filters, "-vsync", "0"]
    command += ["-frames:v", str(len(set(job.indices))), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    output = subprocess.run(command, check=True, capture_output=True).stdout
    frames = np.frombuffer(output, np.uint8).reshape(-1, height, width, 3)
    found = dict(zip(sorted(set(job.indices)), frames, strict=True))
    return _resized([found[index] for index in job.indices])


LIBRARIES: dict[str, Callable[[DecodeJob], Images]] = {
    OURS: ours,
    "PyAV": pyav,
    "torchcodec exact": torchcodec_exact,
    "torchcodec approximate": torchcodec_approximate,
    "decord2": decord2,
    "OpenCV": opencv,
    "ffmpeg": ffmpeg,
}
# The module that a library needs, and the distribution that has its version.
REQUIREMENTS = {
    "torchcodec exact": ("torchcodec", "torchcodec"),
    "torchcodec approximate": ("torchcodec", "torchcodec"),
    "decord2": ("decord", "decord2"),
    "OpenCV": ("cv2", "opencv-python-headless"),
    "PyAV": ("av", "av"),
}


def library_version(name: str) -> str | None:
    """Return the version of a library; None if it is not installed or does not load."""
    if name == "ffmpeg":
        if not shutil.which("ffmpeg"):
            return None
        banner = subprocess.run(["ffmpeg", "-version"], check=True, capture_output=True, text=True).stdout
        return banner.split()[2]
    module, distribution = REQUIREMENTS.get(name, ("av", "blvnet-serve"))
    # A module may be installed and lack a shared library, so it is imported for real.
    command = [sys.executable, "-c", f"import {module}"]
    if not find_spec(module) or subprocess.run(command, check=False, capture_output=True).returncode:
        return None
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown"


def _resized(frames: Sequence[NDArray[np.uint8]]) -> Images:
    """Scale and crop the frames to the input sizes of the two branches in turn."""
    images: Images = []
    for moment, frame in enumerate(frames):
        size = (LITTLE, BIG)[moment % 2]
        height, width, _ = frame.shape
        target = scaled_size(width, height, size)
        scaled = frame
        if (width, height) != target:
            scaled = np.asarray(cv2.resize(frame, target, interpolation=cv2.INTER_AREA), np.uint8)
        (crop,) = crop_boxes(*target, size, 1)
        images.append(np.ascontiguousarray(scaled[crop.top : crop.top + size, crop.left : crop.left + size]))
    return images


def thumbnail(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Reduce a square `(S, S, 3)` image to grey levels `(THUMBNAIL, THUMBNAIL)`."""
    grey = image.mean(axis=2, dtype=np.float32)
    return np.asarray(cv2.resize(grey, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA), np.float32)


def shown_number(image: NDArray[np.uint8], thumbnails: NDArray[np.float32], expected: int) -> int:
    """Return the number of the frame that an image shows; `expected` if that is as similar, -1 if none is."""
    differences = np.abs(thumbnails - thumbnail(image)).mean(axis=(1, 2))
    nearest = int(differences.argmin())
    if differences[expected] <= differences[nearest] + TIE:
        nearest = expected
    return nearest if differences[nearest] <= MAX_DIFFERENCE else -1


def _cpu_s() -> float:
    """CPU time of this process and its finished children."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def answer(library: Callable[[DecodeJob], Images], job: DecodeJob) -> dict[str, Any]:
    """Do a job. Return milliseconds of wall and CPU time and the numbers of the frames, or the error."""
    began, cpu_began = time.perf_counter(), _cpu_s()
    try:
        images = library(job)
    except Exception as exc:  # noqa: BLE001 - a library may fail in any way; the report names the error
        return {"error": " ".join(f"{type(exc).__name__}: {exc}".split())[:200]}
    wall_ms, cpu_ms = 1e3 * (time.perf_counter() - began), 1e3 * (_cpu_s() - cpu_began)
    if job.thumbnails:
        thumbnails = np.load(job.thumbnails)
        numbers = [
            shown_number(image, thumbnails[moment % 2], index)
            for moment, (image, index) in enumerate(zip(images, job.indices, strict=True))
        ]
    else:
        numbers = [read_stamp(image) for image in images]
    return {"wall_ms": round(wall_ms, 2), "cpu_ms": round(cpu_ms, 2), "numbers": numbers}


if __name__ == "__main__":
    for line in sys.stdin:
        fields = json.loads(line)
        job = DecodeJob(**(fields | {"indices": tuple(fields["indices"])}))
        print(json.dumps(answer(LIBRARIES[sys.argv[1]], job)), flush=True)
