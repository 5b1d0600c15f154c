"""The frame cache: the pixels of decoding, built once, never out of date, bad files named."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event

import numpy as np
import pytest

from model_export.datasets import Example
from model_export.training.clips.frame_cache import FrameCache, all_frames, open_cache
from service.clip.decoding.clips import decode_video
from service.clip.spec import ClipSpec, Frames, InputSpec
from service.errors import BlvnetError
from tests.support.clips import numbered_clip, numbered_pictures, read_numbers

SPEC = ClipSpec(
    frames=4, inputs=(InputSpec("little", Frames.EVEN, 32, 32), InputSpec("big", Frames.ODD, 16, 16))
)


@pytest.fixture
def videos(tmp_path: Path) -> list[Path]:
    """Two clips of 8 and 12 numbered frames."""
    paths = [tmp_path / "a.mp4", tmp_path / "b.mp4"]
    for path, frames in zip(paths, (8, 12), strict=True):
        path.write_bytes(numbered_clip(frames=frames))
    return paths


def ignore(_: int) -> None:
    pass


def cache_of(
    paths: list[Path], phases: int, folder: Path, *, jobs: int = 1, advance: Callable[[int], None] = ignore
) -> FrameCache:
    return open_cache([Example(path, 0) for path in paths], SPEC, phases, folder, jobs=jobs, advance=advance)


def refuse(_: int) -> None:
    pytest.fail("the cache was built again")


def test_cache_holds_all_frames_of_every_phase(videos: list[Path], tmp_path: Path) -> None:
    cache = cache_of(videos, 2, tmp_path / "cache")
    little, big = cache.arrays
    assert little.shape == (2, 2, 4, 32, 32, 3)
    assert big.shape == (2, 2, 4, 16, 16, 3)
    assert [read_numbers(view) for view in little[0]] == [[0, 2, 4, 6], [1, 3, 5, 7]]
    assert [read_numbers(view) for view in big[1]] == [[0, 3, 6, 9], [2, 5, 8, 11]]
    assert cache.unreadable == ()


def test_cached_pixels_are_those_of_decoding(videos: list[Path], tmp_path: Path) -> None:
    cache = cache_of(videos, 3, tmp_path / "cache", jobs=2)
    decoded = decode_video(videos[1], all_frames(SPEC), clips=3)
    for array, item in zip(cache.arrays, SPEC.inputs, strict=True):
        np.testing.assert_array_equal(array[1], decoded.inputs[item.name])


def test_second_opening_decodes_nothing(videos: list[Path], tmp_path: Path) -> None:
    first = cache_of(videos, 1, tmp_path / "cache")
    again = cache_of(videos, 1, tmp_path / "cache", advance=refuse)
    np.testing.assert_array_equal(first.arrays[0], again.arrays[0])


def test_changed_file_is_decoded_again(videos: list[Path], tmp_path: Path) -> None:
    cache_of(videos, 1, tmp_path / "cache")
    videos[0].write_bytes(numbered_clip(frames=16))
    cache = cache_of(videos, 1, tmp_path / "cache")
    assert read_numbers(cache.arrays[0][0, 0]) == [2, 6, 10, 14]


def test_unreadable_file_is_named_and_the_others_are_cached(videos: list[Path], tmp_path: Path) -> None:
    videos[0].write_text("no video")
    missing_frames = cache_of(videos, 1, tmp_path / "cache")
    again = cache_of(videos, 1, tmp_path / "cache", advance=refuse)
    assert [item.path for item in missing_frames.unreadable] == [videos[0]]
    assert "NotAVideo" in missing_frames.unreadable[0].reason
    assert again.unreadable == missing_frames.unreadable
    assert read_numbers(again.arrays[0][1, 0]) == [1, 4, 7, 10]


def test_unreadable_file_is_found_however_its_path_is_written(
    videos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos[0].write_text("no video")
    monkeypatch.chdir(tmp_path)
    cache_of([Path(path.name) for path in videos], 1, tmp_path / "cache")
    cache = cache_of(videos, 1, tmp_path / "cache", advance=refuse)
    assert cache.rows == (1,)
    assert [item.path for item in cache.unreadable] == [videos[0]]


def test_bad_span_of_a_folder_leaves_its_other_spans(tmp_path: Path) -> None:
    folder = numbered_pictures(tmp_path / "pictures", range(8))
    clips = [Example(folder, 0, span) for span in ((1, 4), (5, 12), (5, 8))]
    cache = open_cache(clips, SPEC, 1, tmp_path / "cache", jobs=1, advance=ignore)
    assert cache.rows == (0, 2)
    assert [item.reason for item in cache.unreadable] == [
        "Undecodable: the folder contains 8 pictures, the list says 12"
    ]
    assert read_numbers(cache.arrays[0][2, 0]) == [4, 5, 6, 7]


def test_link_to_nothing_is_named_and_the_others_are_cached(videos: list[Path], tmp_path: Path) -> None:
    link = tmp_path / "link.mp4"
    link.symlink_to(tmp_path / "unmounted.mp4")
    cache = cache_of([link, videos[1]], 1, tmp_path / "cache")
    assert [item.path for item in cache.unreadable] == [link]
    assert read_numbers(cache.arrays[0][1, 0]) == [1, 4, 7, 10]
    (tmp_path / "unmounted.mp4").write_bytes(videos[0].read_bytes())
    assert cache_of([link, videos[1]], 1, tmp_path / "cache").unreadable == ()


def test_runs_that_need_the_same_cache_at_the_same_time_build_it_once(
    videos: list[Path], tmp_path: Path
) -> None:
    building, proceed = Event(), Event()

    def pause(_: int) -> None:
        building.set()
        assert proceed.wait(60)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache_of, videos, 1, tmp_path / "cache", advance=pause)
        assert building.wait(60)
        second = pool.submit(cache_of, videos, 1, tmp_path / "cache", advance=refuse)
        with suppress(TimeoutError):
            second.exception(1)
        proceed.set()
        caches = [first.result(60), second.result(60)]
    for cache in caches:
        assert cache.unreadable == ()
        assert read_numbers(cache.arrays[0][1, 0]) == [1, 4, 7, 10]
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_cache_without_a_readable_file_is_refused_and_removed(tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_text("no video")
    with pytest.raises(BlvnetError, match="none of 1 files can be read; the first: NotAVideo"):
        cache_of([bad], 1, tmp_path / "cache")
    with pytest.raises(BlvnetError, match="none of 1 files"):
        cache_of([bad], 1, tmp_path / "cache")


def test_every_file_is_counted(videos: list[Path], tmp_path: Path) -> None:
    counts: list[int] = []
    cache_of(videos, 1, tmp_path / "cache", advance=counts.append)
    assert counts == [1, 1]


def test_cache_of_a_folder_of_pictures_is_rebuilt_when_one_is_added(
    videos: list[Path], tmp_path: Path
) -> None:
    folder = numbered_pictures(tmp_path / "pictures", range(8))
    cache = cache_of([videos[1], folder], 1, tmp_path / "cache")
    assert read_numbers(cache.arrays[0][1, 0]) == [1, 3, 5, 7]
    numbered_pictures(folder, range(12))
    cache = cache_of([videos[1], folder], 1, tmp_path / "cache")
    assert read_numbers(cache.arrays[0][1, 0]) == [1, 4, 7, 10]


def test_spans_of_one_folder_are_cached_separately(tmp_path: Path) -> None:
    folder = numbered_pictures(tmp_path / "pictures", range(8))
    for first, numbers in ((1, [0, 1, 2, 3]), (5, [4, 5, 6, 7])):
        clip = Example(folder, 0, (first, first + 3))
        cache = open_cache([clip], SPEC, 1, tmp_path / "cache", jobs=1, advance=ignore)
        assert read_numbers(cache.arrays[0][0, 0]) == numbers


def test_cache_that_does_not_fit_on_the_disk_is_refused_before_it_is_built(
    videos: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(BlvnetError, match=r"takes 307200\.0 GB, .* has .* GB: train with --no-cached"):
        cache_of(videos, 10**10, tmp_path / "cache", advance=refuse)
    assert list((tmp_path / "cache").iterdir()) == []
