"""The tables of the paper's configurations: the page states what the code counts."""

from __future__ import annotations

import pytest

from benchmarks.common.report import placed
from benchmarks.paper_table import CLAIMS, CLASSES, END, NETWORKS, PAGE, START, costs, factors
from model_export.networks.registry import parse_architecture
from model_export.profile import Profile, profile_network


def profiled(*names: str) -> dict[str, Profile]:
    return {name: profile_network(parse_architecture(name, num_classes=CLASSES)) for name in names}


@pytest.mark.parametrize("name", ["blvnet-tam-50-a2-b4-f8x2", "tam-resnet-50-f8"])
def test_page_has_the_costs_that_the_code_counts(name: str) -> None:
    assert name in NETWORKS
    row = costs(profiled(name), [name]).splitlines()[-1]
    assert row in PAGE.read_text(encoding="utf-8").splitlines()


def test_page_has_the_factor_that_the_code_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    claim = CLAIMS[0]
    monkeypatch.setattr("benchmarks.paper_table.CLAIMS", [claim])
    row = factors(profiled(*claim)).splitlines()[-1]
    assert row in PAGE.read_text(encoding="utf-8").splitlines()


def test_tables_replace_those_before_them_and_nothing_else() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert placed(placed(page, "old", START, END), "new", START, END) == placed(page, "new", START, END)
    assert placed(page, "new", START, END).startswith(page.partition(START)[0])


def test_page_without_a_place_for_tables_is_left_alone() -> None:
    with pytest.raises(ValueError, match="lacks the markers"):
        placed("# Networks\n", "table", START, END)
