"""The study: its plan, its data, its statistics, and the whole path in a small version."""

from __future__ import annotations

import math
import os
import re
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import torch
import typer

from benchmarks.common.report import RESULTS
from benchmarks.study import command, real
from benchmarks.study.data import FRAMES, Amount, RenderedClips, split_data
from benchmarks.study.latency import measure_latencies, network_of, read_latencies
from benchmarks.study.pictures import pair_shares
from benchmarks.study.plan import rows
from benchmarks.study.report import TEXT, at_chance, group_table, page_text, real_footage
from benchmarks.study.results import Results, RunKey
from benchmarks.study.runs import QUICK, Folders, train_run
from benchmarks.study.statistics import (
    Contrast,
    ContrastVerdict,
    Interval,
    compare,
    contrasts,
    difference_interval,
    holm,
    mean_interval,
    paired_p,
    steps_to_half,
    verdict,
)
from model_export.datasets import Example, Listing
from model_export.datasets.symmetry import Symmetry
from model_export.networks.registry import parse_architecture
from model_export.progress import ProgressReporter
from model_export.synthetic.tasks.events import ORDERS
from model_export.synthetic.tasks.names import Task
from model_export.synthetic.tasks.registry import TASKS
from model_export.training.clips.batches import Draw, SplitData, epoch_draws
from service.errors import BlvnetError
from service.packages.folders import bundled_models, scan_packages
from tests.support.clips import numbered_clip

PLAN = {row.name: row for row in rows()}


def result(
    seed: int = 0, top1: float = 0.5, rate: float = 0.1, validation: float = 0.5, **more: Any
) -> dict[str, Any]:
    return {"seed": seed, "rate": rate, "top1": top1, "curve": [[10, 1.0, validation]], "labels": 2} | more


def test_rows_have_their_own_names_and_start_from_rows_before_them() -> None:
    names = [row.name for row in rows()]
    assert len(set(names)) == len(names)
    for position, row in enumerate(rows()):
        for other in (row.starts_from, row.rate_from):
            assert other is None or other in names[:position]
        parse_architecture(row.architecture, num_classes=2, frames=row.frames, size=row.size)


def test_contrasts_compare_rows_of_the_plan_on_the_same_task() -> None:
    listed = contrasts()
    assert {contrast.question for contrast in listed} == {"1", "2", "3", "4", "stem", "taps"}
    for contrast in listed:
        assert PLAN[contrast.left].task is PLAN[contrast.right].task
        assert contrast.paper in ("left", "equal")


def test_question_four_has_five_seeds_and_both_initial_taps() -> None:
    compared = [contrast for contrast in contrasts() if contrast.question == "4"]
    assert {PLAN[name].seeds for contrast in compared for name in (contrast.left, contrast.right)} == {5}
    assert {PLAN[contrast.left].tam_init for contrast in compared} == {"shift", "paper"}


def test_progressive_rows_have_the_passes_of_a_row_from_scratch() -> None:
    stages = [row for row in rows() if row.name.endswith("-progressive")]
    assert [row.frames for row in stages] == [4, 8, 16, 32]
    assert sum(row.epochs for row in stages) == PLAN["events/blvnet-tam"].epochs


def test_training_at_equal_gmacs_has_equal_products_of_passes_and_frames() -> None:
    whole = PLAN["events/blvnet-tam"]
    for row in rows():
        if row.name.endswith("-equal-gmacs"):
            assert row.epochs * row.frames == whole.epochs * whole.frames


@pytest.mark.parametrize("frames", [4, 8, 32])
def test_clip_of_events_has_the_parts_in_the_order_of_its_label(frames: int) -> None:
    numbers = np.arange(2 * FRAMES, dtype=np.uint8).reshape(2, 4, 8, 1, 1, 1)
    pixels = np.broadcast_to(numbers, (2, 4, 8, 32, 32, 3))
    clip = parse_architecture("blvnet-tam-mini", num_classes=24, frames=frames, size=32).clip_spec()
    source = RenderedClips(Task.EVENTS, pixels, Amount(24, takes=2), clip)
    little, big = source.load(Draw(5, phase=1), Example(Path("clip"), 5))
    assert little.shape == (frames, 32, 32, 3)
    assert big.shape == (frames, 16, 16, 3)
    step = FRAMES // frames
    parts = [FRAMES + 8 * kind + at for kind in ORDERS[5] for at in range(step // 2, 8, step)]
    assert little[:, 0, 0, 0].tolist() == big[:, 0, 0, 0].tolist() == parts


def test_eight_orders_of_a_look_share_a_batch_and_looks_differ_in_which(tmp_path: Path) -> None:
    clip = parse_architecture("tsn-mini", num_classes=24, frames=4, size=32).clip_spec()
    data, validation = (
        split_data(Task.EVENTS, split, Amount(48, takes=2), clip, tmp_path) for split in ("train", "val")
    )
    assert [example.label for example in validation.listing.examples] == 2 * list(range(24))
    labels = [example.label for example in data.listing.examples]
    assert [sorted(labels[look : look + 24]) for look in (0, 24)] == [list(range(24))] * 2
    assert labels[:24] != labels[24:]
    for batch in epoch_draws(data.source, 8, torch.Generator().manual_seed(0)):
        assert len({draw.index // 24 for draw in batch}) == len({draw.phase for draw in batch}) == 1


def test_clips_are_rendered_once_and_belong_to_their_labels(tmp_path: Path) -> None:
    clip = parse_architecture("tsn-mini", num_classes=12, frames=4, size=32).clip_spec()
    amount = Amount(12, takes=2)
    first, again = (split_data(Task.APPEARANCE, "val", amount, clip, tmp_path) for _ in range(2))
    assert [example.label for example in first.listing.examples] == list(range(12))
    assert len(list(tmp_path.iterdir())) == 1
    takes = [first.source.load(Draw(3, phase), first.listing.examples[3])[0] for phase in (0, 1)]
    assert takes[0].shape == (4, 32, 32, 3)
    assert not np.array_equal(takes[0], takes[1])
    assert np.array_equal(again.source.load(Draw(3, 1), again.listing.examples[3])[0], takes[1])


def test_first_seed_chooses_the_learning_rate_of_the_others(tmp_path: Path) -> None:
    row = replace(PLAN["events/tsn"], rates=(0.1, 0.2), seeds=2)
    done = Results(tmp_path, [row])
    assert done.missing(row) == [RunKey(0, 0.1), RunKey(0, 0.2)]
    done.add(row, result(rate=0.1, validation=0.4, top1=0.9))
    assert (done.missing(row), done.judged(row)) == ([RunKey(0, 0.2)], [])
    done.add(row, result(rate=0.2, validation=0.6, top1=0.3))
    assert done.missing(row) == [RunKey(1, 0.2)]
    done.add(row, result(seed=1, rate=0.2))
    assert not done.missing(row)
    assert [found["seed"] for found in done.judged(row)] == [0, 1]


def test_result_that_a_crash_cut_off_is_missing_and_run_again(tmp_path: Path) -> None:
    row = replace(PLAN["events/tsn"], rates=(0.1,), seeds=2)
    done = Results(tmp_path, [row])
    done.add(row, result(rate=0.1))
    done.add(row, result(seed=1, rate=0.1))
    (path,) = tmp_path.iterdir()
    os.truncate(path, path.stat().st_size - 9)
    assert done.missing(row) == [RunKey(1, 0.1)]
    done.add(row, result(seed=1, rate=0.1))
    assert not done.missing(row)
    assert [found["seed"] for found in done.of(row)] == [0, 1]


def test_row_that_starts_from_another_waits_for_its_learning_rate(tmp_path: Path) -> None:
    start = replace(PLAN["motions/blvnet-tam"], rates=(0.1,))
    row = PLAN["real/blvnet-tam"]
    done = Results(tmp_path, [start, row])
    assert not done.missing(row)
    done.add(start, result(rate=0.1))
    assert done.missing(row) == [RunKey(0, 0.1)]


def test_row_with_another_number_of_frames_takes_the_learning_rate_of_its_network(tmp_path: Path) -> None:
    network = replace(PLAN["events/blvnet-tam"], rates=(0.1, 0.2))
    row = PLAN["frames/blvnet-tam-16"]
    done = Results(tmp_path, [network, row])
    done.add(network, result(rate=0.1, validation=0.4))
    assert not done.missing(row)
    done.add(network, result(rate=0.2, validation=0.6))
    assert done.missing(row) == [RunKey(0, 0.2)]
    done.add(row, result(rate=0.2))
    assert done.missing(row) == [RunKey(1, 0.2), RunKey(2, 0.2)]


def test_interval_of_seeds_is_that_of_student() -> None:
    # By hand: t(0.975, 2 degrees) = 4.3027, standard error 1 / sqrt(3).
    interval = mean_interval([1.0, 2.0, 3.0])
    assert (interval.mean, interval.low, interval.high) == pytest.approx((2, -0.4841, 4.4841), abs=1e-3)
    assert math.isnan(mean_interval([1.0]).low)


def test_difference_of_rows_is_that_of_welch() -> None:
    # Means 3 and 6 with variances 1 and 4 over three seeds each: t = -2.3238 with 2.9412 degrees of freedom.
    difference, p = difference_interval([2.0, 3.0, 4.0], [4.0, 6.0, 8.0])
    assert difference.mean == pytest.approx(-3)
    assert p == pytest.approx(0.1045, abs=5e-3)
    assert difference.low < -3 < difference.high
    assert difference_interval([0.5, 0.5], [0.25, 0.25])[1] == 0
    assert difference_interval([0.5, 0.5], [0.5, 0.5])[1] == 1


def test_holm_corrects_in_order_and_never_down() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])


def test_paired_test_counts_clips_that_one_run_alone_gets_right() -> None:
    left, right = result(predictions="ABABABAB"), result(predictions="BABABABA")
    assert paired_p(left, right) == pytest.approx(2 * 0.5**8)
    assert paired_p(left, left) == 1
    assert paired_p(left, result(predictions="AB")) is None


@pytest.mark.parametrize(
    ("paper", "mean", "half", "p", "expected"),
    [
        ("left", 0.2, 0.1, 0.01, ContrastVerdict.AGREES),
        ("left", -0.2, 0.1, 0.01, ContrastVerdict.DISAGREES),
        ("left", 0.2, 0.3, 0.2, ContrastVerdict.UNDECIDED),
        ("equal", 0.01, 0.02, 0.5, ContrastVerdict.AGREES),
        ("equal", 0.01, 0.2, 0.5, ContrastVerdict.UNDECIDED),
        ("equal", -0.2, 0.1, 0.01, ContrastVerdict.DISAGREES),
    ],
)
def test_verdict_needs_evidence_in_either_direction(
    paper: str, mean: float, half: float, p: float, expected: ContrastVerdict
) -> None:
    difference = Interval(mean, mean - half, mean + half, 5)
    assert verdict(Contrast("1", "a", "b", paper, ""), difference, p) is expected


def test_contrasts_that_have_not_run_count_in_the_correction() -> None:
    listed = [Contrast("1", "a", "b", "left", ""), Contrast("1", "a", "c", "left", "")]
    judged = {
        "a": [result(seed, 0.8 + seed / 100, predictions="AB") for seed in range(3)],
        "b": [result(seed, 0.4 + seed / 100, predictions="BA") for seed in range(3)],
        "c": [result(0)],
    }
    alone, both = compare(listed[:1], judged)[0], compare(listed, judged)
    assert alone.p is not None
    assert both[0].p == pytest.approx(2 * alone.p)
    assert (both[0].verdict, both[1].verdict) == (ContrastVerdict.AGREES, ContrastVerdict.NOT_RUN)
    assert both[0].per_seed == pytest.approx((0.5,) * 3)


def test_steps_to_half_are_counted_from_chance() -> None:
    curve = [[10, 1.0, 0.5], [20, 1.0, 0.74], [30, 1.0, 0.75]]
    assert steps_to_half(result() | {"curve": curve}) == 30
    assert steps_to_half(result() | {"curve": curve[:2]}) is None


def test_confusion_within_pairs_leaves_out_labels_that_are_their_own_reverse() -> None:
    spec = TASKS[Task.MOTIONS]
    position = {label: index for index, label in enumerate(spec.labels)}
    reverse = [position[spec.reversed[label]] for label in spec.labels]
    predictions = [index if index < 10 else reverse[index] for index in range(22)]
    found = result(predictions="".join(chr(ord("A") + label) for label in predictions))
    assert pair_shares([found], Task.MOTIONS) == (0.5, 0.5, 0.0)


def test_changed_clips_are_the_same_for_both_inputs() -> None:
    numbers = torch.arange(12).reshape(2, 6, 1, 1, 1)
    both = (numbers, numbers.expand(2, 6, 3, 3, 1))
    for change in (real.shuffled, real.middle_alone, real.backwards):
        little, big = change(both)
        assert torch.equal(little.expand_as(big), big)
    assert not torch.equal(real.shuffled(both)[0], numbers)
    assert torch.equal(real.shuffled(both)[0].sort(1).values, numbers)
    assert real.middle_alone(both)[0].flatten().tolist() == [3] * 6 + [9] * 6
    assert real.backwards(both)[0].flatten().tolist()[:3] == [5, 4, 3]


def test_reversed_swipes_are_counted_by_the_opposite_label() -> None:
    listing = Listing(
        ("left", "right", "star"),
        tuple(Example(Path("x"), k) for k in (0, 1, 2)),
        Symmetry((None,) * 3, (1, 0, None)),
    )
    clip = parse_architecture("tsn-mini", num_classes=3, frames=4, size=32).clip_spec()
    data = SplitData(
        listing, RenderedClips(Task.APPEARANCE, np.zeros((3, 32, 32, 32, 3), np.uint8), Amount(3), clip)
    )
    assert real.opposite_share([1, 1, 0], data) == 0.5


def test_real_rows_need_a_folder(tmp_path: Path) -> None:
    row = replace(PLAN["real/tsn"], starts_from=None)
    folders = Folders(tmp_path, tmp_path, None)
    with ProgressReporter() as reporter, pytest.raises(BlvnetError, match="need --gestures"):
        train_run(row, RunKey(0, 0.1), QUICK, folders, reporter, Event())


def test_real_footage_is_judged_forward_shuffled_still_and_backwards(tmp_path: Path) -> None:
    labels = ("left", "right", "star")
    for split, count in (("train", 2), ("val", 1)):
        for number, label in enumerate(labels):
            for clip in range(count):
                path = tmp_path / "footage" / split / label / f"{clip}.mp4"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(numbered_clip(frames=12 + 4 * number + clip))
    (tmp_path / "footage" / "groups.csv").write_text("0.mp4,E\n1.mp4,A\n")
    row = replace(PLAN["real/tsn"], starts_from=None, epochs=1, frames=4, size=32)
    folders = Folders(tmp_path / "cache", tmp_path / "runs", tmp_path / "footage")
    budget = replace(QUICK, batch=6)
    with ProgressReporter() as reporter:
        found = train_run(row, RunKey(0, 0.003), budget, folders, reporter, Event())
    assert found is not None
    assert (found["labels"], len(found["predictions"])) == (3, 3)
    # The network has no temporal module: it cannot see an order.
    assert found["shuffled_top1"] == found["top1"]
    assert {"middle_top1", "backwards_opposite"} < found.keys()
    assert found["top1_by_group"] == {"E": found["top1"]}
    page = real_footage([row], {row.name: [found]})
    assert "| network | seeds | forward | group E | frames shuffled | middle frame alone |" in page


def test_footage_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    for label in ("left", "right"):
        (tmp_path / "footage" / "val" / label).mkdir(parents=True)
    (tmp_path / "footage" / "val" / "left" / "0.mp4").write_bytes(b"no video")
    (tmp_path / "footage" / "val" / "right" / "0.mp4").write_bytes(numbered_clip(frames=12))
    clip = parse_architecture("tsn-mini", num_classes=2, frames=4, size=32).clip_spec()
    with ProgressReporter() as reporter:
        data = real.real_split(tmp_path / "footage", "val", clip, tmp_path / "cache", reporter)
    assert [example.label for example in data.listing.examples] == [1]
    assert len(data.source) == 1
    assert all(frames.any() for frames in data.source.load(Draw(0), data.listing.examples[0]))


def test_one_seed_is_neither_within_nor_outside_an_interval() -> None:
    first = {"events/tsn": [result(top1=0.55)], "events/blvnet": []}
    assert "55.0%; chance is 50.00%. One seed has no interval." in at_chance(first)
    both = {"events/tsn": [result(seed, top1=0.5 + seed / 100) for seed in (0, 1)], "events/blvnet": []}
    assert "chance, 50.00%, is within the interval" in at_chance(both)


def test_steps_to_half_of_a_row_are_the_median_of_its_seeds(tmp_path: Path) -> None:
    row = replace(PLAN["events/tsn"], rates=(0.1,))
    done = Results(tmp_path, [row])
    costs = {"gmacs": 1.0, "training_mb": 1.0}
    for seed, step in enumerate((100, 400, None)):
        curve = [[step or 400, 1.0, 0.9 if step else 0.5]]
        done.add(row, result(seed) | {"curve": curve} | costs)
    assert "| 250 (2 of 3) |" in group_table("events", "Events", [row], done)


def test_rows_with_the_same_network_share_a_latency(tmp_path: Path) -> None:
    names = ("events/tsn", "motions/tsn", "frames/tsn-16")
    shared = [replace(PLAN[name], rates=(0.1,), rate_from=None) for name in names]
    done = Results(tmp_path, shared)
    for row in shared:
        done.add(row, result() | {"curve": [[100, 1.0, 0.9]], "gmacs": 1.0, "training_mb": 1.0})
    assert "| 1.000 | 1.0 | - |" in group_table("events", "Events", shared, done)
    with ProgressReporter() as reporter:
        measure_latencies(shared, tmp_path, reporter, rounds=1)
    found = read_latencies(tmp_path)
    assert set(found) == {network_of(shared[0]), network_of(shared[2])}
    assert all(latency_ms > 0 for latency_ms in found.values())
    shown = f"| 1.000 | 1.0 | {found[network_of(shared[0])]:.1f} |"
    assert shown in group_table("events", "Events", shared, done)
    assert shown in group_table("motions", "Motions", shared, done)


def test_page_is_what_the_committed_results_say() -> None:
    done = Results(RESULTS / "study", rows())
    assert command.PAGE.read_text(encoding="utf-8") == page_text(rows(), done, command.PAGE.parent)


def test_card_of_the_bundled_network_includes_its_notes() -> None:
    [package] = scan_packages(bundled_models()).packages
    notes = (TEXT / "bundled.md").read_text(encoding="utf-8").strip()
    assert notes in (package.folder / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_unknown_row_is_refused(tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter, match="no row has a name like nonesuch"):
        command.main(chosen=["nonesuch"], results=tmp_path, page=tmp_path / "study.md")


def test_stopped_run_continues_to_the_result_of_one_that_was_not(tmp_path: Path) -> None:
    row = replace(PLAN["events/tsn"], epochs=1)
    stopped = Event()
    stopped.set()
    found = []
    with ProgressReporter() as reporter:
        for name, stops in (("a", [Event()]), ("b", [stopped, Event()])):
            folders = Folders(tmp_path / "clips", tmp_path / name, None)
            found.append([train_run(row, RunKey(0, 0.003), QUICK, folders, reporter, stop) for stop in stops])
    [whole], [interrupted, resumed] = found
    assert interrupted is None
    assert whole is not None
    assert resumed is not None
    same = ("curve", "predictions", "clips", "gmacs")
    assert {key: whole[key] for key in same} == {key: resumed[key] for key in same}
    assert whole["top1"] == 1 / 24  # exactly chance: all labels of a look have the same frames


def test_quick_runs_the_whole_path(capsys: pytest.CaptureFixture[str]) -> None:
    command.main(quick=True)
    page = capsys.readouterr().out
    assert "| `events/blvnet-tam` | 8 |" in page
    assert "`events/blvnet`: 4.2% (4.2% to 4.2%); chance, 4.17%, is within the interval." in page
    assert "![Learning curves" in page
    assert not re.search(r"\| - \|$", page, re.MULTILINE)  # every network has a latency
    assert "| `frames/blvnet-tam-8-progressive` | 8 |" in page
    assert "--rows events/blvnet-tsm` (0 of 2 seeds, 0 runs)" in page
    assert "--rows events/blvnet-tam`" not in page
