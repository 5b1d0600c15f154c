from __future__ import annotations

import json
from typing import Any

import pytest

from service.errors import BadRequest
from service.http.open_inference.model_control import (
    MAX_VERSIONS,
    STATES,
    IndexRequest,
    LoadRequest,
    UnloadRequest,
    parse,
    requested_policy,
)
from service.models.loading import ALL_VERSIONS, VersionPolicy
from service.pipeline.models.entry import ModelState

GREATEST = 2**63 - 1


def load(config: Any) -> LoadRequest:
    document = {"parameters": {"config": config if isinstance(config, str) else json.dumps(config)}}
    return parse(json.dumps(document).encode(), LoadRequest)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({"latest": {}}, VersionPolicy(1)),
        ({"latest": {"num_versions": 1}}, VersionPolicy(1)),
        ({"latest": {"num_versions": MAX_VERSIONS}}, VersionPolicy(100)),
        ({"all": {}}, VersionPolicy(ALL_VERSIONS)),
        ({"specific": {"versions": [1, GREATEST]}}, VersionPolicy(ALL_VERSIONS, frozenset({1, GREATEST}))),
        (
            {"specific": {"versions": list(range(1, 101))}},
            VersionPolicy(ALL_VERSIONS, frozenset(range(1, 101))),
        ),
    ],
)
def test_policies_of_triton_are_understood(policy: dict[str, Any], expected: VersionPolicy) -> None:
    assert requested_policy(load({"version_policy": policy})) == expected


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ({}, r"^version_policy: must be one of latest, all and specific$"),
        ({"all": {}, "latest": {}}, r"^version_policy: must be one of latest, all and specific$"),
        ({"all": None}, r"^version_policy: must be one of latest, all and specific$"),
        ({"latest": {"num_versions": 0}}, r"num_versions: should be greater than or equal to 1$"),
        ({"latest": {"num_versions": 101}}, r"num_versions: should be less than or equal to 100$"),
        ({"latest": {"num": 1}}, r"^version_policy\.latest\.num: Extra inputs are not permitted$"),
        ({"all": {"of": 1}}, r"^version_policy\.all\.of: Extra inputs are not permitted$"),
        ({"specific": {}}, r"^version_policy\.specific\.versions: Field required$"),
        ({"specific": {"versions": []}}, r"at least 1 item"),
        ({"specific": {"versions": list(range(1, 102))}}, r"at most 100 items"),
        ({"specific": {"versions": [0]}}, r"versions\.0: should be greater than or equal to 1$"),
        ({"specific": {"versions": [GREATEST + 1]}}, r"versions\.0: should be less than or equal to 92233"),
        ({"newest": {}}, r"newest: Extra inputs are not permitted"),
    ],
)
def test_other_policies_are_refused_with_their_place(policy: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        requested_policy(load({"version_policy": policy}))


def test_configuration_contains_a_version_policy_alone() -> None:
    policy: dict[str, Any] = {"version_policy": {"all": {}}}
    with pytest.raises(BadRequest, match=r"^max_batch_size: Extra inputs are not permitted$"):
        requested_policy(load(policy | {"max_batch_size": 4}))
    with pytest.raises(BadRequest, match=r"^version_policy: Field required$"):
        requested_policy(load({}))
    with pytest.raises(BadRequest, match=r"^The request: Invalid JSON"):
        requested_policy(load("{"))


@pytest.mark.parametrize("body", [b"", b"{}", b'{"parameters": {}}', b'{"parameters": {"config": null}}'])
def test_without_a_configuration_the_settings_decide(body: bytes) -> None:
    assert requested_policy(parse(body, LoadRequest)) is None


def test_long_configurations_and_files_are_refused() -> None:
    padded = json.dumps({"version_policy": {"all": {}}}).ljust(10_000)
    assert requested_policy(load(padded)) == VersionPolicy(ALL_VERSIONS)
    with pytest.raises(BadRequest, match=r"^parameters\.config: .* at most 10000 characters$"):
        load(padded + " ")
    with pytest.raises(BadRequest, match=r"^parameters\.file:1/model\.onnx: Extra inputs are not permitted$"):
        parse(b'{"parameters": {"file:1/model.onnx": "AAAA"}}', LoadRequest)
    with pytest.raises(BadRequest, match=r"^x{200}: Extra"):
        parse(json.dumps({"x" * 300: 1}).encode(), LoadRequest)


def test_index_lists_all_packages_unless_only_ready_ones_are_wanted() -> None:
    assert parse(b"", IndexRequest).ready is False
    assert parse(b'{"ready": true}', IndexRequest).ready is True
    for body in (b'{"ready": 1}', b'{"ready": "true"}', b'{"all": true}'):
        with pytest.raises(BadRequest):
            parse(body, IndexRequest)


def test_unload_ignores_what_it_does_not_know() -> None:
    assert parse(b"", UnloadRequest).parameters == {}
    assert parse(b'{"parameters": {"unload_dependents": false}, "x": 1}', UnloadRequest).parameters == {
        "unload_dependents": False
    }


def test_triton_has_three_states() -> None:
    assert set(STATES) == set(ModelState)
    assert {state for state, name in STATES.items() if name == "UNAVAILABLE"} == {
        ModelState.UNLOADED,
        ModelState.REFUSED,
    }
