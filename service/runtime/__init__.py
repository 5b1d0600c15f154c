"""Inference engines behind one protocol."""

import os

# Official builds of onnxruntime report to their maker as soon as they are imported, unless told not to. The
# command line says so as well, before it imports anything; this is for those who use the service as a library.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
