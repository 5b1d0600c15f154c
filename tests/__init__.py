"""The test suite. It mirrors the packages; helpers that many tests use lie beside this file."""

import os
import sys

# Before any test imports onnxruntime or OpenVINO, which report to their makers unless told not to; for
# OpenVINO see service/runtime/__init__.py.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
