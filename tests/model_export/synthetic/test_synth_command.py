import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from model_export.commands.synth import parse_shares, synth
from service.errors import BlvnetError

app = typer.Typer()
app.command()(synth)


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(arguments))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_command_makes_a_data_set_and_reports_it(tmp_path: Path) -> None:
    out = tmp_path / "made"
    code, said, progress = run(str(out), "--clips", "5", "--seed", "7", "--jobs", "1")
    assert code == 0
    assert said == f"5 clips of 5 labels in {out}\n"
    assert progress.splitlines()[-1] == "making clips: 5 of 5"
    assert len(list(out.glob("*/*/7-*"))) == 5


def test_only_makes_one_split(tmp_path: Path) -> None:
    run(str(tmp_path), "--clips", "3", "--jobs", "1", "--only", "test")
    assert len(list(tmp_path.glob("test/*/*"))) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.json", "symmetry.json", "test"]


def test_only_and_shares_together_are_refused(tmp_path: Path) -> None:
    code, _, message = run(str(tmp_path), "--clips", "3", "--only", "test", "--split", "train=1,test=1")
    assert code == 2
    assert "leave out --split" in message
    assert not list(tmp_path.iterdir())


def test_split_shares_are_used(tmp_path: Path) -> None:
    run(str(tmp_path), "--clips", "4", "--jobs", "1", "--split", "train=1,val=3")
    assert len(list(tmp_path.glob("train/*/*"))) == 1
    assert len(list(tmp_path.glob("val/*/*"))) == 3


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("training=1", "'training' must be one of train, val, test"),
        ("train=1,train=2", "once only"),
        ("train", "'train' must be NAME=SHARE"),
        ("train=-1", "share of 0 or more"),
        ("train=nan", "share of 0 or more"),
        ("train=0,test=0", "at least one share must be above 0"),
        ("", "must be one of"),
    ],
)
def test_bad_shares_are_explained(text: str, complaint: str) -> None:
    with pytest.raises(BlvnetError, match=complaint):
        parse_shares(text)


def test_unknown_split_is_explained(tmp_path: Path) -> None:
    with pytest.raises(BlvnetError, match="must be one of train, val, test"):
        run(str(tmp_path), "--only", "exam")


@pytest.mark.parametrize("arguments", [("--clips", "0"), ("--jobs", "-1"), ("--seed", "-5")])
def test_numbers_out_of_range_are_bad_usage(arguments: tuple[str, str], tmp_path: Path) -> None:
    code, _, said = run(str(tmp_path / "out"), *arguments)
    assert code == 2
    assert arguments[0] in said
    assert "greater than or equal to" in said


def test_folder_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(BlvnetError, match="not an empty folder"):
        run(str(tmp_path), "--clips", "1")


def test_module_loads_without_the_drawing_libraries() -> None:
    script = (
        "import sys, model_export.commands.synth; print(sorted({'cv2', 'av', 'torch'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_missing_opencv_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("model_export.synthetic")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(BlvnetError, match=r"OpenCV: .+ -m pip install .*\[train\]'"):
        run(str(tmp_path / "out"), "--clips", "1")
