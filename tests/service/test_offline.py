"""The event loop of commands."""

from __future__ import annotations

import asyncio
import signal
from functools import partial
from typing import Any

import pytest

from service.offline import CommandRunner


def test_ctrl_c_while_the_loop_starts_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runner installs its handler just before it resets its count of interruptions."""
    install = signal.signal

    def interrupted(number: int, handler: Any) -> Any:
        previous = install(number, handler)
        if isinstance(handler, partial):
            signal.raise_signal(signal.SIGINT)
        return previous

    before = install(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(signal, "signal", interrupted)
    try:
        with CommandRunner() as runner, pytest.raises(KeyboardInterrupt):
            runner.run(asyncio.sleep(60))
    finally:
        install(signal.SIGINT, before)
