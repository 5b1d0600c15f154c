"""Examples as rows of numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from service.teaching.head import pooled
from service.teaching.learning.pooled import PooledExamples
from tests.service.teaching.examples import examples


def test_few_examples_give_the_same_classifier_as_their_features_would() -> None:
    shown = examples({"up": 3, "down": 3, "still": 2}, noise=2.0)
    few = PooledExamples.of(shown, ("down", "still", "up"), 4, None)
    assert few.basis is not None
    assert few.rows.shape == (8, 2, 16)  # 16 rows of 24 numbers
    whole = replace(few, rows=pooled(shown.features, 4), basis=None)
    chosen = np.array([0, 1, 3, 4, 6])
    for penalty in (1.0, 0.01):
        found = few.fit(chosen, penalty)
        expected = whole.logits(whole.fit(chosen, penalty), np.arange(8))
        np.testing.assert_allclose(few.logits(found, np.arange(8)), expected, atol=0.02)
        np.testing.assert_allclose(whole.logits(few.of_features(found), np.arange(8)), expected, atol=0.02)
