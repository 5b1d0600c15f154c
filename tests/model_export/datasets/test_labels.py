"""Label files in the formats of the data sets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from model_export.datasets.labels import LabelsError, check_count, read_labels

SPILL = "Trying to pour something into something, but missing so it spills next to it"


def label_file(folder: Path, content: str | bytes, name: str = "labels.txt") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("content", "labels"),
    [
        pytest.param("a\nb\n", ("a", "b"), id="text"),
        pytest.param("a\r\n\r\n  b  \n\n", ("a", "b"), id="text with blank lines and Windows ends"),
        pytest.param(b"\xef\xbb\xbfa\nb", ("a", "b"), id="byte order mark"),
        pytest.param(f"{SPILL}\nHolding something\n", (SPILL, "Holding something"), id="V1: commas"),
        pytest.param(
            "Twisting (wringing) something; wet\nb\n",
            ("Twisting (wringing) something; wet", "b"),
            id="semicolon",
        ),
        pytest.param('"massaging person\'s feet"\nyoga\n', ("massaging person's feet", "yoga"), id="quoted"),
        pytest.param(
            "clapping,1\npraying,0\ndropping,2\n", ("praying", "clapping", "dropping"), id="Moments"
        ),
        pytest.param("id,name\n1,yoga\n0,abseiling\n", ("abseiling", "yoga"), id="Kinetics CSV"),
        pytest.param("label,index\nyoga, 1\nabseiling, 0\n", ("abseiling", "yoga"), id="header and spaces"),
        pytest.param(f"{SPILL},1\nb,0\n", ("b", SPILL), id="indexed label with a comma"),
        pytest.param(f'"{SPILL}",1\nb,0\n', ("b", SPILL), id="indexed label in quotes"),
        pytest.param('["a", "b, c"]', ("a", "b, c"), id="JSON list"),
        pytest.param('{"b": "1", "a": "0"}', ("a", "b"), id="V2 JSON"),
        pytest.param('{"b": 1, "a": 0}', ("a", "b"), id="JSON, indices as numbers"),
        pytest.param('{"1": "b", "0": "a"}', ("a", "b"), id="JSON by index"),
        pytest.param("Türen öffnen\n跳舞\n", ("Türen öffnen", "跳舞"), id="any language"),
        pytest.param("only\n", ("only",), id="one label"),
        pytest.param("1 ApplyEyeMakeup\n2 ApplyLipstick\n", ("ApplyEyeMakeup", "ApplyLipstick"), id="UCF101"),
        pytest.param("a,1\nb,2\n", ("a", "b"), id="counted from 1"),
        pytest.param("apple 0\nred pear 1\n", ("apple", "red pear"), id="index after a space"),
        pytest.param("1\tred pear\n0\tapple\n", ("apple", "red pear"), id="tabs"),
        pytest.param("id\tname\n1\tpear\n0\tapple\n", ("apple", "pear"), id="tabs with a header"),
        pytest.param("apple;0\npear;1\n", ("apple", "pear"), id="semicolons"),
        pytest.param('0, "apple, green"\n1, "pear"\n', ("apple, green", "pear"), id="quoted after an index"),
        pytest.param('"red pear" 1\n"apple" 0\n', ("apple", "red pear"), id="quoted before an index"),
        pytest.param("'apple'\n'red pear'\n", ("apple", "red pear"), id="single quotes"),
        pytest.param("'tis a label\napple\n", ("'tis a label", "apple"), id="apostrophe"),
        pytest.param("Level 1\nLevel 2\n", ("Level 1", "Level 2"), id="labels that end with a number"),
        pytest.param("1\n2\n3\n", ("1", "2", "3"), id="labels that are numbers"),
    ],
)
def test_label_formats(content: str | bytes, labels: tuple[str, ...], tmp_path: Path) -> None:
    assert read_labels(label_file(tmp_path, content)) == labels


def test_174_templates_are_in_the_order_of_their_indices(tmp_path: Path) -> None:
    wanted = tuple(f"Doing {number} things, with something" for number in range(174))
    shipped = {label: str(index) for index, label in sorted(enumerate(wanted), key=lambda item: item[1])}
    assert read_labels(label_file(tmp_path, json.dumps(shipped), "labels.json")) == wanted


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        pytest.param("", "there are no labels", id="empty"),
        pytest.param("[]", "there are no labels", id="empty list"),
        pytest.param("{}", "there are no labels", id="empty object"),
        pytest.param("a\nb\na\n", "label 'a' is there more than once", id="repeated line"),
        pytest.param('["a", "a"]', "label 'a' is there more than once", id="repeated in a list"),
        pytest.param('{"a": "0", "a": "1"}', "label 'a' is there more than once", id="repeated key"),
        pytest.param('{"0": "a", "1": "a"}', "label 'a' is there more than once", id="repeated value"),
        pytest.param("a,0\nb,0\n", "index '0' is there more than once", id="repeated index"),
        pytest.param("a,2\nb,3\n", "from 1 to 2; there is none for 1", id="counted from 2"),
        pytest.param(
            "apple 0\npear 2\n", "none for 1; use a JSON list if the numbers", id="gap after spaces"
        ),
        pytest.param("apple;fruit\nleek;vegetable\n", "look like a table, but no column", id="table"),
        pytest.param(
            "apple\tfruit\nleek\tvegetable\n", "neither a label nor a label and its index", id="tab"
        ),
        pytest.param('"apple\npear\n', "neither a label nor a label and its index", id="open quote"),
        pytest.param("a,0\nb,7\n", "from 0 to 1; there is none for 1", id="gap"),
        pytest.param('["a", 3]', "not a string", id="number in a list"),
        pytest.param('["a", " "]', "a label is empty", id="blank label"),
        pytest.param('{"a": "first"}', "labels to indices", id="no index"),
        pytest.param('{"a": true}', "labels to indices", id="truth value"),
        pytest.param('{"a": -1}', "labels to indices", id="negative"),
        pytest.param('{"a": ', "starts like JSON", id="cut short"),
        pytest.param(b"\xff\xfe\x00", "not UTF-8", id="binary"),
    ],
)
def test_invalid_label_files_are_refused(content: str | bytes, complaint: str, tmp_path: Path) -> None:
    path = label_file(tmp_path, content)
    with pytest.raises(LabelsError, match=complaint) as caught:
        read_labels(path)
    assert caught.value.message.startswith(f"{path}: ")
    assert "\n" not in caught.value.message


def test_missing_label_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LabelsError, match=r"gone\.txt: .*No such file"):
        read_labels(tmp_path / "gone.txt")


def test_counts_labels_against_classes() -> None:
    check_count(("a", "b"), 2, "x.txt")
    with pytest.raises(LabelsError, match=r"x\.txt has 2 labels, .* 3 classes"):
        check_count(("a", "b"), 3, "x.txt")


@pytest.mark.parametrize(
    ("text", "message"),
    [("x" * 300_000, "cannot be read as text or CSV"), ("[" * 200_000, "starts like JSON, but is not")],
    ids=["one long line", "nested brackets"],
)
def test_file_of_something_else_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "labels.txt").write_text(text)
    with pytest.raises(LabelsError, match=message) as caught:
        read_labels(tmp_path / "labels.txt")
    assert "\n" not in caught.value.message
