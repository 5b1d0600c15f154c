"""Settings of the service, from environment variables and from options of `blvnet serve`.

`blvnet serve --max-batch 4` and `BLVNET_MAX_BATCH=4` set the same field; the option takes precedence. A
`BLVNET_` variable that is not a setting is most likely misspelled; `unknown_variables` finds those.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from difflib import get_close_matches
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from service.access.keys import is_one_of, is_well_formed
from service.errors import BlvnetError
from service.installation import install_command
from service.pipeline.core_config import BYTES_PER_MB, CoreConfig

PREFIX = "BLVNET_"
CLIENT_KEY = "BLVNET_API_KEY"  # read by the command line; not a setting of the service
ORIGIN = re.compile(r"\*|https?://[^/\s?#@,]+")
SECRET = ("api_keys", "admin_key", "redis_url", "jobs_redis_url", "webhook_secret")
# The range that the Standard Webhooks specification recommends.
MIN_WEBHOOK_SECRET_BYTES, MAX_WEBHOOK_SECRET_BYTES = 24, 64


class BadSetting(BlvnetError):
    """A setting has an invalid value."""

    exit_code = 2  # exit status of the command line for wrong usage


class LogFormat(StrEnum):
    """Format of log lines."""

    CONSOLE = "console"
    JSON = "json"


class LogLevel(StrEnum):
    """Lowest severity that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class AccessSettings(BaseModel):
    """Settings of API keys, of their limits and of the admin key."""

    api_keys_file: Path | None = Field(
        None, description="File with the accepted API keys, separated by commas or line breaks."
    )
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (),
        description="Accepted API keys, separated by commas, in plain text or as sha256:HEX; without any "
        "the service is open. Prefer the environment variable: other users can read a command line.",
    )
    key_requests_per_minute: int | None = Field(
        None, ge=1, le=1_000_000, description="Maximum requests per minute for each API key; above it 429."
    )
    key_requests_at_once: int | None = Field(
        None, ge=1, le=100_000, description="Maximum concurrent requests for each API key; above it 429."
    )
    redis_url: SecretStr | None = Field(
        None,
        description="Redis that counts requests per minute for all replicas, redis://HOST:PORT/DATABASE; "
        "without it each replica counts by itself.",
    )
    admin_key_file: Path | None = Field(None, description="File with the admin key.")
    admin_key: SecretStr | None = Field(
        None,
        description="Key for loading and unloading models over HTTP, in plain text or as sha256:HEX; without "
        "one this is disabled. Prefer the environment variable.",
    )

    @field_validator("api_keys_file")
    @classmethod
    def _check_api_keys_file(cls, path: Path | None) -> Path | None:
        if path is not None:
            for key in _read_keys(path):
                _check_key(SecretStr(key))
        return path

    @field_validator("api_keys", mode="before")
    @classmethod
    def _split_keys(cls, value: object, info: ValidationInfo) -> object:
        if (keys := _from_file(value, info)) is not None:
            return keys
        return tuple(value.split(",")) if isinstance(value, str) else value

    @field_validator("api_keys")
    @classmethod
    def _check_keys(cls, keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for key in keys:
            _check_key(key)
        return keys

    @field_validator("admin_key_file")
    @classmethod
    def _check_admin_key_file(cls, path: Path | None) -> Path | None:
        if path is not None:
            keys = _read_keys(path)
            if len(keys) > 1:
                raise ValueError(f"it must contain one key, not {len(keys)}")
            _check_key(SecretStr(keys[0]))
        return path

    @field_validator("admin_key", mode="before")
    @classmethod
    def _read_admin_key(cls, value: object, info: ValidationInfo) -> object:
        keys = _from_file(value, info)
        return value if keys is None else keys[0]

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
            raise ValueError("it applies to API keys, and none are set")
        return limit

    @field_validator("redis_url")
    @classmethod
    def _check_redis(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None:
            if not re.match(r"rediss?(\+unix)?://.", url.get_secret_value()):
                raise ValueError("it must start with redis://, rediss:// or redis+unix://")
            _check_packages("limits", "redis")
        return url


class JobSettings(BaseModel):
    """Settings of jobs and of their webhooks."""

    jobs_dir: Path | None = Field(
        None,
        description="Folder for jobs, their videos and results, on a local disk. Without it and without a "
        "Redis for them, jobs are disabled.",
    )
    jobs_redis_url: SecretStr | None = Field(
        None,
        description="Redis for jobs, their videos and results, in place of the folder: for replicas on "
        "several hosts. redis://HOST:PORT/DATABASE.",
    )
    jobs_at_once: int = Field(
        1, ge=1, le=100, description="Maximum number of jobs that run at the same time."
    )
    jobs_pending: int = Field(
        1000, ge=1, le=1_000_000, description="Maximum number of unfinished jobs; above it 503."
    )
    jobs_pending_mb: float = Field(
        10_000.0,
        gt=0,
        le=10_000_000,
        description="Maximum total size of the videos of unfinished jobs, in Redis with all results, in MB "
        "of 10^6 bytes; above it 503.",
    )
    job_timeout_s: float = Field(
        7200.0, gt=0, le=864_000, description="Time limit for running one job; then it fails."
    )
    job_retention_s: float = Field(
        86_400.0, gt=0, le=31_536_000, description="How long finished jobs and their results are kept."
    )
    webhook_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Hosts that webhooks of jobs may call, separated by commas. A host name may only have "
        "public addresses; a private address has to be listed itself.",
    )
    webhook_secret_file: Path | None = Field(
        None, description="File with the key of the webhooks' signatures."
    )
    webhook_secret: SecretStr | None = Field(
        None, description="Key of the webhooks' signatures, whsec_ and base64. Prefer the file."
    )

    @field_validator("jobs_redis_url")
    @classmethod
    def _check_jobs_redis(cls, url: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if url is not None:
            if not re.match(r"(rediss?|unix)://.", url.get_secret_value()):
                raise ValueError("it must start with redis://, rediss:// or unix://")
            if info.data.get("jobs_dir") is not None:
                raise ValueError("it cannot be combined with BLVNET_JOBS_DIR")
            _check_packages("saq", "redis")
        return url

    @field_validator("webhook_hosts", mode="before")
    @classmethod
    def _split_hosts(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value

    @field_validator("webhook_secret", mode="before")
    @classmethod
    def _read_webhook_secret(cls, value: object, info: ValidationInfo) -> object:
        keys = _from_file(value, info)
        return value if keys is None else keys[0]

    @field_validator("webhook_secret")
    @classmethod
    def _check_webhook_secret(cls, secret: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if secret is None:
            if info.data.get("webhook_hosts"):
                raise ValueError("it is needed because BLVNET_WEBHOOK_HOSTS is set")
            return None
        try:
            key = base64.b64decode(secret.get_secret_value().removeprefix("whsec_"), validate=True)
        except ValueError:
            key = b""
        if not MIN_WEBHOOK_SECRET_BYTES <= len(key) <= MAX_WEBHOOK_SECRET_BYTES:
            raise ValueError("it must be whsec_ and the base64 of 24 to 64 random bytes")
        return secret


class Settings(BaseSettings, JobSettings, AccessSettings, CoreConfig):
    """Settings of the service. The descriptions are the help texts of `blvnet serve`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True, validate_default=True
    )

    host: str = Field("127.0.0.1", pattern=r"^\S+$", description="Address to listen on; 0.0.0.0 for all.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 picks a free port.")
    metrics_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="Separate port for /metrics, /healthz and /readyz; /metrics is then only there.",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Origins whose pages may call the service from a browser, such as https://example.org, "
        "separated by commas; * for all. By default only the service's own pages may.",
    )
    max_upload_mb: float = Field(
        100.0, gt=0, le=100_000, description="Maximum upload size, in MB of 10^6 bytes."
    )
    max_json_mb: float = Field(
        4.0, gt=0, le=1000, description="Maximum size of a JSON document in a request, in MB of 10^6 bytes."
    )
    cache_mb: float = Field(
        0.0,
        ge=0,
        le=100_000,
        description="Size of the cache of answers, in MB of 10^6 bytes; 0 disables it.",
    )
    shutdown_delay_s: float = Field(
        0.0,
        ge=0,
        le=3600,
        description="How long after SIGTERM /readyz answers 503 while new requests are still accepted, so "
        "that load balancers can react.",
    )
    shutdown_grace_s: float = Field(
        30.0, ge=0, le=3600, description="How long accepted requests may continue after SIGTERM."
    )

    revision: str = Field(
        "unknown",
        max_length=100,
        description="Revision of the source, for blvnet_build_info; set by the image.",
    )
    log_format: LogFormat = Field(LogFormat.CONSOLE, description="Format of log lines.")
    log_level: LogLevel = Field(LogLevel.INFO, description="Lowest severity that is logged.")

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split_origins(cls, value: object) -> object:
        return tuple(value.split(",")) if isinstance(value, str) else value

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if not ORIGIN.fullmatch(origin):
                raise ValueError("an origin is http:// or https:// with a host and perhaps a port, or *")
        return origins

    @field_validator("log_level", "log_format", mode="before")
    @classmethod
    def _lower_case(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @property
    def max_upload_bytes(self) -> int:
        """Maximum upload size in bytes."""
        return int(self.max_upload_mb * BYTES_PER_MB)

    @property
    def cache_bytes(self) -> int:
        """Size of the cache of answers in bytes."""
        return int(self.cache_mb * BYTES_PER_MB)

    @property
    def max_json_bytes(self) -> int:
        """Maximum size of a JSON document in bytes."""
        return int(self.max_json_mb * BYTES_PER_MB)


def load_settings(options: Mapping[str, Any] | None = None) -> Settings:
    """Read the settings from the environment, overridden by `options` (field name -> value, None is ignored).

    Raises:
        BadSetting: values have the wrong type or are out of range; one line names all of these settings.
    """
    overrides = {name: value for name, value in (options or {}).items() if value is not None}
    try:
        return Settings(**overrides)
    except ValidationError as exc:
        raise BadSetting("; ".join(_complaint(error) for error in exc.errors(include_url=False))) from None


def with_current_keys(settings: Settings) -> Settings:
    """Return the settings with the current contents of the key files.

    Raises:
        BadSetting: a file cannot be read or contains an invalid key.
    """
    given = settings.model_dump(exclude_unset=True)
    for name in ("api_keys", "admin_key"):
        if given.get(f"{name}_file") is not None:
            given.pop(name, None)
    return load_settings(given)


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Return the sorted names in `environment` that start with `BLVNET_` and are not settings.

    Raises:
        BadSetting: a name looks like a misspelled key setting; without the key anyone could use the service.
    """
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    unknown = sorted(
        name for name in environment if name.upper().startswith(PREFIX) and name.upper() not in known
    )
    for name in unknown:
        if "KEY" in name.upper():
            close = get_close_matches(name.upper(), [item for item in known if "KEY" in item], n=1)
            suggestion = f"; did you mean {close[0]}?" if close else ""
            if name == CLIENT_KEY:
                suggestion += f" Only clients read {name}; for them, set it in their environment alone"
            raise BadSetting(f"{name} is set but is not a setting of the service{suggestion}")
    return unknown


def _check_packages(*modules: str) -> None:
    if any(find_spec(module) is None for module in modules):
        raise ValueError(f"it needs more packages: {install_command('redis')}")


def _from_file(value: object, info: ValidationInfo) -> tuple[str, ...] | None:
    """The keys in the file that the setting `NAME_file` of a setting `NAME` names; None without a file."""
    file = f"{info.field_name}_file"
    if (path := info.data.get(file)) is None:
        return None
    if value:
        raise ValueError(f"it cannot be combined with {PREFIX}{file.upper()}")
    return _read_keys(path)


def _read_keys(path: Path) -> tuple[str, ...]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as exc:
        raise ValueError(f"it cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ValueError("it is not a text file") from exc
    keys = tuple(key for key in text.replace(",", "\n").splitlines() if key)
    if not keys:
        raise ValueError("it contains no key")
    return keys


def _check_key(key: SecretStr) -> None:
    if not is_well_formed(key.get_secret_value()):
        raise ValueError(
            "a key must be printable ASCII without spaces and not empty, or sha256: and 64 hex digits"
        )


def _complaint(error: Mapping[str, Any]) -> str:
    name = str(error["loc"][0])
    # Secrets are not shown even when they are invalid.
    shown = "" if name in SECRET else f" is {str(error['input'])!r}"
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return f"{PREFIX}{name.upper()} (--{name.replace('_', '-')}){shown}: {message}"
