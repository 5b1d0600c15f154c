"""The metrics of a replica, handed to Ray, whose agent on each node shows them to Prometheus.

Behind Ray's proxy each scrape of `/metrics` would reach another replica, and counters would go up and down.
Ray's agents tell replicas apart by their labels. Every sample is handed over as it is, also the buckets of a
histogram, as a gauge with the sample's own name behind Ray's `ray_`: `rate` and `histogram_quantile` work.
"""

from __future__ import annotations

import asyncio
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.samples import Sample
from ray.serve import metrics

PREFIX = "blvnet_"  # what Ray shows of processes and nodes is its own
# An agent forgets what it was not told again; it asks every 10 s, unless Ray is set up otherwise.
REPORT_S = 4.0


async def report_forever(registry: CollectorRegistry) -> None:
    """Hand the samples of a registry to Ray, every few seconds; to be run in a replica."""
    gauges: dict[str, Any] = {}
    while True:
        for family in registry.collect():
            for sample in family.samples:
                if sample.name.startswith(PREFIX):
                    _report(sample, gauges)
        await asyncio.sleep(REPORT_S)


def _report(sample: Sample, gauges: dict[str, Any]) -> None:
    if sample.name not in gauges:
        # All samples of a name have the same labels.
        gauges[sample.name] = metrics.Gauge(sample.name, sample.name, tag_keys=tuple(sample.labels))
    gauges[sample.name].set(sample.value, tags=dict(sample.labels))
