"""The documentation matches the code: links, settings, problem codes and routes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic_core import PydanticUndefined

from service.http.app import create_app
from service.http.problems import INTERNAL_ERROR, PROBLEM_TYPES
from service.settings import PREFIX, Settings, load_settings
from tests.support.documented import PAGES
from tests.support.observability import ROOT


def table(page: str, heading: str) -> list[list[str]]:
    """The rows of the first table below a heading, without backquotes."""
    text = (ROOT / "docs" / page).read_text().split(f"\n## {heading}\n", 1)[1]
    rows = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert rows is not None
    cells = [[cell.strip().strip("`") for cell in row.strip("|").split("|")] for row in rows[0].splitlines()]
    return cells[2:]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_have_targets(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]*)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_anchors_are_headings(page: Path) -> None:
    for link, anchor in re.findall(r"\]\((?!https?://)([^)#]*)#([^)]*)\)", page.read_text()):
        target = (page.parent / link) if link else page
        headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
        assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_index_lists_every_page() -> None:
    named = set(re.findall(r"\]\(([\w-]+\.md)\)", (ROOT / "docs/README.md").read_text()))
    assert named == {path.name for path in ROOT.glob("docs/*.md")} - {"README.md"}


def test_settings_table_has_every_setting() -> None:
    named = [row[0].removeprefix(PREFIX).lower() for row in table("operations.md", "Settings")]
    assert named == list(Settings.model_fields)


def test_settings_table_has_the_defaults() -> None:
    for name, default, _ in table("operations.md", "Settings"):
        field = Settings.model_fields[name.removeprefix(PREFIX).lower()]
        if field.default not in (None, (), PydanticUndefined):
            expected = f"{field.default:g}" if isinstance(field.default, float) else str(field.default)
            assert default == expected, name


def test_errors_table_has_every_problem_code_with_its_status() -> None:
    documented = {row[1]: int(row[0]) for row in table("api.md", "Errors")}
    of_http = {"not_found", "method_not_allowed", INTERNAL_ERROR}
    assert documented == {code: kind.status for code, kind in PROBLEM_TYPES.items() if code not in of_http}


def test_route_table_has_every_route() -> None:
    text = (ROOT / "docs/api.md").read_text().split("\n## ", 1)[0]
    documented = set(re.findall(r"`((?:GET|POST|DELETE) /[^`]*)`", text))
    paths = create_app(load_settings()).openapi()["paths"]
    described = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    assert documented == described | {"GET /", "GET /docs", "GET /openapi.json"}
