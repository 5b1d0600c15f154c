"""The test suite. It mirrors the packages; helpers that many tests use lie beside this file."""

import os

# Before any test imports onnxruntime, whose official builds report to their maker unless told not to.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
