"""The errors of damaged files of arrays."""

from __future__ import annotations

import zipfile
import zlib

# What `np.load` raises for an .npz file that is damaged or made to harm, and for an array that is missing.
DAMAGED_ARRAYS: tuple[type[Exception], ...] = (
    KeyError,
    ValueError,
    TypeError,
    EOFError,
    OverflowError,  # a length that no number of the platform holds
    MemoryError,  # a length that no memory holds
    RuntimeError,  # encrypted; its subclass NotImplementedError: features of zip that Python cannot read
    zipfile.BadZipFile,
    zlib.error,
)
