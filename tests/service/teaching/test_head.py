"""The head's arithmetic."""

from __future__ import annotations

import numpy as np
import pytest

from service.teaching.head import Head, pooled, segment_count

RANDOM = np.random.default_rng(1)


def head(segments: int = 2, size: int = 3, classes: int = 4) -> Head:
    weights = RANDOM.normal(size=(segments, size, classes)).astype(np.float32)
    return Head(weights, RANDOM.normal(size=classes).astype(np.float32))


def test_evidence_is_the_published_formula_at_every_moment() -> None:
    taught = head()
    features = RANDOM.normal(size=(5, 8, 3)).astype(np.float32)
    evidence = taught.evidence(features)
    for view in range(5):
        for moment in range(8):
            expected = taught.bias + 2 * taught.weights[moment // 4].T @ features[view, moment]
            np.testing.assert_allclose(evidence[view, moment], expected, rtol=1e-5, atol=1e-5)


def test_mean_evidence_is_a_linear_function_of_the_pooled_features() -> None:
    taught = head()
    features = RANDOM.normal(size=(5, 8, 3)).astype(np.float32)
    logits = pooled(features, 2) @ taught.weights.reshape(6, 4) + taught.bias
    np.testing.assert_allclose(taught.evidence(features).mean(axis=1), logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("moments", "segments"), [(8, 4), (16, 4), (6, 3), (10, 2), (5, 1), (1, 1), (4, 4)])
def test_segments_are_the_largest_divisor_up_to_four(moments: int, segments: int) -> None:
    assert segment_count(moments) == segments


@pytest.mark.parametrize(
    ("weights", "bias", "temperature", "complaint"),
    [
        (np.zeros((3, 4), np.float32), np.zeros(4, np.float32), 1.0, r"weights must be \(Q, F, C\)"),
        (np.zeros((1, 3, 4), np.float32), np.zeros(3, np.float32), 1.0, r"bias must be \(4,\)"),
        (np.zeros((1, 3, 4)), np.zeros(4, np.float32), 1.0, "float32"),
        (np.full((1, 3, 4), np.nan, np.float32), np.zeros(4, np.float32), 1.0, "finite"),
        (np.zeros((1, 3, 4), np.float32), np.zeros(4, np.float32), 0.0, "temperature"),
        (np.zeros((1, 0, 4), np.float32), np.zeros(4, np.float32), 1.0, "weights must be"),
    ],
)
def test_a_head_with_wrong_arrays_is_refused(
    weights: np.ndarray, bias: np.ndarray, temperature: float, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        Head(weights, bias, temperature)


def test_features_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit weights"):
        head().evidence(np.zeros((1, 8, 4), np.float32))
    with pytest.raises(ValueError, match="do not fit weights"):
        head().evidence(np.zeros((1, 7, 3), np.float32))
