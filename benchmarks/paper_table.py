"""Costs of the paper's networks, and their ratios to TSN.

    python -m benchmarks.paper_table

The costs are those of `blvnet profile`, which counts operations instead of measuring time, so they are the
same on every machine. The tables are written to `benchmarks/results` and docs/networks.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.common.report import RESULTS, placed, table, write
from model_export.networks.registry import parse_architecture
from model_export.profile import Profile, profile_network
from model_export.progress import counting

PAGE = Path(__file__).parents[1] / "docs" / "networks.md"
START, END = "<!-- written by python -m benchmarks.paper_table -->\n", "<!-- end -->\n"
CLASSES = 174  # Something-Something
MEGA = 1e6

NETWORKS = (
    *(f"blvnet-tam-50-a2-b4-f{pairs}x2" for pairs in (8, 16)),
    *(f"blvnet-tam-101-a2-b4-f{pairs}x2" for pairs in (8, 16, 24, 32)),
    "blvnet-tam-152-a2-b4-f8x2",
    "blvnet-50-a2-b4-f8x2",
    "blvnet-101-a2-b4-f8x2",
    *(f"blvnet-tam-{depth}-a2-b4-f8x2-dual" for depth in (50, 101)),
    *(f"tsn-resnet-{depth}-f{frames}" for depth in (50, 101) for frames in (8, 16, 32)),
    *(f"{family}-resnet-{depth}-f8" for family in ("tsm", "tam", "i3d", "tam-i3d") for depth in (50, 101)),
)
# The paper compares bLVNet-TAM with a plain ResNet of the same depth and number of frames.
CLAIMS = tuple(
    (f"blvnet-tam-{depth}-a2-b4-f8x2{stem}", f"tsn-resnet-{depth}-f16")
    for depth in (50, 101, 152)
    for stem in ("", "-dual")
)


def main(
    page: Annotated[Path, typer.Option(help="Documentation page that contains the tables.")] = PAGE,
    results: Annotated[Path, typer.Option(help="Folder of the result files.")] = RESULTS,
) -> None:
    """Count the costs of the paper's networks and write the tables."""
    names = list(dict.fromkeys((*NETWORKS, *(name for pair in CLAIMS for name in pair))))
    profiles: dict[str, Profile] = {}
    with counting("counting", len(names)) as tick:
        for name in names:
            profiles[name] = profile_network(parse_architecture(name, num_classes=CLASSES))
            tick(1)
    text = f"{costs(profiles, NETWORKS)}\n{factors(profiles)}"
    document: dict[str, Any] = {"networks": [profile.to_json() for profile in profiles.values()]}
    write("paper_table", document, text, results)
    page.write_text(placed(page.read_text(encoding="utf-8"), text, START, END), encoding="utf-8")


def costs(profiles: dict[str, Profile], names: Sequence[str]) -> str:
    """The costs of one clip as a table."""
    head = (
        "network",
        "frames",
        "parameters",
        "GMACs",
        "TAM GMACs",
        "inference MB",
        "training MB",
    )
    rows = []
    for name in names:
        profile = profiles[name]
        total = profile.total
        rows.append(
            (
                f"`{name}`",
                f"{profile.config.frames}",
                f"{total.parameters:,}",
                f"{total.gmacs:.2f}",
                f"{total.tam_gmacs:.3f}",
                f"{total.activation_bytes / MEGA:.0f}",
                f"{total.training_activation_bytes / MEGA:.0f}",
            )
        )
    return table(head, rows)


def factors(profiles: dict[str, Profile]) -> str:
    """The reduction of costs relative to TSN as a table."""
    head = ("network", "against", "GMACs", "inference memory", "training memory")
    rows = []
    for ours, theirs in CLAIMS:
        left, right = profiles[ours].total, profiles[theirs].total
        rows.append(
            (
                f"`{ours}`",
                f"`{theirs}`",
                f"{right.gmacs / left.gmacs:.2f} x less",
                f"{right.activation_bytes / left.activation_bytes:.2f} x less",
                f"{right.training_activation_bytes / left.training_activation_bytes:.2f} x less",
            )
        )
    return table(head, rows)


if __name__ == "__main__":
    typer.run(main)
