"""The names of the tasks, importable without OpenCV and numpy."""

from __future__ import annotations

from enum import StrEnum


class Task(StrEnum):
    """The task that a generated video belongs to, which defines its label."""

    SIMPLE = "simple"  # which of 22 motions, under easy conditions
    MOTIONS = "motions"  # the same motions, under hard conditions
    EVENTS = "events"  # the order of four short events
    APPEARANCE = "appearance"  # what a moving object is
    HANDS = "hands"  # the motions, each single object a hand with an arm
    AIR_DRAWING = "air-drawing"  # the same, and what a hand draws in the air, in bad light
