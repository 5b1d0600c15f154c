"""The service behind the HTTP interface: the recognizer with its settings, keys and metrics."""

from __future__ import annotations

import asyncio
import logging

from service.access.keys import AdminKey, KeyRing, LocalRate, RequestRate
from service.errors import BlvnetError, PackageError
from service.http.answer_cache import AnswerCache
from service.http.job_work import JobWork
from service.http.problems import problem_document_of
from service.http.schemas.jobs import JobAnswer
from service.http.transfer.uploads import UploadLimits
from service.jobs.folder.store import FolderStore
from service.jobs.runner import JobRunner
from service.jobs.store import JobStore
from service.jobs.webhooks import Webhooks
from service.monitoring.metrics import Metrics
from service.pipeline.core_config import BYTES_PER_MB
from service.pipeline.limits.admission import UPLOADS_PER_PLACE
from service.pipeline.limits.memory_budget import MemoryBudget
from service.pipeline.recognizer import Recognizer, RecognizerState
from service.settings import BadSetting, Settings, with_current_keys
from service.taught.lessons import TeachLimits
from service.taught.teacher import Teacher

# Number of bodies of the largest size that may be in memory at once, on routes that need whole bodies.
BODIES_IN_MEMORY = 4

logger = logging.getLogger(__name__)


class Service:
    """One service; the routes access everything through it."""

    def __init__(self, settings: Settings, recognizer: Recognizer, metrics: Metrics) -> None:
        self.settings = settings
        self.recognizer = recognizer
        self.metrics = metrics
        self._rate = _request_rate(settings)
        self.keys = KeyRing(
            settings.api_keys,
            self._rate,
            settings.key_requests_at_once,
            upload_slots=UPLOADS_PER_PLACE * settings.queue_limit,
        )
        self.admin_key = AdminKey(settings.admin_key)
        self.video_limits = UploadLimits(settings.max_upload_bytes, settings.request_timeout_s)
        self.body_memory = MemoryBudget(BODIES_IN_MEMORY * settings.max_upload_bytes)
        self.cache = AnswerCache(settings.cache_bytes) if settings.cache_mb else None
        self.jobs = self._open_jobs()
        self.teacher = self._open_teacher()
        self._leaving = False
        self._loading: asyncio.Task[None] | None = None
        self._loaded = asyncio.Event()
        self._rescans: set[asyncio.Task[None]] = set()

    def _open_jobs(self) -> JobRunner | None:
        settings = self.settings
        store = _job_store(settings)
        if store is None:
            return None
        secret = "" if settings.webhook_secret is None else settings.webhook_secret.get_secret_value()
        work = JobWork(self.recognizer, store, self.metrics, settings.job_timeout_s)
        return JobRunner(
            store,
            work.perform,
            problem=problem_document_of,
            document=lambda job: JobAnswer.of(job, store.retention_s).model_dump_json(),
            webhooks=Webhooks(settings.webhook_hosts, secret),
            at_once=settings.jobs_at_once,
            max_pending=settings.jobs_pending,
            max_pending_bytes=int(settings.jobs_pending_mb * BYTES_PER_MB),
            on_end=lambda job: self.metrics.jobs_ended.labels(job.kind.value, job.state.value).inc(),
        )

    def _open_teacher(self) -> Teacher | None:
        settings = self.settings
        if settings.teach_dir is None:
            return None
        limits = TeachLimits(
            settings.teach_max_examples, int(settings.teach_max_mb * BYTES_PER_MB), settings.teach_max_models
        )
        try:
            return Teacher(settings.teach_dir, self.recognizer, limits, self.metrics)
        except BlvnetError as exc:  # an image without a volume, or a second service: the rest works
            logger.warning("models cannot be taught: %s", exc.message)
            return None

    def start(self) -> None:
        """Start loading the models in the background; `/healthz` and `/readyz` answer in the meantime."""
        self._loading = asyncio.create_task(self.recognizer.start(), name="load models")
        self._loading.add_done_callback(lambda _: self._loaded.set())
        if self.jobs is not None:
            self.jobs.start()  # until the models are loaded, the recognizer rejects them

    async def started(self) -> None:
        """Wait until the models are loaded.

        Raises:
            BlvnetError: they cannot be loaded; the service will never be ready.
        """
        await self._loaded.wait()
        assert self._loading is not None
        await asyncio.shield(self._loading)

    def leave(self) -> None:
        """Report not ready from now on; requests are still accepted."""
        logger.info("reporting not ready before the shutdown")
        self._leaving = True

    def problem(self) -> str | None:
        """The reason why load balancers should not send requests; None if they should."""
        return "The service is shutting down." if self._leaving else self.recognizer.problem()

    def reload(self) -> None:
        """Read the key files again, and rescan the folder of packages in the background."""
        try:
            settings = with_current_keys(self.settings)
        except BadSetting as exc:
            logger.error("the keys stay as they are: %s", exc.message)
        else:
            self.keys.replace(settings.api_keys)
            self.admin_key.replace(settings.admin_key)
            logger.info("keys are read again", extra={"keys": len(settings.api_keys)})
        self.rescan()

    def rescan(self) -> None:
        """Serve the current contents of the folder of packages; loads in the background."""
        task = asyncio.create_task(self._rescan(), name="rescan models")
        self._rescans.add(task)
        task.add_done_callback(self._rescans.discard)

    async def _rescan(self) -> None:
        await self._loaded.wait()
        if self.recognizer.state is not RecognizerState.SERVING:
            return
        try:
            await self.recognizer.models.rescan()
        except PackageError as exc:
            logger.error("models cannot be rescanned: %s", exc.message)
        except Exception:  # nothing awaits this task, so an error not logged here would be lost
            logger.exception("models cannot be rescanned")
        else:
            entries = self.recognizer.models.entries()
            states = {f"{entry.name}/{entry.version}": entry.state.value for entry in entries}
            logger.info("models are rescanned", extra={"states": states})

    async def drain(self, grace_s: float) -> None:
        """Stop accepting requests, return jobs to the queue, and let accepted requests finish."""
        if self.jobs is not None:
            await self.jobs.stop()
        await self.recognizer.drain(grace_s)

    async def stop(self) -> None:
        """Stop everything; safe in every state."""
        if self.jobs is not None:
            await self.jobs.close()
        tasks = [*self._rescans] if self._loading is None else [self._loading, *self._rescans]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)  # their errors are in the log
        await self.recognizer.close()
        if self.teacher is not None:
            self.teacher.close()
        if self._rate is not None:
            await self._rate.close()


def _job_store(settings: Settings) -> JobStore | None:
    if settings.jobs_dir is not None:
        return FolderStore(settings.jobs_dir, settings.job_retention_s)
    if settings.jobs_redis_url is None:
        return None
    from service.jobs.redis.store import RedisStore  # its packages are optional

    return RedisStore(settings.jobs_redis_url.get_secret_value(), settings.job_retention_s)


def _request_rate(settings: Settings) -> RequestRate | None:
    if settings.key_requests_per_minute is None:
        return None
    local = LocalRate(settings.key_requests_per_minute)
    if settings.redis_url is None:
        return local
    from service.access.shared_rate import SharedRate  # its packages are optional

    return SharedRate(settings.redis_url.get_secret_value(), settings.key_requests_per_minute, local)
