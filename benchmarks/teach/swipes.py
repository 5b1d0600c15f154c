"""Swipes of a hand, labelled by the bundled network without any teaching."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from model_export.synthetic.labels import REVERSED
from service.commands.inputs.teaching_set import find_labelled
from service.errors import RequestError
from service.offline import classify_files
from service.pipeline.classification import MAX_TOP_K, Query
from service.settings import load_settings

# The label of the bundled network for each folder of swipes.
SWIPES = {
    "left": "Moving something from right to left",
    "right": "Moving something from left to right",
    "up": "Moving something up",
    "down": "Moving something down",
}


def label_swipes(data: Path) -> dict[str, float] | None:
    """Label the clips of the folders of swipes, in `train` and `val`; None if there are none."""
    train, val = find_labelled(data, None)
    directions = {clip.path: clip.label for clip in (*train, *val) if clip.label in SWIPES}
    found = []
    for path, result in classify_files(load_settings({}), directions, Query(top_k=MAX_TOP_K)):
        if not isinstance(result, RequestError):
            scores = {prediction.label: prediction.score for prediction in result.predictions}
            found.append((directions[path], scores))
    return shares(found) if found else None


def shares(clips: Iterable[tuple[str, Mapping[str, float]]]) -> dict[str, float]:
    """The shares of clips, as (direction, score by label), whose label is right.

    It is right among all labels, among the four moves, or at least scores higher than the opposite move.
    """
    of_all, of_four, of_two = [], [], []
    for direction, scores in clips:
        label = SWIPES[direction]
        of_all.append(label == max(scores, key=scores.__getitem__))
        of_four.append(label == max(SWIPES.values(), key=scores.__getitem__))
        of_two.append(scores[label] > scores[REVERSED[label]])
    count = len(of_all)
    return {
        "clips": count,
        "all labels": sum(of_all) / count,
        "four moves": sum(of_four) / count,
        "direction": sum(of_two) / count,
    }
