"""The peers of `python -m benchmarks.serving_race`.

They run in a separate environment (`requirements.txt`) and do not import the project. Each is what a user
would write with a model package, PyAV, onnxruntime and the documentation of that server.
"""
