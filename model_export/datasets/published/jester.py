"""Jester: 27 hand gestures in front of a laptop's camera, shipped as frames.

    DATA/jester-v1-labels.csv               one label per line
    DATA/jester-v1-{train,validation}.csv   lines of "id;label"
    DATA/20bn-jester-v1/ID/00001.jpg

A mirror swaps "left" and "right" in a label, and "clockwise" and "counterclockwise". The test split is
published without labels.
"""

from __future__ import annotations

from pathlib import Path

from model_export.datasets.files import find_file
from model_export.datasets.labels import read_labels
from model_export.datasets.listing import Listing
from model_export.datasets.published.something import annotation_names, list_annotated, read_semicolons
from model_export.datasets.symmetry import Symmetry, label_indices, swapped_directions

RELEASE = "jester-v1"
TURNS = {"Clockwise": "Counterclockwise", "Counterclockwise": "Clockwise"}


def read_jester(data: Path, split: str) -> Listing:
    """Read Jester.

    Raises:
        BlvnetError: a file or folder is missing, or the annotations contradict each other.
    """
    labels = read_labels(find_file(data, [f"{RELEASE}-labels.csv", "labels.csv"]))
    source = find_file(data, annotation_names(RELEASE, split, ".csv"))
    counterparts = {
        label: " ".join(TURNS.get(word, word) for word in mirrored.split(" "))
        for label, mirrored in swapped_directions(labels).items()
    }
    symmetry = Symmetry(label_indices(labels, counterparts), (None,) * len(labels))
    return list_annotated(data, RELEASE, source, labels, symmetry, read_semicolons(source))
