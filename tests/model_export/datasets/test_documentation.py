"""The commands on the page about data sets use existing data sets, networks and options."""

from __future__ import annotations

import inspect
import itertools
import re
import shlex
from collections.abc import Callable

import pytest

from model_export.commands.data import data
from model_export.commands.evaluate import evaluate
from model_export.commands.export import export
from model_export.commands.train import train
from model_export.datasets import ALIASES, READERS
from model_export.networks.registry import parse_architecture
from tests.support.observability import ROOT

PAGE = (ROOT / "docs/datasets.md").read_text()
COMMANDS = [
    shlex.split(line)[1:]
    for block in re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
]
FUNCTIONS: dict[str, Callable[..., None]] = {
    "train": train,
    "evaluate": evaluate,
    "export": export,
    "data": data,
}


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words[:5]))
def test_command_uses_existing_options(words: list[str]) -> None:
    name, *rest = words
    options = dict(itertools.pairwise(rest))
    known = inspect.signature(FUNCTIONS[name]).parameters
    used = {
        word.removeprefix("--").removeprefix("no-").replace("-", "_")
        for word in rest
        if word.startswith("--")
    }
    assert used <= set(known)
    if "--dataset" in options:
        assert options["--dataset"] in {*READERS, *ALIASES}
    if "--arch" in options:
        parse_architecture(options["--arch"], num_classes=2)


def test_page_names_every_published_data_set() -> None:
    names = set(re.findall(r"`([\w-]+)`", PAGE.split("## Layouts")[1].split("\n- ")[0]))
    assert {*READERS, *ALIASES} - names == {"folder", "synthetic"}


def test_networks_on_the_page_exist() -> None:
    table = PAGE.split("| network | `--arch` |")[1].split("\n\n")[0]
    named = [name for name in re.findall(r"`([\w-]+)`", table) if not name.startswith("-")]
    assert len(named) >= 9
    for name in named:
        parse_architecture(name, num_classes=2)
