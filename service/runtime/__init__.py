"""Inference engines behind one protocol."""

import os

# Official builds of onnxruntime report to their maker as soon as they are imported, unless told not to.
# The command line says so too, before it imports anything; this is for the service as a library.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
