"""Classes of values are immutable, except for those that accumulate something."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import is_dataclass

import msgspec

import service

MUTABLE = {
    "service.bench.measurement.WorkloadResult",
    "service.clip.decoding.container.OpenVideo",
    "service.clip.decoding.isobmff.Boxes",
    "service.clip.decoding.windows._WindowsRequest",
    "service.http.context.RequestRecord",
    "service.jobs.redis.store._Claim",
    "service.monitoring.metrics.DurationTotal",
    "service.monitoring.metrics.ModelUsage",
    "service.pipeline.batching.batcher._Job",
    "service.pipeline.batching.batcher._Run",
    "service.pipeline.limits.admission._ModelLoad",
    "service.pipeline.timeline._OpenSegment",
    "service.pipeline.timeline._Total",
    "service.pipeline.window_stream._Attempt",
}


def test_value_types_are_frozen_unless_listed() -> None:
    frozen = {f"{each.__module__}.{each.__qualname__}": is_frozen(each) for each in value_types()}
    assert len(frozen) > 100
    assert {name for name, is_it in frozen.items() if not is_it} == MUTABLE


def value_types() -> Iterator[type]:
    """The dataclasses and message types of the service."""
    for found in pkgutil.walk_packages(service.__path__, "service."):
        module = importlib.import_module(found.name)
        for each in vars(module).values():
            if not isinstance(each, type) or each.__module__ != found.name:
                continue
            if is_dataclass(each) or issubclass(each, msgspec.Struct):
                yield each


def is_frozen(each: type) -> bool:
    """Whether attributes of its instances cannot be set."""
    if issubclass(each, msgspec.Struct):
        return each.__struct_config__.frozen
    return bool(each.__dataclass_params__.frozen)  # type: ignore[attr-defined]  # set by `dataclass`
