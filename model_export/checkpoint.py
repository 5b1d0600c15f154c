"""Checkpoints: this project's own, and the published ones in their own layouts.

A file is read without running any code in it (`weights_only`), its layout recognised (`layouts`), and loaded
strictly: every tensor of the network comes from the file and every tensor of the file goes into the network.

Our own files are dicts of plain values and tensors:

    {"format": "blvnet-serve", "version": 1, "config": {...}, "weights": {...}, "training": {...}}

`training` is whatever a run needs to go on (optimiser, step, random state); an exported network does without.
"""

from __future__ import annotations

import os
import pickle
import re
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from model_export.config import ModelConfig
from model_export.layouts import CheckpointError, Found, Layout, Naming, recognise
from model_export.networks.names import build, parse_architecture, read_name

FORMAT = "blvnet-serve"
VERSION = 1
NO_CHECKPOINT = "is not a checkpoint, or one that is damaged or cut short"
SHOWN = 5  # how many names of tensors a message lists
# Training checkpoints may hold numbers of numpy, where the authors logged them. Making a number runs no code
# of the file's own. numpy 2 moved the function that does it, so it goes by both names.
_NUMBER = cast("Callable[..., Any]", np.float64(0).__reduce__()[0])
NUMPY_NUMBERS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (_NUMBER, "numpy.core.multiarray.scalar"),
    (_NUMBER, "numpy._core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(code)) for code in "?bBhHiIlLqQefd"),
]


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds.

    Attributes:
        path: the file.
        naming: whose names the weights have.
        weights: name -> tensor, in the file's own names.
        config: of our own files; published ones do not say it all.
        found: what the tensors of a published file say.
        training: what else is there (optimiser, epoch, ...), plain values and tensors.
    """

    path: Path
    naming: Naming
    weights: dict[str, Tensor]
    config: ModelConfig | None = None
    found: Found | None = None
    training: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Initialised:
    """How `initialise_from` filled a network: tensors copied, fitted to another shape, and left fresh."""

    copied: tuple[str, ...]
    fitted: tuple[str, ...]
    fresh: tuple[str, ...]


def save_checkpoint(
    path: Path, config: ModelConfig, weights: Mapping[str, Tensor], training: Mapping[str, Any] | None = None
) -> None:
    """Write our own format, under another name first, so that no reader ever meets half a file.

    Args:
        path: the file.
        config: the network's.
        weights: its `state_dict()`.
        training: plain values, containers and tensors only, as reading runs no code.
    """
    document = {
        "format": FORMAT,
        "version": VERSION,
        "config": config.to_json(),
        "weights": dict(weights),
        "training": dict(training or {}),
    }
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        scratch = Path(file.name)
        try:
            torch.save(document, file)
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            scratch.unlink()
            raise
    scratch.replace(path)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read any file that this project can load, without deciding on a network yet.

    Raises:
        CheckpointError: there is no such file, it is cut short, is no checkpoint, wants code run, or its
        tensors
            are those of no network that is known here.
    """
    document = _read(path)
    try:
        if document.get("format") == FORMAT:
            return _own(path, document)
        return _published(path, document)
    except CheckpointError as exc:
        raise CheckpointError(f"{path}: {exc.message}") from exc


def configure(
    checkpoint: Checkpoint,
    architecture: str | None = None,
    *,
    frames: int | None = None,
    taps: int | None = None,
    size: int | None = None,
) -> ModelConfig:
    """The network of a checkpoint, checked against what was asked for.

    Args:
        checkpoint: the file.
        architecture: a name as on the command line; our own files do without.
        frames: T, where the name does not say it.
        taps: None takes those of the file.
        size: S; None takes the file's, or 224.

    Raises:
        CheckpointError: name or options contradict the file; the message says what was found.
    """
    if checkpoint.config is not None:
        return _configure_own(checkpoint.path, checkpoint.config, architecture, frames, taps, size)
    found = checkpoint.found
    assert found is not None
    if architecture is None:
        raise CheckpointError(f"{checkpoint.path} holds {found.describe()}; name the network with --arch")
    if taps is None and read_name(architecture).taps is None:
        taps = found.taps
    config = parse_architecture(architecture, num_classes=found.classes, frames=frames, taps=taps, size=size)
    if contradictions := found.contradictions(config):
        raise CheckpointError(
            f"{checkpoint.path} contradicts {config.architecture}: it holds {'; '.join(contradictions)}"
        )
    return config


def restore(checkpoint: Checkpoint, config: ModelConfig) -> nn.Module:
    """The network with the checkpoint's weights, float32, in evaluation mode.

    Raises:
        CheckpointError: a tensor is missing, unexpected or of another shape; the message names them.
    """
    network = build(config)
    wanted = network.state_dict()
    names = {key: checkpoint.naming.names(key, config.taps) for key in wanted}
    _check_names(checkpoint, {name for group in names.values() for name in group})
    gathered = {key: _gather(checkpoint, key, group) for key, group in names.items()}
    _check_shapes(checkpoint.path, names, gathered, wanted)
    network.load_state_dict(gathered)
    return network.eval()


def load_network(
    path: Path,
    architecture: str | None = None,
    *,
    frames: int | None = None,
    taps: int | None = None,
    size: int | None = None,
) -> tuple[nn.Module, ModelConfig, Checkpoint]:
    """`read_checkpoint`, `configure` and `restore` in a row.

    Raises:
        CheckpointError: as those do.
    """
    checkpoint = read_checkpoint(path)
    config = configure(checkpoint, architecture, frames=frames, taps=taps, size=size)
    return restore(checkpoint, config), config, checkpoint


def initialise_from(network: nn.Module, config: ModelConfig, path: Path) -> Initialised:
    """Fill a fresh network from another's checkpoint: an ImageNet bLResNet or ResNet, or a video network.

    A classifier for other classes and taps that the file lacks stay as they were made. Kernels are fitted
    where the networks differ: to other input channels (`fit_channels`) and to 3D (`inflate`). The big
    stream of the dual stem starts as a copy of the shared one's.

    Raises:
        CheckpointError: the file is of a network with other blocks or channels.
    """
    checkpoint = read_checkpoint(path)
    file_taps = _taps_of(checkpoint, config)
    copied: list[str] = []
    fitted: list[str] = []
    fresh: list[str] = []
    used: set[str] = set()
    state = network.state_dict()
    for key, target in state.items():
        group = _source(checkpoint, key, file_taps)
        if group is None:
            fresh.append(key)
            continue
        used.update(group)
        source = _gather(checkpoint, key, group)
        value = _fit(source, target)
        if value is not None:
            target.copy_(value)
            (copied if value is source else fitted).append(key)
        elif key.startswith("fc.") or key.endswith("taps"):
            fresh.append(key)
        else:
            raise CheckpointError(
                f"{path} does not fit {config.architecture}: {group[0]} is {tuple(source.shape)}, "
                f"the network's is {tuple(target.shape)}{_hint(checkpoint)}"
            )
    _check_initialised(checkpoint, config, fresh, used)
    return Initialised(tuple(copied), tuple(fitted), tuple(fresh))


def fit_channels(kernel: Tensor, channels: int) -> Tensor:
    """A first convolution's kernel (O, I, ...) for another number of input channels.

    Every new channel gets the mean of the old ones (as the authors do for optical flow), scaled by old /
    new count, so that equal inputs give what they gave before and the batch statistics behind stay true.
    """
    mean = kernel.mean(dim=1, keepdim=True) * (kernel.shape[1] / channels)
    return mean.expand(-1, channels, *kernel.shape[2:]).contiguous()


def inflate(kernel: Tensor, frames: int) -> Tensor:
    """A 2D kernel (O, I, k, k) -> 3D (O, I, frames, k, k), divided by frames.

    A video of one repeated image then gives what the image gave (Carreira and Zisserman, arXiv 1705.07750).
    """
    return kernel.unsqueeze(2).repeat(1, 1, frames, 1, 1) / frames


def _read(path: Path) -> dict[str, Any]:
    """The file's dict. What torch raises depends on where a broken file fails first."""
    _check_readable(path)
    try:
        with torch.serialization.safe_globals(NUMPY_NUMBERS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on pickle protocols, about files that are then refused
            document = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as exc:
        raise CheckpointError(f"{path}: {_unpickling_reason(exc)}") from exc
    except (OSError, EOFError, RuntimeError, ValueError, LookupError, TypeError, AttributeError) as exc:
        raise CheckpointError(f"{path}: {_damage(path)}") from exc
    if not isinstance(document, dict):
        raise CheckpointError(f"{path}: holds a {type(document).__name__}, not a network's tensors by name")
    return document


def _check_readable(path: Path) -> None:
    try:
        with path.open("rb"):
            return
    except FileNotFoundError as exc:
        raise CheckpointError(f"{path}: there is no such file") from exc
    except OSError as exc:
        raise CheckpointError(f"{path}: cannot be read ({exc.strerror})") from exc


def _unpickling_reason(exc: pickle.UnpicklingError) -> str:
    if re.search(
        r"nsupported (global|GLOBAL)|Trying to (call|instantiate)|Can only (create|build)", str(exc)
    ):
        return (
            "wants Python code run while it is read, so it is refused; save the network's state_dict() "
            "instead of the network"
        )
    return NO_CHECKPOINT


def _damage(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(4)
    if start == b"PK\x03\x04" and not zipfile.is_zipfile(path):
        return "is cut short: copy or download it again"
    return NO_CHECKPOINT


def _own(path: Path, document: dict[str, Any]) -> Checkpoint:
    if document.get("version") != VERSION:
        raise CheckpointError(
            f"is of version {document.get('version')!r} of this project's format, {VERSION} is read here"
        )
    config, weights, training = (document.get(key) for key in ("config", "weights", "training"))
    if not (isinstance(config, dict) and isinstance(weights, dict) and isinstance(training, dict)):
        raise CheckpointError("config, weights or training are missing")
    return Checkpoint(
        path, Naming(Layout.OWN), _tensors(weights), ModelConfig.from_json(config), training=training
    )


def _published(path: Path, document: dict[str, Any]) -> Checkpoint:
    nested = document.get("state_dict")
    weights = _tensors(nested if isinstance(nested, dict) else document)
    naming, found = recognise(weights)
    training = {key: value for key, value in document.items() if key != "state_dict"} if nested else {}
    return Checkpoint(path, naming, weights, found=found, training=training)


def _tensors(weights: Mapping[Any, Any]) -> dict[str, Tensor]:
    if not weights:
        raise CheckpointError("holds no tensors")
    for name, value in weights.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError(f"holds {name!r}, a {type(value).__name__}, among a network's tensors")
    return dict(weights)


def _configure_own(
    path: Path,
    config: ModelConfig,
    architecture: str | None,
    frames: int | None,
    taps: int | None,
    size: int | None,
) -> ModelConfig:
    asked: dict[str, object] = {"frames": frames, "taps": taps}
    if architecture is not None:
        said = asdict(read_name(architecture))
        asked = said | {key: value for key, value in asked.items() if value is not None}
    for option, value in asked.items():
        own = getattr(config, option)
        if value not in (None, own):
            raise CheckpointError(
                f"{path} contradicts what was asked for: it holds {config.architecture} with {option} {own}, "
                f"not {value}"
            )
    return config if size is None else replace(config, size=size)


def _check_names(checkpoint: Checkpoint, wanted: set[str]) -> None:
    present = checkpoint.weights.keys()
    problems = []
    if missing := sorted(wanted - present):
        problems.append(f"missing {_listed(missing)}")
    if unexpected := sorted(present - wanted):
        problems.append(f"unexpected {_listed(unexpected)}")
    if problems:
        raise CheckpointError(f"{checkpoint.path}: tensors do not match the network: {'; '.join(problems)}")


def _check_shapes(
    path: Path, names: Mapping[str, list[str]], gathered: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> None:
    wrong = [
        f"{names[key][0]} is {tuple(gathered[key].shape)}, not {tuple(target.shape)}"
        for key, target in wanted.items()
        if gathered[key].shape != target.shape
    ]
    if wrong:
        raise CheckpointError(f"{path}: tensors have other shapes than the network's: {_listed(wrong)}")


def _gather(checkpoint: Checkpoint, key: str, names: list[str]) -> Tensor:
    """Our tensor from the file's: itself, or a TAM's taps (r, C) from r published tensors (C, 1, 1, 1)."""
    if key.endswith(".taps") and checkpoint.naming.layout is not Layout.OWN:
        return torch.stack([checkpoint.weights[name].flatten() for name in names])
    return checkpoint.weights[names[0]]


def _listed(items: list[str]) -> str:
    more = len(items) - SHOWN
    return ", ".join(items[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _taps_of(checkpoint: Checkpoint, config: ModelConfig) -> int:
    if checkpoint.config is not None:
        return checkpoint.config.taps
    assert checkpoint.found is not None
    return checkpoint.found.taps or config.taps


def _source(checkpoint: Checkpoint, key: str, taps: int) -> list[str] | None:
    """The file's tensors that initialise ours; None where it has none."""
    candidates = [key, key.replace("stem.big_", "stem.")]
    for candidate in candidates:
        names = checkpoint.naming.names(candidate, taps)
        if all(name in checkpoint.weights for name in names):
            return names
    return None


def _fit(source: Tensor, target: Tensor) -> Tensor | None:
    """`source` in the shape of `target`, itself if it has that; None when it cannot be had."""
    if source.shape == target.shape:
        return source
    if source.dim() == 4 and target.dim() == 5:
        source = inflate(source, target.shape[2])
    same_kernel = source.dim() >= 4 and source.shape[2:] == target.shape[2:]
    if same_kernel and source.shape[0] == target.shape[0] and source.shape[2] >= 7:
        source = fit_channels(source, target.shape[1])
    return source if source.shape == target.shape else None


def _check_initialised(checkpoint: Checkpoint, config: ModelConfig, fresh: list[str], used: set[str]) -> None:
    """Only taps, the classifier and batch counters may stay fresh; only a classifier may be left over."""
    optional = ("taps", "num_batches_tracked")
    missing = [key for key in fresh if not key.startswith("fc.") and not key.endswith(optional)]
    left = sorted(name for name in checkpoint.weights if name not in used and "fc." not in name)
    if missing or left:
        parts = [f"it lacks {_listed(missing)}"] if missing else []
        parts += [f"it has {_listed(left)} besides"] if left else []
        raise CheckpointError(
            f"{checkpoint.path} does not fit {config.architecture}: {'; '.join(parts)}{_hint(checkpoint)}"
        )


def _hint(checkpoint: Checkpoint) -> str:
    if checkpoint.config is not None:
        return f" (it holds {checkpoint.config.architecture})"
    return f" (it holds {checkpoint.found.describe()})" if checkpoint.found else ""
