"""Groups of videos that belong together, such as those of one person, camera or day.

    DATA/groups.csv     file,group, or with a header that names the columns `file` and `group`

A file is named by its path below DATA (its whole path if it is elsewhere) or by its name. Videos of one group
are alike, so the accuracy on a group that was used in training says little about new ones: see `auto_split`
and `blvnet train --hold-out`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from model_export.datasets.files import read_rows
from model_export.datasets.listing import Example, Listing
from service.errors import BlvnetError

GROUPS_FILE = "groups.csv"


def read_groups(data: Path) -> dict[str, str] | None:
    """File or name of a file -> its group; None if there is no groups file.

    Raises:
        BlvnetError: the file cannot be read, or puts one file into two groups.
    """
    path = data / GROUPS_FILE
    if not path.exists():
        return None
    rows = list(read_rows(path, ","))
    file_column, group_column = 0, 1
    if rows and {"file", "group"} <= set(rows[0][1]):
        header = rows.pop(0)[1]
        file_column, group_column = header.index("file"), header.index("group")
    groups: dict[str, str] = {}
    for number, fields in rows:
        if len(fields) <= max(file_column, group_column) or not fields[group_column]:
            raise BlvnetError(f"{path}, line {number}: not file,group")
        file, group = fields[file_column], fields[group_column]
        if groups.setdefault(file, group) != group:
            raise BlvnetError(f"{path}, line {number}: {file} is in two groups, {groups[file]} and {group}")
    return groups


def with_groups(data: Path, examples: Sequence[Example]) -> tuple[Example, ...]:
    """The examples with the groups of `DATA/groups.csv`; unchanged if there is no such file.

    Raises:
        BlvnetError: as `read_groups`, or a file has no group.
    """
    groups = read_groups(data)
    if groups is None:
        return tuple(examples)
    grouped = []
    for example in examples:
        path = example.path
        if path.is_relative_to(data):  # a list may name videos elsewhere by their whole paths
            path = path.relative_to(data)
        group = groups.get(path.as_posix(), groups.get(path.name))
        if group is None:
            raise BlvnetError(f"{data / GROUPS_FILE} has no group for {path}")
        grouped.append(replace(example, group=group))
    return tuple(grouped)


def split_off_group(listing: Listing, group: str) -> tuple[Listing, Listing]:
    """Split a listing into the examples of all other groups, and those of one group.

    Raises:
        BlvnetError: no example has that group, or all have it.
    """
    groups = sorted({example.group for example in listing.examples if example.group is not None})
    if not groups:
        raise BlvnetError(f"the videos have no groups: add a {GROUPS_FILE} with lines of file,group")
    if group not in groups:
        raise BlvnetError(f"no training video is in the group {group!r}; choose one of {', '.join(groups)}")
    if len(groups) == 1:
        raise BlvnetError(f"all training videos are in the group {group!r}, so none is left to train on")
    kept = tuple(example for example in listing.examples if example.group != group)
    held_out = tuple(example for example in listing.examples if example.group == group)
    return replace(listing, examples=kept), replace(listing, examples=held_out)
