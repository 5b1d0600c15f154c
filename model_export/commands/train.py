"""`blvnet train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from model_export.cache import open_cache
from model_export.checkpoint import initialise_from
from model_export.commands.listings import listing_of
from model_export.config import ModelConfig, Stem
from model_export.datasets import Listing
from model_export.loading import CachedClips, ClipSource, DecodedClips
from model_export.networks.names import build, parse_architecture, read_name
from model_export.progress import counting
from model_export.train import LAST_FILE, Half, Trainer, stopping_on_signals
from model_export.train_config import Amp, Augmentation, TrainConfig
from service.clip.spec import ClipSpec, Sampling
from service.errors import BlvnetError

TRAINING_CROPS = 3  # along the longer side, when clips are decoded as they are drawn
DEFAULTS = TrainConfig()


def train(
    dataset: Annotated[str, typer.Option(help="Data set, or layout of the data; see above.")],
    data: Annotated[Path, typer.Option(help="Folder of the data set.", exists=True, file_okay=False)],
    arch: Annotated[str, typer.Option(help="Architecture, such as blvnet-tam-mini.")],
    out: Annotated[Path, typer.Option(help="Folder of the run: checkpoints, log, curves.")],
    frames: Annotated[int | None, typer.Option(help="T, frames of a clip.")] = None,
    init: Annotated[Path | None, typer.Option(help="Checkpoint to start from.", exists=True)] = None,
    resume: Annotated[bool, typer.Option(help="Continue the run in --out, with the same options.")] = False,
    epochs: Annotated[int, typer.Option(min=1)] = DEFAULTS.epochs,
    batch_size: Annotated[int, typer.Option(min=1)] = DEFAULTS.batch_size,
    lr: Annotated[float, typer.Option(help="Highest learning rate.")] = DEFAULTS.lr,
    warmup_epochs: Annotated[float, typer.Option(min=0)] = DEFAULTS.warmup_epochs,
    weight_decay: Annotated[float, typer.Option(min=0)] = DEFAULTS.weight_decay,
    label_smoothing: Annotated[float, typer.Option(min=0, max=0.9)] = DEFAULTS.label_smoothing,
    size: Annotated[int | None, typer.Option(help="Side of the (little) input in pixels.")] = None,
    scale: Annotated[
        int | None, typer.Option(help="Shorter side in pixels before the crop to --size; default --size.")
    ] = None,
    sampling: Annotated[Sampling, typer.Option(help="How frames are spread over a clip.")] = Sampling.UNIFORM,
    stride: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Distance of frames with --sampling dense.")
    ] = None,
    stem: Annotated[
        Stem | None, typer.Option(help="Where big and little streams meet; default dual.")
    ] = None,
    blending_frames: Annotated[int | None, typer.Option(help="TAM taps, odd; default 3.")] = None,
    dropout: Annotated[float | None, typer.Option(min=0, max=0.99)] = None,
    augmentation: Annotated[bool, typer.Option(help="Random variants of the training clips.")] = True,
    cached: Annotated[bool, typer.Option(help="Decode once, into a cache on disk.")] = True,
    cache: Annotated[Path | None, typer.Option(help="Where caches are kept; default OUT/cache.")] = None,
    phases: Annotated[
        int, typer.Option(min=1, help="Samplings of each clip to choose from.")
    ] = DEFAULTS.phases,
    workers: Annotated[int, typer.Option(min=0, help="Processes that decode.")] = DEFAULTS.workers,
    seed: Annotated[int, typer.Option(min=0)] = DEFAULTS.seed,
    amp: Annotated[Amp, typer.Option(help="Arithmetic of the passes.")] = DEFAULTS.amp,
    save_every_s: Annotated[float, typer.Option(help="Seconds between checkpoints.")] = DEFAULTS.save_every_s,
    log_every: Annotated[
        int, typer.Option(min=1, help="Steps between lines of the log.")
    ] = DEFAULTS.log_every,
    device: Annotated[str | None, typer.Option(help="cpu, cuda; default cuda where there is one.")] = None,
) -> None:
    """Train a network; SIGTERM and Ctrl-C save and end cleanly, --resume goes on.

    Data sets: something-something-v1 (ssv1), something-something-v2 (ssv2), kinetics-400 (k400),
    moments-in-time (mit). Layouts of data of your own: folder, synthetic, list.
    """
    config = TrainConfig(
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        warmup_epochs=warmup_epochs,
        weight_decay=weight_decay,
        label_smoothing=label_smoothing,
        phases=phases,
        workers=workers,
        seed=seed,
        amp=amp,
        save_every_s=save_every_s,
        log_every=log_every,
        augmentation=Augmentation() if augmentation else Augmentation.none(),
    )
    console = Console(stderr=True)
    _check_out(out, resume)
    listings = [listing_of(dataset, data, split, console) for split in ("train", "val")]
    if listings[0].labels != listings[1].labels:
        raise BlvnetError(f"{data}: the train and val splits have different labels")
    torch.manual_seed(seed)
    model = parse_architecture(
        arch,
        num_classes=len(listings[0].labels),
        frames=frames,
        taps=blending_frames,
        stem=_stem(arch, stem),
        size=size,
        dropout=dropout,
    )
    clip = _clip(model, sampling, stride, scale)
    network = build(model)
    if init is not None:
        initialise_from(network, model, init)
    network.to(_device(device)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    folder = (cache or out / "cache") if cached else None
    halves = [
        _half(listing, clip, config, training=training, cache=folder, console=console)
        for listing, training in zip(listings, (True, False), strict=True)
    ]
    origin = {"dataset": dataset, "data": str(data)}
    trainer = Trainer(
        network, model, halves[0], halves[1], config, out, clip=clip, origin=origin, console=console
    )
    with stopping_on_signals() as stop:
        outcome = trainer.run(stop, resume=resume)
    if outcome.finished:
        best = f"best validation top-1 {100 * outcome.best_top1:.1f} %"
        console.print(f"done: {outcome.step} steps, {outcome.elapsed_s / 60:.1f} min, {best}")
    else:
        console.print(f"stopped after step {outcome.step}; the same command with --resume goes on from there")


def _stem(arch: str, asked: Stem | None) -> Stem | None:
    """New two-stream networks get the dual stem, where neither the name nor an option says otherwise.

    A bare name stands for the published network, with the shared stem, everywhere else.
    """
    name = read_name(arch)
    if asked is None and name.stem is None and name.family.two_streams:
        return Stem.DUAL
    return asked


def _clip(model: ModelConfig, sampling: Sampling, stride: int | None, scale: int | None) -> ClipSpec:
    """What the network will be trained on, and served with unless an export says otherwise."""
    if stride is not None and sampling is not Sampling.DENSE:
        raise typer.BadParameter("it belongs to --sampling dense", param_hint="--stride")
    if scale is not None and scale < model.size:
        raise typer.BadParameter(f"it is less than the size, {model.size}", param_hint="--scale")
    return model.clip_spec(sampling, stride or 1, scale)


def _check_out(out: Path, resume: bool) -> None:
    """A new run never overwrites an old one."""
    there = (out / LAST_FILE).exists()
    if resume and not there:
        raise BlvnetError(f"{out} holds no {LAST_FILE} to resume from")
    if there and not resume:
        raise BlvnetError(f"{out} holds a run already: add --resume, or choose another --out")
    out.mkdir(parents=True, exist_ok=True)


def _half(
    listing: Listing,
    spec: ClipSpec,
    config: TrainConfig,
    *,
    training: bool,
    cache: Path | None,
    console: Console,
) -> Half:
    """A split with its frames: cached, or decoded as they are drawn."""
    phases = config.phases if training else 1
    if cache is None:
        crops = TRAINING_CROPS if training else 1
        source: ClipSource = DecodedClips(len(listing.clips), spec, phases=phases, crops=crops)
        return Half(listing, source)
    clips = listing.clips
    with counting(f"decoding {'training' if training else 'validation'} clips", len(clips), console) as tick:
        frames = open_cache(clips, spec, phases, cache, jobs=max(1, config.workers), tick=tick)
    for item in frames.unreadable:
        console.print(f"unreadable: {item.path} ({item.reason})", markup=False)
    bad = frozenset(item.path for item in frames.unreadable)
    rows = [row for row, clip in enumerate(clips) if clip.path not in bad]
    return Half(listing.without(bad), CachedClips(frames, rows))


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as exc:
        raise BlvnetError(f"no device {name!r}") from exc
    if device.type == "cuda" and not torch.cuda.is_available():
        raise BlvnetError("there is no CUDA device")
    return device
