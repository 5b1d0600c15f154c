"""Settings: from the environment and options, checked at the start, reported in one line if invalid."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from service.engines.providers import Provider
from service.packages.folders import bundled_models
from service.settings import (
    BadSetting,
    LogFormat,
    Settings,
    load_settings,
    unknown_variables,
)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"BLVNET_{name.upper()}", raising=False)


def test_defaults_serve_the_bundled_models_on_loopback() -> None:
    settings = load_settings()
    assert (settings.host, settings.port, settings.models) == ("127.0.0.1", 8000, bundled_models())
    assert settings.max_upload_bytes == 100_000_000


def test_environment_sets_a_field(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLVNET_MAX_BATCH", "4")
    assert load_settings().max_batch == 4


def test_option_overrides_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLVNET_PORT", "1234")
    assert load_settings({"port": "4321"}).port == 4321


def test_option_that_is_none_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLVNET_PORT", "1234")
    assert load_settings({"port": None}).port == 1234


def test_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLVNET_API_KEYS", "")
    assert load_settings().api_keys == ()


def test_keys_are_separated_by_commas_and_never_shown() -> None:
    settings = load_settings({"api_keys": "first,second"})
    assert [key.get_secret_value() for key in settings.api_keys] == ["first", "second"]
    assert "first" not in repr(settings)


def test_choices_are_case_insensitive() -> None:
    settings = load_settings({"log_format": "JSON", "provider": "CPU"})
    assert (settings.log_format, settings.provider) == (LogFormat.JSON, Provider.CPU)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "eighty"),
        ("port", "65536"),
        ("port", "-1"),
        ("max_batch", "0"),
        ("max_batch", "1.5"),
        ("queue_limit", "0"),
        ("batch_wait_ms", "-1"),
        ("decode_memory_mb", "1"),
        ("max_upload_mb", "0"),
        ("max_upload_mb", "nan"),
        ("request_timeout_s", "inf"),
        ("provider", "rocm"),
        ("log_format", "xml"),
        ("log_level", "loud"),
        ("host", " "),
        ("api_keys", "one,,two"),
        ("api_keys", "with blank"),
        ("api_keys", "schlüssel"),
        ("admin_key", "with blank"),
        ("admin_key", "sha256:short"),
        ("versions_kept", "0"),
    ],
)
def test_invalid_value_is_reported_in_one_line_with_its_name(name: str, value: str) -> None:
    with pytest.raises(BadSetting) as caught:
        load_settings({name: value})
    assert caught.value.message.startswith(f"BLVNET_{name.upper()} (--{name.replace('_', '-')})")
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("name", ["api_keys", "admin_key"])
def test_invalid_key_is_not_shown(name: str) -> None:
    with pytest.raises(BadSetting) as caught:
        load_settings({name: "secret key"})
    assert "secret" not in caught.value.message


def test_admin_key_is_never_shown_and_differs_from_the_api_keys() -> None:
    digest = "sha256:" + hashlib.sha256(b"user").hexdigest()
    assert "admin" not in repr(load_settings({"api_keys": digest, "admin_key": "admin"}).admin_key)
    with pytest.raises(
        BadSetting, match=r"^BLVNET_ADMIN_KEY \(--admin-key\): it must not be one of the API keys"
    ):
        load_settings({"api_keys": digest, "admin_key": "user"})


def test_all_invalid_values_are_reported_together() -> None:
    with pytest.raises(BadSetting, match=r"BLVNET_MAX_BATCH .*; BLVNET_PORT "):
        load_settings({"port": "x", "max_batch": "y"})


def test_variable_that_is_no_setting_is_found() -> None:
    environment = {"BLVNET_PROT": "1", "BLVNET_PORT": "1", "PATH": "/bin", "blvnet_host": "a"}
    assert unknown_variables(environment) == ["BLVNET_PROT"]


@pytest.mark.parametrize("name", ["BLVNET_API_KEY", "BLVNET_APIKEYS", "blvnet_admin_keys"])
def test_unknown_variable_that_looks_like_a_key_is_refused(name: str) -> None:
    with pytest.raises(
        BadSetting, match=rf"{name} is set but is not a setting.*; did you mean BLVNET_"
    ) as caught:
        unknown_variables({name: "secret"})
    assert "secret" not in caught.value.message


def test_keys_are_read_from_files(tmp_path: Path) -> None:
    keys, admin = tmp_path / "keys", tmp_path / "admin"
    keys.write_text("first,second\nthird\n")
    admin.write_text("fourth\n")
    settings = load_settings({"api_keys_file": str(keys), "admin_key_file": str(admin)})
    assert [key.get_secret_value() for key in settings.api_keys] == ["first", "second", "third"]
    assert settings.admin_key is not None
    assert settings.admin_key.get_secret_value() == "fourth"


@pytest.mark.parametrize("name", ["api_keys_file", "admin_key_file"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "it cannot be read: No such file or directory"),
        (b"\n", "it contains no key"),
        (b"\xff", "it is not a text file"),
        (b"with space", "a key must be printable ASCII"),
    ],
)
def test_bad_key_file_is_refused(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    path = tmp_path / "keys"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadSetting) as caught:
        load_settings({name: str(path)})
    assert caught.value.message.startswith(f"BLVNET_{name.upper()} (--{name.replace('_', '-')})")
    assert message in caught.value.message
    assert "with space" not in caught.value.message


def test_key_file_and_keys_exclude_each_other(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("first")
    for name in ("api_keys", "admin_key"):
        with pytest.raises(BadSetting, match=f"cannot be combined with BLVNET_{name.upper()}_FILE"):
            load_settings({f"{name}_file": str(path), name: "second"})
    path.write_text("first,second")
    with pytest.raises(BadSetting, match="it must contain one key, not 2"):
        load_settings({"admin_key_file": str(path)})


def test_core_config_has_every_value() -> None:
    settings = load_settings(
        {
            "models": "/m", "provider": "cpu", "inference_threads": "3", "max_batch": "5",
            "batch_wait_ms": "1.5", "queue_limit": "7", "decode_workers": "9",
            "decode_timeout_s": "11", "decode_memory_mb": "512", "max_pixels": "100", "max_duration_s": "13",
        }
    )  # fmt: skip
    core = settings
    assert (core.models, core.provider, core.inference_threads) == (Path("/m"), "cpu", 3)
    assert (core.max_batch, core.batch_wait_ms, core.queue_limit) == (5, 1.5, 7)
    assert (core.decode_workers, core.decode_timeout_s, core.decode_memory_mb) == (9, 11.0, 512)
    assert (core.limits.max_pixels, core.limits.max_duration_s) == (100, 13.0)
