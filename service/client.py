"""Alias of `blvnet_client`, for programs that imported the client from here."""

from __future__ import annotations

from blvnet_client import *  # noqa: F403 - the alias has every public name
