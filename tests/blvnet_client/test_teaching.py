"""The client teaches a model: examples, training, descriptions and conflicts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from blvnet_client import (
    AsyncClient,
    AuthenticationError,
    Client,
    ConflictError,
    InvalidRequestError,
    LocalError,
    NotFoundError,
)
from tests.support.server import RunningServer, running_server
from tests.support.tiny_models import TinyModel, colour_clip, write_package


@pytest.fixture(scope="module")
def teachable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that can be taught."""
    models = tmp_path_factory.mktemp("models")
    write_package(models, "base", model=TinyModel(features=True))
    with running_server(models, TEACH_DIR=tmp_path_factory.mktemp("taught")) as running:
        yield running


def shades(red: int, green: int, blue: int) -> list[bytes]:
    """Clips of one colour in three shades."""
    return [colour_clip((red * part // 10, green * part // 10, blue * part // 10)) for part in (10, 9, 8)]


def test_model_is_taught_described_and_deleted(teachable: RunningServer) -> None:
    examples = {"warm": shades(255, 0, 0), "cold": shades(0, 0, 255)}
    with Client(teachable.url) as client:
        with pytest.raises(InvalidRequestError) as caught:
            client.teach("weather", {"warm": examples["warm"][:1]})
        assert caught.value.code == "too_few_examples"
        trained = client.teach("weather", examples)
        assert (trained.name, sorted(trained.labels)) == ("weather", ["cold", "warm"])
        assert client.classify(examples["cold"][0], model="weather").best.label == "cold"
        added = client.add_example("weather", "warm", examples["warm"][0])
        assert (added.created, added.labels) == (False, {"warm": 3, "cold": 3})
        with pytest.raises(ConflictError) as conflict:
            client.add_example("weather", "cold", examples["warm"][0])
        assert conflict.value.code == "label_conflict"
        [listed] = client.taught_models().taught
        assert (listed.name, listed.examples) == ("weather", 6)
        described = client.taught_model("weather")
        assert isinstance(described.examples, tuple)
        for no_id in ("..", ".", ""):  # the first would be the path of the model
            with pytest.raises(LocalError, match="an id"):
                client.delete_example("weather", no_id)
        assert client.delete_example("weather", described.examples[0].id).examples == 5
        client.delete_taught("weather")
        for no_model in ("weather", "a/b", "é", "\ud800"):
            with pytest.raises(NotFoundError):
                client.taught_model(no_model)


def test_asynchronous_client_teaches_too(teachable: RunningServer) -> None:
    async def teach() -> None:
        async with AsyncClient(teachable.url) as client:
            trained = await client.teach("colours", {"red": shades(255, 0, 0), "green": shades(0, 255, 0)})
            assert trained.version == 1
            assert (await client.classify(shades(0, 255, 0)[1], model="colours")).best.label == "green"
            await client.delete_taught("colours")

    asyncio.run(teach())


def test_service_without_a_folder_cannot_be_taught(server: RunningServer, red_clip: bytes) -> None:
    with Client(server.url) as client, pytest.raises(AuthenticationError) as caught:
        client.add_example("weather", "warm", red_clip)
    assert caught.value.code == "teaching_off"
