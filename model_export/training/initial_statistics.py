"""Batch norm statistics for weights that come from a graph, measured on training clips."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from model_export.networks.batch_norms import measure_statistics
from model_export.training.augmentation.augment import plain_inputs
from model_export.training.clips.batches import BatchLoader, SplitData, plain_draws
from model_export.training.step import standardise
from service.clip.spec import ClipSpec

CLIPS = 512  # enough for means and variances, which are taken over all pixels and frames
BATCH = 16


def measure_initial_statistics(
    network: nn.Module, data: SplitData, clip: ClipSpec, device: torch.device
) -> None:
    """Give a network the statistics of up to 512 training clips, without changing its results.

    Args:
        network: the network, on `device`.
        data: the training split.
        clip: the clip that the network gets.
        device: device of the network.
    """

    def batches() -> Iterator[list[Tensor]]:
        step = -(-len(data.source) // CLIPS)
        draws = [batch[0] for batch in plain_draws(data.source, 1)][::step]
        loader = BatchLoader(data, workers=0)
        for batch in loader.load([draws[start : start + BATCH] for start in range(0, len(draws), BATCH)]):
            if len(batch.labels):
                yield [standardise(x) for x in plain_inputs(batch.to(device).frames, clip.inputs)]

    measure_statistics(network, batches())
