"""Wrong use of `blvnet train`: one line that says what to do, and no traceback."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.model_export.command import Result, blvnet
from tests.support.clips import ClipRecipe, encode

BLVNET = Path(sys.executable).with_name("blvnet")
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four training and two validation videos."""
    root = tmp_path_factory.mktemp("data")
    for split, count in (("train", 2), ("val", 1)):
        for level, label in ((60, "dark"), (200, "bright")):
            folder = root / split / label
            folder.mkdir(parents=True)
            for index in range(count):
                image = np.full((40, 48, 3), level + index, np.uint8)
                (folder / f"{index}.mp4").write_bytes(encode([image] * 4, ClipRecipe(width=48, height=40)))
    return root


def arguments(data: Path, run: Path, *options: object) -> list[str]:
    chosen = [
        "train",
        "--dataset",
        "folder",
        "--data",
        data,
        "--arch",
        "tsn-mini",
        "--frames",
        "4",
        "--out",
        run,
    ]
    chosen += [
        "--size",
        "32",
        "--epochs",
        "1",
        "--batch-size",
        "2",
        "--workers",
        "0",
        "--amp",
        "off",
        *options,
    ]
    return [str(item) for item in chosen]


def one_line(result: Result, message: str, status: int = 1) -> None:
    assert result.status == status, result.stderr
    assert "Traceback" not in result.stderr
    last = result.stderr.splitlines()[-1]
    assert last.startswith("blvnet: ")
    assert message in last


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "finished"
    result = blvnet(*arguments(data, run))
    assert result.status == 0, result.stderr
    return run


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--lr", "nan"), "lr must be a finite number, it is nan"),
        (("--lr", "inf"), "lr must be a finite number, it is inf"),
        (("--schedule", "step", "--lr-steps", "nan"), "lr_steps must be a finite number, it is nan"),
        (("--schedule", "step", "--lr-steps", "1e400"), "lr_steps must be a finite number, it is inf"),
        (("--size", "0"), "size must be 32 to 4096, not 0"),
        (("--device", "meta"), "unknown device 'meta'; use cpu or cuda"),
        (("--init", "."), ".: cannot be read, as it is a folder and no model package: give a checkpoint"),
    ],
    ids=lambda item: " ".join(item) if isinstance(item, tuple) else "",
)
def test_unusable_value_is_named(
    data: Path, tmp_path: Path, options: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    one_line(blvnet(*arguments(data, tmp_path / "run", *options)), message)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--no-augmentation --zoom 0.3", "--zoom: needs --geometry above 0"),
        ("--geometry 0 --shift 0.3", "--shift: needs --geometry above 0"),
        ("--no-augmentation --cutout-side 0.5", "--cutout-side: needs --cutout above 0"),
        ("--rand-magnitude 20", "--rand-magnitude: needs --rand-augment"),
        ("--patience 3", "--patience: needs --schedule plateau"),
        ("--no-cached --offsets segment --phases 5", "--phases: needs --offsets phases"),
        ("--no-cached --cache somewhere", "--cache: needs --cached"),
    ],
)
def test_option_without_effect_is_refused_with_what_it_needs(
    data: Path, tmp_path: Path, options: str, message: str
) -> None:
    one_line(blvnet(*arguments(data, tmp_path / "run", *options.split())), message, status=2)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("option", ["--seed", "--phases", "--workers"])
def test_number_that_is_far_too_large_is_bad_usage(data: Path, tmp_path: Path, option: str) -> None:
    result = blvnet(*arguments(data, tmp_path / "run", option, 10**30))
    one_line(result, f"Invalid value for '{option}': Input should be less than or equal to", status=2)


def test_file_in_place_of_the_folder_of_the_run(data: Path, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    one_line(blvnet(*arguments(data, tmp_path / "run")), "run is not a folder: choose another --out")


def test_resume_names_the_options_that_differ(data: Path, finished: Path) -> None:
    result = blvnet(*arguments(data, finished, "--resume", "--lr", "0.5", "--seed", "3", "--log-every", "2"))
    one_line(result, "was written by a run with another options (lr, seed); give the same again")


def test_best_weights_in_place_of_the_last_state_are_refused(
    data: Path, finished: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    shutil.copy(run / "best.pt", run / "last.pt")
    result = blvnet(*arguments(data, run, "--resume"))
    one_line(
        result, "has no optimizer to resume from, so no run wrote it as last.pt: start another run from it"
    )


def test_checkpoint_that_is_cut_short_is_not_resumed(data: Path, finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    whole = (run / "last.pt").read_bytes()
    (run / "last.pt").write_bytes(whole[: len(whole) // 2])
    one_line(blvnet(*arguments(data, run, "--resume")), "last.pt: is cut short: copy or download it again")


def test_damaged_log_is_named_with_the_remedy(data: Path, finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "log.jsonl").write_bytes(b"\xff\xfe{\n")
    one_line(blvnet(*arguments(data, run, "--resume")), "log.jsonl is damaged: remove it")
    (run / "log.jsonl").unlink()
    assert blvnet(*arguments(data, run, "--resume")).status == 0


def test_too_little_memory_is_one_line(data: Path, tmp_path: Path) -> None:
    """Clips of 1024 frames of 4096 x 4096 pixels take 50 GB each."""
    command = [str(BLVNET), *arguments(data, tmp_path / "run", "--no-cached", "--size", "4096")]
    command[command.index("4")] = "1024"
    limited = ["bash", "-c", 'ulimit -v 30000000; exec "$@"', "bash", *command]
    done = subprocess.run(limited, capture_output=True, text=True, timeout=280, env=ENVIRONMENT)
    one_line(Result(done.returncode, done.stdout, done.stderr), "there is too little memory for a step: use")


def test_full_shared_memory_ends_the_run_with_the_remedies(data: Path, tmp_path: Path) -> None:
    """Decoding processes send batches through /dev/shm, which containers limit to 64 MB by default."""
    command = [
        str(BLVNET),
        *arguments(data, tmp_path / "run", "--no-cached", "--workers", "2", "--size", "128"),
    ]
    mounted = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs -o size=200k tmpfs /dev/shm && exec "$@"', "sh"]
    if os.geteuid():
        mounted[1:1] = ["-r"]
    done = subprocess.run([*mounted, *command], capture_output=True, text=True, timeout=120, env=ENVIRONMENT)
    one_line(Result(done.returncode, done.stdout, done.stderr), "larger --shm-size")
    assert "use fewer --workers, 0 for none" in done.stderr


def test_environment_that_is_half_of_torchruns_is_refused(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "left over")
    result = blvnet(*arguments(data, tmp_path / "run"))
    one_line(result, "TORCHELASTIC_RUN_ID is set and RANK is not: start with torchrun")


def test_list_with_a_label_that_no_network_can_have_is_refused(tmp_path: Path) -> None:
    for number, message in (("99999999999", "has the label 99999999999"), ("9" * 6000, "line 1: not path")):
        (tmp_path / "train.txt").write_text(f"a.mp4 {number}\n")
        result = blvnet(
            "train", "--dataset", "list", "--data", tmp_path, "--arch", "tsn-mini", "--out", tmp_path / "x"
        )
        one_line(result, message)
