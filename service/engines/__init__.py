"""Inference engines behind one protocol."""

import os
import sys

# Official builds of onnxruntime send telemetry on import unless this is set. The command line sets it too;
# this covers programs that use the service as a library.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# OpenVINO has no such switch. It works without its telemetry module, and a None here makes that import fail.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
