"""An administrator with the real `tritonclient`, in a separate process; see `triton_user`.

    python -m tests.service.http.routes.triton_admin HOST:PORT KEY

Writes the answers as one JSON document.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from tritonclient import http
from tritonclient.utils import InferenceServerException

MODEL = "tiny"
FIRST_VERSION = json.dumps({"version_policy": {"specific": {"versions": [1]}}})


def main(address: str, key: str) -> dict[str, Any]:
    """Unload, load again, and load an older version; the index after each."""
    admin = {"Authorization": f"Bearer {key}"}
    with http.InferenceServerClient(address, network_timeout=120) as client:

        def index() -> Any:
            return client.get_model_repository_index(headers=admin)

        before = index()
        client.unload_model(MODEL, headers=admin)
        unloaded = index()
        client.load_model(MODEL, headers=admin)
        loaded = index()
        client.load_model(MODEL, headers=admin, config=FIRST_VERSION)
        return {
            "before": before,
            "unloaded": unloaded,
            "loaded": loaded,
            "older": index(),
            "no key": error(client, MODEL, {}),
            "nonesuch": error(client, "nonesuch", admin),
            "refused": error(client, "broken", admin),
        }


def error(client: Any, name: str, headers: dict[str, str]) -> str:
    """The error for a model that cannot be loaded."""
    try:
        client.load_model(name, headers=headers)
    except InferenceServerException as exc:
        return f"{exc.status()}: {exc.message()}"
    return "no error"


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(*sys.argv[1:])))
