"""Reading a file of `torch.save` without running any code in it."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from service.errors import BlvnetError

# Training checkpoints may hold numpy scalars that the authors logged. Creating one runs no code from the
# file. numpy 2 moved the function that creates them, so it has two names.
_SCALAR = cast("Callable[..., Any]", np.float64(0).__reduce__()[0])
NUMPY_NUMBERS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(code)) for code in "?bBhHiIlLqQefd"),
]
NOT_A_CHECKPOINT = "is not a checkpoint, or is damaged or cut short"
CODE_REFUSED = (
    "cannot be read without running Python code from the file, so it is refused; save the network's "
    "state_dict() instead of the network"
)
NAMESPACE_ADVICE = (
    "holds an argparse.Namespace (the options of the training script) beside its weights, which cannot be "
    'read without running code; if you trust the file, keep the weights alone: python -c "import torch; '
    "torch.save({{'state_dict': torch.load('{name}', weights_only=False)['state_dict']}}, 'weights.pt')\""
)
ZIP_START = b"PK\x03\x04"


class CheckpointError(BlvnetError):
    """A file that is not a checkpoint, or does not hold the requested network."""


def read_torch_file(path: Path) -> dict[str, Any]:
    """The dict in a file, its tensors on the CPU.

    Raises:
        CheckpointError: the file is missing, damaged, holds something else, or cannot be read without running
            code.
    """
    if path.is_dir():
        raise CheckpointError(
            f"{path}: cannot be read, as it is a folder and no model package: give a checkpoint file, "
            "or the folder NAME or NAME/VERSION of a package"
        )
    try:
        with path.open("rb") as file:
            is_zip = file.read(len(ZIP_START)) == ZIP_START
    except FileNotFoundError as exc:
        raise CheckpointError(f"{path}: there is no such file") from exc
    except OSError as exc:
        raise CheckpointError(f"{path}: cannot be read ({exc.strerror})") from exc
    try:
        with torch.serialization.safe_globals(NUMPY_NUMBERS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols of files that are then refused
            document = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as exc:
        error, reason = str(exc), NOT_A_CHECKPOINT
        if "argparse.Namespace" in error:
            reason = NAMESPACE_ADVICE.format(name=path.name)
        elif re.search(
            r"nsupported (global|GLOBAL)|Trying to (call|instantiate)|Can only (create|build)", error
        ):
            reason = CODE_REFUSED
        raise CheckpointError(f"{path}: {reason}") from exc
    # The exception from torch depends on where a damaged file fails first.
    except (OSError, EOFError, RuntimeError, ValueError, LookupError, TypeError, AttributeError) as exc:
        cut_short = is_zip and not zipfile.is_zipfile(path)
        reason = "is cut short: copy or download it again" if cut_short else NOT_A_CHECKPOINT
        raise CheckpointError(f"{path}: {reason}") from exc
    if not isinstance(document, dict):
        raise CheckpointError(f"{path}: holds a {type(document).__name__}, not a network's tensors by name")
    return document
