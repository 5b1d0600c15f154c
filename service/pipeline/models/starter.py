"""From a loaded package to a model that serves."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

from service.models.loading import Model
from service.observer import Observer
from service.pipeline.batching.batcher import Batcher
from service.pipeline.batching.health import InferenceHealth
from service.pipeline.batching.slots import Slots
from service.pipeline.core_config import CoreConfig
from service.pipeline.limits.admission import Admission
from service.pipeline.models.served_model import ServedHead, ServedModel

INFERENCE = "inference"  # prefix of the thread names


class ModelStarter:
    """Starts models, each with its own batcher and threads, and slots that all models share.

    Args:
        config: the settings.
        slots: number of inference threads that may run at the same time.
        admission: starts with the throughput that was measured when the model was loaded.
        observer: receives the events of the models.
    """

    def __init__(self, config: CoreConfig, slots: int, admission: Admission, observer: Observer) -> None:
        self._config = config
        self._slots = Slots(slots)
        self._admission = admission
        self._observer = observer

    def serve(self, model: Model) -> ServedModel:
        """Start serving a loaded model."""
        name, config = model.manifest.name, self._config
        on_failure = partial(self._observer.self_test_failure, name)
        batcher = Batcher(
            model.session,
            model.opened.concurrent,
            self._slots,
            # One executor per model: a run that never ends blocks a thread of its own model only.
            ThreadPoolExecutor(self._slots.total, thread_name_prefix=INFERENCE),
            sizes=config.batch_sizes(model.opened.batches),
            wait_s=config.batch_wait_ms / 1e3,
            on_batch=partial(self._observer.batch_size, name),
            health=InferenceHealth(config.request_timeout_s),
            on_failure=on_failure,
        )
        served = ServedModel(
            model,
            batcher,
            idle_s=config.self_test_s,
            limit_s=config.request_timeout_s,
            on_failure=on_failure,
        )
        self._observer.model_watched(name)
        if model.opened.clips_per_s is not None:
            self._admission.throughput(name).expect(model.opened.clips_per_s)
        served.start()
        return served

    def serve_taught(self, model: Model, base: ServedModel) -> ServedHead:
        """Start serving a loaded taught model."""
        return ServedHead(model, base, partial(self._observer.taught_views, model.manifest.name))
