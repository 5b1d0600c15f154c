"""Does what was loaded compute the network? The package says what PyTorch answers to the probe clips."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from service.clip.probe import PROBE, probe_clips
from service.errors import PackageError
from service.manifest import Manifest, Reference
from service.runtime.session import Inputs, Session


def reference_clips(manifest: Manifest) -> Inputs | None:
    """The clips that the package has answers to; None for a package without any.

    Raises:
        PackageError: they are clips of another version, which this service cannot make.
    """
    reference = manifest.reference
    if reference is None:
        return None
    if reference.probe != PROBE:
        raise PackageError(
            f"its reference is to probe clips of version {reference.probe}, this service makes {PROBE}"
        )
    return probe_clips(manifest.clip, len(reference.logits))


def check_reference(session: Session, manifest: Manifest, clips: Inputs | None) -> None:
    """Compare the logits with the package's reference, as many clips at once as the session has streams.

    Raises:
        PackageError: they differ by more than its bound, or are no numbers.
        InferenceFailed: the graph does not run.
    """
    reference = manifest.reference
    if reference is None or clips is None:
        return
    # Clip by clip, as a batch would take more memory.
    with ThreadPoolExecutor(session.runtime.streams) as threads:
        outputs = threads.map(session.run, [one_clip(clips, row) for row in range(len(reference.logits))])
        check_logits(np.array([output.logits[0] for output in outputs]), reference)


def check_logits(logits: NDArray[np.float32], reference: Reference) -> None:
    """Compare float32 `(N, C)`, the answer to the probe clips over and over, with the reference.

    Raises:
        PackageError: they differ by more than its bound, or are no numbers.
    """
    clips = np.array(reference.logits, np.float64)
    wanted = clips[np.arange(len(logits)) % len(clips)]
    difference = float(np.abs(logits.astype(np.float64) - wanted).max())
    relative = difference / (float(np.abs(wanted).max()) or 1.0)
    if not relative <= reference.bound:  # written so that NaN does not pass
        raise PackageError(
            f"its answer to the probe clips is not PyTorch's: the largest difference is {relative:.2g} of the"
            f" largest logit, {reference.bound:g} is allowed"
        )


def one_clip(clips: Inputs, row: int) -> Inputs:
    """A batch of one of the clips."""
    return {name: array[row : row + 1] for name, array in clips.items()}
