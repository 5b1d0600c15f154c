"""Other servers that do our service's job, for `python -m benchmarks.serving_race`.

They run in an environment of their own (`requirements.txt`), so nothing here imports the project: a peer is
what somebody would write who has a model package, PyAV, onnxruntime and that server's documentation.
"""
