"""Inference engines behind one protocol."""

import os
import sys

# Official builds of onnxruntime report to their maker as soon as they are imported, unless told not to.
# The command line says so too, before it imports anything; this is for the service as a library.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# OpenVINO's package does so too and cannot be told; it does without the module that it reports with, if that
# cannot be imported. (None in this table is Python's own way to say so.)
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
