"""Rows of a batch from a Ray cluster: Ray Data distributes the videos and replaces lost workers."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import ray
import ray.data

from service.batch.classifier import BatchClassifier
from service.batch.output import Row
from service.pipeline.classification import Query
from service.pipeline.core_config import CoreConfig

VIDEOS_PER_TASK = 8


class RayClassifier:
    """A `BatchClassifier` in an actor; rows are sent as JSON, because their columns are nested."""

    def __init__(self, config: CoreConfig, models: Sequence[str], query: Query) -> None:
        self._classifier = BatchClassifier(config, models, query)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """Return the rows of the videos of a task."""
        return {"row": [json.dumps(row) for row in self._classifier.rows(map(str, batch["clip"]))]}


def rows_of_cluster(
    address: str, videos: Sequence[str], config: CoreConfig, models: Sequence[str], query: Query
) -> Iterator[Row]:
    """Classify on a cluster, with an actor for each node.

    Every node needs this package, and reads the models and the videos at the same addresses. If a node is
    lost, a row may arrive twice; the caller keeps the first one.
    """
    if not ray.is_initialized():
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    # The command reports the progress itself.
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    ray.data.DataContext.get_current().enable_progress_bars = False
    nodes = [node for node in ray.nodes() if node["Alive"]]
    cores = min(int(node["Resources"].get("CPU", 1)) for node in nodes)
    dataset = ray.data.from_items(
        [{"clip": video} for video in videos], override_num_blocks=-(-len(videos) // VIDEOS_PER_TASK)
    )
    rows = dataset.map_batches(
        RayClassifier,
        fn_constructor_args=(
            CoreConfig(**config.model_dump(include=set(CoreConfig.model_fields))),
            models,
            query,
        ),
        batch_size=VIDEOS_PER_TASK,
        concurrency=len(nodes),
        num_cpus=cores,
        max_restarts=-1,
    )
    for item in rows.iter_rows():
        yield json.loads(item["row"])
