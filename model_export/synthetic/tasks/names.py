"""The names of the tasks, which need neither OpenCV nor numpy."""

from __future__ import annotations

from enum import StrEnum


class Task(StrEnum):
    """What the label of a generated video says."""

    SIMPLE = "simple"  # which of 22 motions, under easy conditions
    MOTIONS = "motions"  # the same motions, under hard conditions
    EVENTS = "events"  # the order of four short events
    APPEARANCE = "appearance"  # what a small moving object is
