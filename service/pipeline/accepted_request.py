"""The work of one accepted request."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.clip.spec import ClipSpec
from service.clip.video import DecodeLimits, VideoInfo
from service.clip.windowing import WindowRule
from service.engines.session import Inputs, batch_length
from service.pipeline.batching.batcher import Inference
from service.pipeline.classification import Classification, Inferred, Query, Timings, classify
from service.pipeline.limits.admission import Ticket, TimelinePlaces
from service.pipeline.limits.deadline import Deadline
from service.pipeline.limits.memory_budget import MemoryBudget
from service.pipeline.models.served_model import ServedModel, ServedVersion
from service.pipeline.window_stream import WindowStream, windows_of
from service.teaching.views import teaching_crops, teaching_inputs
from service.tracing import record_stages
from service.workers.decode_pool import Decoded, DecodePool
from service.workers.shared_memory import VideoFile


@dataclass(frozen=True)
class Features:
    """Features of the views of a video, float32 `(V, T', F)`; see `service.teaching.views` for the rows."""

    array: NDArray[np.float32]
    video: VideoInfo
    timing: Timings


@dataclass(frozen=True)
class AcceptedRequest:
    """A request that `Recognizer.accept` has accepted. Its methods may be called until the block ends.

    A video is a path, bytes, or an open file with a descriptor. Every method raises a subclass of
    `RequestError`; `service.errors` lists them. Cancelling drops the work that has not started.
    """

    model: ServedVersion
    ticket: Ticket
    deadline: Deadline | None
    decoding: DecodePool
    frames_memory: MemoryBudget
    limits: DecodeLimits
    timelines: TimelinePlaces
    timeline_timeout_s: float

    async def classify(self, video: VideoFile, query: Query) -> Classification:
        """Label a video."""
        query.check(self.model.manifest)
        self.ticket.require(query.views)
        decoded, inference = await self._run(video, clips=query.clips, crops=query.crops)
        if query.frames:  # encoding images would block the event loop for too long
            return await asyncio.to_thread(classify, query, self.model.model, decoded, inference)
        return classify(query, self.model.model, decoded, inference)

    async def classify_with(
        self, models: Sequence[ServedVersion], video: VideoFile, query: Query
    ) -> tuple[Classification, ...]:
        """Label a video with several models in one pass.

        The video is decoded once for models with the same inputs, and each graph runs once, even if several
        taught models use it. The models must be held until this returns.
        """
        for model in models:
            query.check(model.manifest)
        self.ticket.require(query.views)
        decoded: dict[ClipSpec, Decoded] = {}
        inferences: dict[ServedModel, Inference] = {}
        results = []
        for model in models:
            graph, spec = model.graph, model.manifest.clip
            with self.ticket.in_progress():
                async with self.frames_memory.reserve(query.views * graph.view_bytes):
                    if spec not in decoded:
                        decoded[spec] = await self.decoding.decode(
                            video, spec, self.limits, clips=query.clips, crops=query.crops
                        )
                    if graph not in inferences:
                        inferences[graph] = await graph.infer(decoded[spec].inputs)
            inference = await model.applied(inferences[graph])
            results.append(classify(query, model.model, decoded[spec], inference))
        return tuple(results)

    async def infer_video(self, video: VideoFile) -> Inferred:
        """Run the model on one clip of a video, and return the outputs of the graph."""
        decoded, inference = await self._run(video, clips=1, crops=1)
        return Inferred(self.model.manifest, inference.outputs, Timings.of(decoded, inference))

    async def features(self, video: VideoFile, *, mirrored: bool = True) -> Features:
        """Compute a base's features of the views that a taught model learns from.

        Args:
            video: the clip.
            mirrored: add the features of the mirror image of each view.
        """
        manifest = self.model.manifest
        crops = teaching_crops(manifest.gmacs)
        rows = (1 + mirrored) * crops
        self.ticket.require(rows)
        with self.ticket.in_progress():
            async with self.frames_memory.reserve((crops + rows) * self.model.view_bytes):
                with self.model.graph.batcher.expect(crops):
                    decoded = await self.decoding.decode(
                        video, manifest.clip, self.limits, clips=1, crops=crops
                    )
                record_stages(("queue", decoded.queue_ms), ("decode", decoded.decode_ms))
                inputs = teaching_inputs(decoded.inputs, mirrored=mirrored)
                inference = await self.model.infer(inputs)
        assert inference.outputs.features is not None
        return Features(inference.outputs.features, decoded.video, Timings.of(decoded, inference))

    async def infer(self, inputs: Inputs) -> Inferred:
        """Run the model on decoded clips, uint8 `(N, T_branch, size, size, 3)` for each input."""
        self.ticket.require(batch_length(inputs))
        with self.ticket.in_progress():
            inference = await self.model.infer(inputs)
        return Inferred(self.model.manifest, inference.outputs, Timings.of(None, inference))

    def windows(self, video: VideoFile, rule: WindowRule) -> AbstractAsyncContextManager[WindowStream]:
        """Decode the windows of a long video, in a dedicated worker."""
        timeout_s = self.timeline_timeout_s if self.deadline is None else self.deadline.limit_s
        return windows_of(self.decoding, video, self.model.manifest.clip, rule, self.limits, timeout_s)

    async def _run(self, video: VideoFile, *, clips: int, crops: int) -> tuple[Decoded, Inference]:
        model, views = self.model, clips * crops
        with self.ticket.in_progress():
            async with self.frames_memory.reserve(views * model.view_bytes):
                with model.graph.batcher.expect(views):
                    decoded = await self.decoding.decode(
                        video, model.manifest.clip, self.limits, clips=clips, crops=crops
                    )
                record_stages(("queue", decoded.queue_ms), ("decode", decoded.decode_ms))
                return decoded, await model.infer(decoded.inputs)
