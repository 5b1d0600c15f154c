"""The splits of a data set."""

from __future__ import annotations

from typing import Final, Literal, get_args

Split = Literal["train", "val", "test"]

SPLITS: Final[tuple[Split, ...]] = get_args(Split)
