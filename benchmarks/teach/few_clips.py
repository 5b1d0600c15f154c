"""Top-1 of heads learned from few clips of each label.

For each number of clips, drawn several times, a head is learned as `blvnet teach` does it. It is tested on
`val` and on the clips of `train` that were not drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.commands.inputs.teaching_set import TeachingClip, find_labelled, read_groups
from service.errors import RequestError
from service.offline import offline_base
from service.settings import load_settings
from service.teaching.examples import Examples
from service.teaching.learning.learn import Taught, learn

SIZES = (5, 10)
FEW = 5
DRAWS = 10
SEED = 1


@dataclass(frozen=True)
class LabelledFeatures:
    """Features `(n, V, T', F)` of n labelled clips; `validation` marks the clips of `val`.

    `groups` names the recording session of each clip, if it is known.
    """

    features: NDArray[np.float32]
    labels: NDArray[np.str_]
    validation: NDArray[np.bool_]
    groups: NDArray[np.str_] | None = None

    def examples(self, chosen: NDArray[np.int64]) -> Examples:
        """The chosen clips, each its own group."""
        labels = self.labels[chosen].tolist()
        return Examples(self.features[chosen], labels, [str(index) for index in chosen])


def read_features(
    data: Path, models: Path | None, base: str | None, groups: Path | None = None
) -> LabelledFeatures:
    """The features of all clips of `data` that can be read."""
    train, val = find_labelled(data, None)
    clips: list[TeachingClip] = [*train, *val]
    group_of = read_groups(groups, clips) if groups else None
    kept, features = [], []
    with offline_base(load_settings({"models": models}), base) as model:
        for index, (_, result) in enumerate(model.features([clip.path for clip in clips])):
            if not isinstance(result, RequestError):
                kept.append(index)
                features.append(result)
    return LabelledFeatures(
        np.stack(features),
        np.array([clips[index].label for index in kept]),
        np.array([index >= len(train) for index in kept]),
        np.array([group_of[index] for index in kept]) if group_of else None,
    )


def draw(labels: NDArray[np.str_], pool: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """`count` clips of each label, or all clips if there are fewer."""
    random = np.random.default_rng(seed)
    return np.concatenate(
        [random.permutation(pool[labels[pool] == label])[:count] for label in np.unique(labels[pool])]
    )


def top1(taught: Taught, clips: LabelledFeatures, tested: NDArray[np.int64]) -> float | None:
    """Share of the tested clips that are labelled correctly; None without clips."""
    if not len(tested):
        return None
    logits = taught.head.evidence(clips.features[tested, 0]).mean(axis=1)
    return float((np.array(taught.labels)[logits.argmax(axis=1)] == clips.labels[tested]).mean())


def measure(clips: LabelledFeatures, draws: int = DRAWS, sizes: Sequence[int] = SIZES) -> dict[str, object]:
    """Mean top-1 by number of clips of each label."""
    train, val = np.flatnonzero(~clips.validation), np.flatnonzero(clips.validation)
    results: dict[str, object] = {"train": len(train), "val": len(val), "draws": draws}
    for size in sizes:
        of_val, of_rest = [], []
        for number in range(draws):
            chosen = draw(clips.labels, train, size, SEED + number)
            taught = learn(clips.examples(chosen))
            of_val.append(top1(taught, clips, val))
            of_rest.append(top1(taught, clips, np.setdiff1d(train, chosen)))
        results[f"{size} clips a label"] = {"val": _mean(of_val), "rest of train": _mean(of_rest)}
    taught = learn(clips.examples(train))
    results["all"] = {"val": top1(taught, clips, val), "cross-validated": taught.report.accuracy.top1}
    return results


def measure_groups(clips: LabelledFeatures, draws: int = DRAWS, few: int = FEW) -> dict[str, Any]:
    """Top-1 on each group, of heads learned from the clips of all other groups and from few of them.

    `train` and `val` do not matter here.
    """
    if clips.groups is None:
        raise ValueError("the groups of the clips are not known")
    shares: dict[str, object] = {}
    for group in np.unique(clips.groups):
        tested, others = np.flatnonzero(clips.groups == group), np.flatnonzero(clips.groups != group)
        of_few = [
            top1(learn(clips.examples(draw(clips.labels, others, few, SEED + number))), clips, tested)
            for number in range(draws)
        ]
        shares[str(group)] = {
            "clips": len(tested),
            "all": _mean([top1(learn(clips.examples(others)), clips, tested)]),
            f"{few} clips a label": _mean(of_few),
        }
    return {"draws": draws, "groups": shares}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(float(np.mean(known)), 4) if known else None
