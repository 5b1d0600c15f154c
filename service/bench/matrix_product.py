"""The measure of a machine: the rate of its own float32 matrix product."""

from __future__ import annotations

import numpy as np

from service.contenders.contender import Arrays, Contender, Workload

SIZE = 2048  # the product takes 17 GFLOP, the three matrices 50 MB: no cache helps, no start-up counts
GFLOP = 2 * SIZE**3 / 1e9
NAME = "matrix product"


def matrix_product(threads: int) -> Contender:
    """The product of two square float32 matrices in numpy, as a contender whose batch is one product."""
    return Contender(
        name=NAME,
        factory="service.bench.matrix_product:load",
        options={},
        threads=threads,
        gflop=GFLOP,
    )


def load() -> Workload:
    """Make the matrices."""
    generator = np.random.default_rng(0)
    left, right = (generator.random((SIZE, SIZE), dtype=np.float32) for _ in range(2))
    product = np.empty_like(left)

    def run(_: Arrays) -> Arrays:
        np.matmul(left, right, out=product)
        return {}

    return run
