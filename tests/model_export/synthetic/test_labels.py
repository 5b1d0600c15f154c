import pytest

from model_export.synthetic.labels import FORWARD, LABELS, MIRRORED, PAIRS, REVERSED
from model_export.synthetic.motions import MOTIONS

PUBLISHED = (
    "Moving something from left to right",
    "Moving something from right to left",
    "Moving something up",
    "Moving something down",
    "Moving something closer to the camera",
    "Moving something away from the camera",
    "Something appearing",
    "Something disappearing",
    "Turning something clockwise",
    "Turning something counter-clockwise",
    "Moving two things together",
    "Moving two things apart",
    "Holding something still",
)


def test_documented_labels_exist() -> None:
    assert set(PUBLISHED) <= set(LABELS)


def test_labels_are_distinct_and_mostly_in_pairs() -> None:
    assert len(set(LABELS)) == len(LABELS) == 22
    assert len(PAIRS) == 10


@pytest.mark.parametrize("table", [REVERSED, MIRRORED])
def test_flipping_twice_gives_the_label_back(table: dict[str, str]) -> None:
    assert set(table) == set(LABELS)
    assert all(table[table[label]] == label for label in LABELS)


def test_order_of_mirror_and_reverse_does_not_matter() -> None:
    assert all(MIRRORED[REVERSED[label]] == REVERSED[MIRRORED[label]] for label in LABELS)


def test_only_time_symmetric_labels_are_their_own_reverse() -> None:
    own = {label for label in LABELS if REVERSED[label] == label}
    assert own == {"Holding something still", "Shaking something"}


def test_mirror_swaps_sides_and_senses_of_rotation_only() -> None:
    swapped = {label for label in LABELS if MIRRORED[label] != label}
    assert swapped == set(PUBLISHED[:2]) | set(PUBLISHED[8:10])


def test_every_label_has_a_motion_that_is_drawn() -> None:
    assert {FORWARD[label] for label in LABELS} == set(MOTIONS)
    assert all(FORWARD[label] in (label, REVERSED[label]) for label in LABELS)
