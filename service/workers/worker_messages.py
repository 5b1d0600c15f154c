"""What is believed of what decode workers say.

A worker runs a decoder on hostile files, so a message from it is not unpickled at its word: unpickling calls
what the message names, so only names on a short list are looked up, none of which does anything but hold
values.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

# Modules -> what a worker's message may name in them. Of errors, all: they are plain classes.
BELIEVED = {
    "service.clip.video": {"VideoInfo"},
    "service.workers.decode_worker": {"Found", "Ready", "StillDecoding", "TimelineFound", "WindowFound"},
}
ERROR_MODULES = ("builtins", "service.errors")


class CheckedUnpickler(pickle.Unpickler):
    """Unpickles what workers find and the errors that they meet, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """The class of that name.

        Raises:
            pickle.PicklingError: it is not on the list.
        """
        if name in BELIEVED.get(module, ()):
            return super().find_class(module, name)
        if module in ERROR_MODULES and "." not in name:
            found = super().find_class(module, name)
            if isinstance(found, type) and issubclass(found, Exception):
                return found
        raise pickle.PicklingError(f"a decode worker may not send {module}.{name}")


def unpickled(message: bytes) -> Any:
    """What a worker says; see `CheckedUnpickler`.

    Raises:
        pickle.PicklingError: it names what it may not, or is no message at all.
    """
    try:
        return CheckedUnpickler(io.BytesIO(message)).load()
    except pickle.PicklingError:
        raise
    except Exception as exc:
        # A stream of bytes that is not a pickle can raise nearly anything.
        raise pickle.PicklingError("what a decode worker sent cannot be read") from exc
