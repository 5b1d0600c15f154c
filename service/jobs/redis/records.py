"""The records of jobs in Redis, which `service.jobs.redis.scripts` changes atomically.

A record says what is known about a job. Which process runs it is decided by `service.jobs.redis.store`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from service.jobs.job import Job, JobKind, JobRequest, JobState
from service.jobs.redis.connection import PREFIX, RedisConnection, guarded
from service.jobs.redis.scripts import ADD, CHANGE, DELETE, DUE_WEBHOOKS


class JobRecords:
    """The records in one Redis database. Methods raise `JobsUnavailable` unless they state other errors.

    Args:
        redis: the database.
        clock: seconds since 1970.
    """

    def __init__(self, redis: RedisConnection, clock: Callable[[], float]) -> None:
        self._redis = redis
        self._clock = clock

    async def add(self, job_id: str, request: JobRequest) -> str | None:
        """Write the record of a queued job whose video is already stored.

        Returns:
            The job's id, or that of the earlier job with the idempotency key; None if the video has expired.

        Raises:
            StorageFull: the memory of Redis is full.
        """
        now = self._clock()
        idempotency = None
        if request.idempotency_key is not None:
            idempotency = f"key:{request.caller}:{request.idempotency_key}"
        fields = _present(
            id=job_id,
            kind=request.kind.value,
            parameters=json.dumps(dict(request.parameters), sort_keys=True),
            caller=request.caller,
            request_id=request.request_id,
            idempotency_key=request.idempotency_key,
            idempotency=idempotency,
            video_sha256=request.video_sha256,
            video_bytes=request.video_bytes,
            webhook=request.webhook,
            state=JobState.QUEUED.value,
            created_s=now,
        )
        added = await self._redis.script(
            ADD,
            **_present(idempotency=idempotency),
            id=job_id,
            created_s=repr(now),
            video_bytes=str(request.video_bytes),
            fields=fields,
        )
        return None if added is None else str(added.decode())

    async def get(self, job_id: str) -> Job | None:
        """A job by its id."""
        with guarded():
            fields = await self._redis.command("HGETALL", key("job", job_id))
        return _job(fields) if fields else None

    async def not_before_s(self, job_id: str) -> float:
        """When a job may run, in seconds since 1970; 0 for at once. Raises the errors of redis-py."""
        return float(await self._redis.command("HGET", key("job", job_id), "not_before_s") or 0.0)

    async def holder(self, job_id: str) -> tuple[JobState | None, str | None]:
        """The state of a job and the token of its last claim. Raises the errors of redis-py."""
        state, token = await self._redis.command("HMGET", key("job", job_id), "state", "claim")
        return None if state is None else JobState(state.decode()), None if token is None else token.decode()

    async def change(
        self,
        job_id: str,
        allowed: tuple[JobState, ...],
        fields: Mapping[str, Any],
        *,
        state: tuple[JobState, float] | None = None,
        **changes: Any,
    ) -> bool:
        """Change a job as `scripts.CHANGE` does, which describes `changes`; False if it refuses.

        Args:
            job_id: the job.
            allowed: states in which it is changed.
            fields: fields to set; None leaves a field as it is.
            state: its new state, and the time by which jobs in that state are ordered.
            changes: further arguments of the script.
        """
        if state is not None:
            changes |= {"state": state[0].value, "score": repr(state[1])}
        changed = await self._redis.script(
            CHANGE,
            id=job_id,
            allowed=[name.value for name in allowed],
            fields=_present(**fields),
            **changes,
        )
        return bool(changed)

    async def delete(self, job_id: str) -> None:
        """Delete a job with its video and result."""
        await self._redis.script(DELETE, id=job_id)

    async def ids(self, states: tuple[JobState, ...], until_s: float | str = "+inf") -> list[str]:
        """The jobs in some states, created or finished by `until_s`. Raises the errors of redis-py."""
        found = [
            await self._redis.command("ZRANGEBYSCORE", key("state", state), "-inf", until_s)
            for state in states
        ]
        return [job_id.decode() for ids in found for job_id in ids]

    async def due_webhooks(self, limit: int, lease_s: float) -> list[Job]:
        """Return up to `limit` jobs whose webhook is due, and make them due again after `lease_s`."""
        now = self._clock()
        due = await self._redis.script(
            DUE_WEBHOOKS, now_s=repr(now), until_s=repr(now + lease_s), limit=limit
        )
        jobs = [await self.get(job_id.decode()) for job_id in due]
        return [job for job in jobs if job is not None]

    async def counts(self) -> dict[JobState, int]:
        """Number of jobs in each state."""
        with guarded():
            return {state: await self._redis.command("ZCARD", key("state", state)) for state in JobState}

    async def stored_bytes(self) -> int:
        """Total size of the videos of unfinished jobs and of all results, which share the memory of Redis."""
        with guarded():
            return int(await self._redis.command("GET", f"{PREFIX}bytes") or 0)


def key(kind: str, *names: str) -> str:
    """Return a key that `service.jobs.redis.scripts` describes."""
    return PREFIX + ":".join((kind, *names))


def _present(**fields: Any) -> dict[str, str]:
    """Return the fields that are not None as text; `repr` keeps all digits of a time."""
    return {
        name: value if isinstance(value, str) else repr(value)
        for name, value in fields.items()
        if value is not None
    }


def _job(fields: Mapping[bytes, bytes]) -> Job:
    text = {name.decode(): value.decode() for name, value in fields.items()}

    def number(name: str) -> int:
        return int(text.get(name, 0))

    def time_of(name: str) -> float | None:
        return float(text[name]) if name in text else None

    return Job(
        id=text["id"],
        kind=JobKind(text["kind"]),
        parameters=json.loads(text["parameters"]),
        caller=text["caller"],
        request_id=text["request_id"],
        idempotency_key=text.get("idempotency_key"),
        video_sha256=text["video_sha256"],
        video_bytes=number("video_bytes"),
        webhook=text.get("webhook"),
        state=JobState(text["state"]),
        created_s=float(text["created_s"]),
        started_s=time_of("started_s"),
        finished_s=time_of("finished_s"),
        attempts=number("attempts"),
        windows=number("windows"),
        windows_total=number("windows_total"),
        result=text.get("result"),
        problem=json.loads(text["problem"]) if "problem" in text else None,
        webhook_attempts=number("webhook_attempts"),
        webhook_due_s=time_of("webhook_due_s"),
        webhook_delivered=bool(number("webhook_delivered")),
    )
