"""The test suite. It mirrors the packages; shared helpers are in this folder."""

import os
import sys

# Disable telemetry before any test imports onnxruntime or OpenVINO; for
# OpenVINO see service/engines/__init__.py.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
