"""Every setting of the service in one class: read from the environment, checked once, then passed on.

`blvnet serve --max-batch 4` and `BLVNET_MAX_BATCH=4` set the same field; the option wins. A name starting
with `BLVNET_` that is no setting is almost always a typing error: `unknown_variables` finds it to warn.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from service.clip.video import DecodeLimits
from service.errors import BlvnetError
from service.keys import is_one_of, is_well_formed
from service.pipeline.core_config import CoreConfig
from service.runtime.remembered import default_cache_dir

PREFIX = "BLVNET_"
BYTES_PER_MB = 1_000_000


class BadSetting(BlvnetError):
    """A setting has a value that it cannot take."""

    exit_code = 2  # of the command line: it was used wrongly


class Provider(StrEnum):
    """Where inference runs; `auto` takes the best that is there and says which."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    TENSORRT = "tensorrt"
    OPENVINO = "openvino"


class LogFormat(StrEnum):
    """How a log line looks."""

    CONSOLE = "console"
    JSON = "json"


class LogLevel(StrEnum):
    """The least severe line that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def bundled_models() -> Path:
    """The folder of the demo model that comes with the distribution."""
    return Path(str(files("service"))) / "demo_models"


class Settings(BaseSettings):
    """The settings of one process. Descriptions are the help texts of `blvnet serve`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True, validate_default=True
    )

    models: Path = Field(
        default_factory=bundled_models,
        description="Folder of model packages, MODELS/NAME/VERSION; the bundled demo model if not given.",
    )
    default_model: str | None = Field(
        None, description="Model for requests that name none; the first by name if not given."
    )
    versions_kept: int = Field(
        1, ge=1, le=100, description="Versions of each model that serve side by side, the highest ones."
    )
    host: str = Field("127.0.0.1", pattern=r"^\S+$", description="Address to listen on; 0.0.0.0 for all.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    metrics_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="A port of its own for /metrics, /healthz and /readyz; /metrics then leaves the other.",
    )
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (),
        description="Accepted API keys, separated by commas; none leaves the service open. Better set in the "
        "environment: other users of the machine can read a command line. A key may be given as sha256:HEX.",
    )
    key_requests_per_minute: int | None = Field(
        None, ge=1, le=1_000_000, description="Most clips in a minute with one API key; past it 429."
    )
    key_requests_at_once: int | None = Field(
        None, ge=1, le=100_000, description="Most clips under way with one API key; past it 429."
    )

    admin_key: SecretStr | None = Field(
        None,
        description="Key that loading and unloading models over HTTP asks for, as it is or as sha256:HEX; "
        "without one nobody may. Better set in the environment.",
    )

    provider: Provider = Field(Provider.AUTO, description="Where inference runs.")
    inference_threads: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="Threads of inference; as many as the CPUs it may use if not given. A lone clip gets "
        "them all, several get one each.",
    )
    max_batch: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="Most clips in one inference; if not given, 1 on CPUs, where more gain nothing, and on a "
        "GPU as many as are found to pay.",
    )
    batch_wait_ms: float = Field(
        2.0, ge=0, le=10_000, description="How long a clip waits for others to share its inference."
    )
    queue_limit: int = Field(
        64, ge=1, le=100_000, description="Most requests waiting or in work; past it the answer is 503."
    )
    latency_target_s: float = Field(
        1.0,
        gt=0,
        le=3600,
        description="Clips are accepted while they should be answered within so many seconds, by what was "
        "measured; past it 503. A few are always accepted, 8 for each CPU.",
    )

    decode_workers: int | None = Field(
        None, ge=1, le=1024, description="Processes that decode; as many as the CPUs if not given."
    )
    decode_timeout_s: float = Field(
        8.0, gt=0, le=3600, description="Longest that one clip may take to decode."
    )
    decode_memory_mb: int = Field(
        1024, ge=128, le=1_000_000, description="Memory that one decode worker may use, in MB of 10^6 bytes."
    )

    max_upload_mb: float = Field(100.0, gt=0, le=100_000, description="Largest upload, in MB of 10^6 bytes.")
    max_pixels: int = Field(
        4096 * 2304, ge=1, le=2**31 - 1, description="Most pixels in one frame of a clip, width x height."
    )
    max_duration_s: float = Field(600.0, gt=0, le=864_000, description="Longest clip.")
    max_frames: int = Field(36_000, ge=1, le=10_000_000, description="Most frames in a clip.")
    max_decoded_pixels: int = Field(
        20_000_000_000,
        ge=1,
        le=10**15,
        description="Most pixels to decode for a clip, frames x width x height.",
    )
    max_streams: int = Field(64, ge=1, le=1000, description="Most tracks in a clip's file.")
    max_edits: int = Field(1000, ge=1, le=1_000_000, description="Most entries in an mp4's edit list.")
    probe_mb: float = Field(
        5.0,
        ge=0.01,
        le=1000,
        description="How far into a file its tracks are looked for, in MB of 10^6 bytes.",
    )
    request_timeout_s: float = Field(
        30.0, gt=0, le=3600, description="Longest that a request may take, its upload included; then 504."
    )
    max_windows: int = Field(3600, ge=1, le=1_000_000, description="Most windows of a timeline.")
    timelines_at_once: int = Field(
        2,
        ge=1,
        le=1024,
        description="Most timelines in work, each with a process of its own that decodes; past it 503.",
    )
    timeline_timeout_s: float = Field(
        600.0, gt=0, le=86_400, description="Longest that a timeline may take, its upload included; then 504."
    )
    self_test_s: float = Field(
        20.0,
        ge=0.1,
        le=3600,
        description="A model that has run nothing for so long is tested with a black clip; /readyz tells.",
    )
    shutdown_grace_s: float = Field(
        30.0, ge=0, le=3600, description="How long accepted requests may go on after SIGTERM."
    )

    cache_dir: Path = Field(
        default_factory=default_cache_dir,
        description="Folder that keeps which engine was fastest, and TensorRT's engines.",
    )

    log_format: LogFormat = Field(LogFormat.CONSOLE, description="How a log line looks.")
    log_level: LogLevel = Field(LogLevel.INFO, description="The least severe line that is written.")

    @field_validator("api_keys", mode="before")
    @classmethod
    def _split_keys(cls, value: object) -> object:
        return tuple(value.split(",")) if isinstance(value, str) else value

    @field_validator("api_keys")
    @classmethod
    def _check_keys(cls, keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for key in keys:
            _check_key(key)
        return keys

    @field_validator("admin_key")
    @classmethod
    def _check_admin_key(cls, key: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if key is not None:
            _check_key(key)
            if is_one_of(key, info.data.get("api_keys", ())):
                raise ValueError("it must not be one of the API keys")
        return key

    @field_validator("key_requests_per_minute", "key_requests_at_once")
    @classmethod
    def _needs_keys(cls, limit: int | None, info: ValidationInfo) -> int | None:
        if limit is not None and not info.data.get("api_keys"):
            raise ValueError("it counts by API key, and no keys are set")
        return limit

    @field_validator("log_level", "log_format", "provider", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @property
    def max_upload_bytes(self) -> int:
        """The largest upload in bytes."""
        return int(self.max_upload_mb * BYTES_PER_MB)

    def core_config(self, cores: int | None = None) -> CoreConfig:
        """What of this the recognizer needs; `cores`, where whoever starts the process gives it so many."""
        return CoreConfig(
            models=self.models,
            provider=self.provider,
            default_model=self.default_model,
            versions_kept=self.versions_kept,
            inference_threads=self.inference_threads,
            cores=cores,
            max_batch=self.max_batch,
            batch_wait_ms=self.batch_wait_ms,
            queue_limit=self.queue_limit,
            latency_target_s=self.latency_target_s,
            decode_workers=self.decode_workers,
            decode_timeout_s=self.decode_timeout_s,
            decode_memory_mb=self.decode_memory_mb,
            timelines_at_once=self.timelines_at_once,
            timeline_timeout_s=self.timeline_timeout_s,
            self_test_s=self.self_test_s,
            inference_limit_s=self.request_timeout_s,  # what takes longer answers nobody
            cache_dir=self.cache_dir,
            limits=DecodeLimits(
                max_pixels=self.max_pixels,
                max_duration_s=self.max_duration_s,
                max_frames=self.max_frames,
                max_decoded_pixels=self.max_decoded_pixels,
                max_streams=self.max_streams,
                max_edits=self.max_edits,
                max_windows=self.max_windows,
                probe_bytes=round(self.probe_mb * 1e6),
            ),
        )


def load_settings(options: Mapping[str, Any] | None = None) -> Settings:
    """The settings from the environment, overridden by `options` (field name to value; None is not given).

    Raises:
        BadSetting: a value is of the wrong type or out of range; the message is one line and names them all.
    """
    given = {name: value for name, value in (options or {}).items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as exc:
        raise BadSetting("; ".join(_complaint(error) for error in exc.errors(include_url=False))) from None


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Names in `environment` that start like a setting and are none, sorted."""
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    return sorted(
        name for name in environment if name.upper().startswith(PREFIX) and name.upper() not in known
    )


def _check_key(key: SecretStr) -> None:
    if not is_well_formed(key.get_secret_value()):
        raise ValueError(
            "a key must be printable ASCII without blanks and not empty, or sha256: and 64 hex digits"
        )


def _complaint(error: Mapping[str, Any]) -> str:
    name = str(error["loc"][0])
    # What was given is shown, but for keys, which are secrets even when they are wrong.
    given = "" if name in ("api_keys", "admin_key") else f" is {str(error['input'])!r}"
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return f"{PREFIX}{name.upper()} (--{name.replace('_', '-')}){given}: {message}"
