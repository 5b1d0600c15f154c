"""`blvnet train`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from model_export.checkpoints.initialise import initialise_from
from model_export.commands.options.common import read_split, select_device
from model_export.commands.options.config_file import use_config, use_recipe, write_config
from model_export.commands.options.train_options import (
    SIZES,
    config_options,
    training_config,
    with_training_options,
)
from model_export.datasets import Listing
from model_export.datasets.groups import split_off_group
from model_export.networks.config import Stem
from model_export.networks.registry import build, parse_architecture
from model_export.networks.temporal import TamInit
from model_export.progress import ProgressReporter
from model_export.training.checkpoints import LAST_FILE
from model_export.training.clips.batches import CachedClips, DecodedClips, SplitData
from model_export.training.clips.frame_cache import open_cache
from model_export.training.config import (
    BatchNorm,
    ClassWeights,
    CropMode,
    Freeze,
    Offsets,
    Schedule,
    TrainConfig,
)
from model_export.training.initial_statistics import measure_initial_statistics
from model_export.training.preparation import check_compiles, freed_memory_kept
from model_export.training.processes import joined
from model_export.training.trainer import Trainer, stopping_on_signals
from service.clip.spec import ClipSpec, Sampling
from service.errors import BlvnetError

TRAINING_CROPS = 3  # along the longer side, for clips that are decoded as they are drawn
NAMED_LABELS = 5  # labels that one warning lists


@with_training_options
def train(
    ctx: typer.Context,
    dataset: Annotated[str, typer.Option(help="Data set, or layout of your own data; see above.")],
    data: Annotated[Path, typer.Option(help="Folder of the data set.", exists=True, file_okay=False)],
    arch: Annotated[str, typer.Option(help="Architecture, such as blvnet-tam-mini.")],
    out: Annotated[Path, typer.Option(help="Folder of the run: checkpoints, log, curves.")],
    config: Annotated[  # noqa: ARG001 - read by its callback
        Path | None,
        typer.Option(
            help="YAML file with options by name, such as the config.yaml of a run; flags override it.",
            is_eager=True,
            callback=use_config,
        ),
    ] = None,
    recipe: Annotated[  # noqa: ARG001 - read by its callback
        str | None,
        typer.Option(
            help="Values of options that neither the command line nor --config gives: paper, fine-tune.",
            is_eager=True,
            callback=use_recipe,
        ),
    ] = None,
    frames: Annotated[int | None, typer.Option(help="T, frames of a clip.")] = None,
    init: Annotated[
        Path | None,
        typer.Option(help="Weights to start from: a checkpoint, or a package in fp32.", exists=True),
    ] = None,
    hold_out: Annotated[
        str | None,
        typer.Option(help="Validate on this group of the training split, and train on the others."),
    ] = None,
    resume: Annotated[bool, typer.Option(help="Continue the run in --out, with the same options.")] = False,
    size: Annotated[int | None, typer.Option(help="Side of the (little) input in pixels.")] = None,
    scale: Annotated[
        int | None, typer.Option(help="Shorter side in pixels before the crop to --size; by default --size.")
    ] = None,
    sampling: Annotated[
        Sampling, typer.Option(help="How frames are spread over a video.")
    ] = Sampling.UNIFORM,
    stride: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Frames from one to the next with --sampling dense.")
    ] = None,
    stem: Annotated[
        Stem | None, typer.Option(help="Where little and big inputs meet; by default that of the name.")
    ] = None,
    blending_frames: Annotated[int | None, typer.Option(help="TAM taps, odd; by default 3.")] = None,
    tam_init: Annotated[
        TamInit, typer.Option(help="Initial taps: near a temporal shift, or the paper's.")
    ] = TamInit.SHIFT,
    dropout: Annotated[float | None, typer.Option(min=0, max=0.99)] = None,
    augmentation: Annotated[
        bool, typer.Option(help="Augment the training clips at random; off, all strengths below are 0.")
    ] = True,
    cached: Annotated[bool, typer.Option(help="Decode once, into a cache on disk.")] = True,
    cache: Annotated[Path | None, typer.Option(help="Folder of caches; by default OUT/cache.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; by default cuda if available.")] = None,
    **options: Any,
) -> None:
    """Train a network; SIGTERM and Ctrl-C save it and end the run, --resume continues.

    Data sets: something-something-v1 (ssv1), something-something-v2 (ssv2), kinetics-400 (k400),
    moments-in-time (mit), ucf101, hmdb51 (splits ucf101-1 to -3), jester, diving48, charades. Layouts of your
    own data: folder, synthetic, list.

    Several processes or machines: torchrun --nproc-per-node N --no-python blvnet train ...

    Example: blvnet train --dataset folder --data DATA --arch tsm-mini --out RUN
    """
    training = training_config(options, augmentation=augmentation)
    _check_effects(ctx, training, cached=cached)
    _check_run(out, resume=resume)
    _check_combination(training, cached=cached, init=init)
    if stride is not None and sampling is not Sampling.DENSE:
        raise typer.BadParameter("needs --sampling dense", param_hint="--stride")
    with (
        joined(select_device(device)) as processes,
        # Only the main process prints.
        ProgressReporter(None if processes.main else Console(quiet=True)) as reporter,
        freed_memory_kept() if processes.device.type == "cpu" else nullcontext(),
    ):
        if training.compile:
            check_compiles(processes.device)
        train_list = read_split(dataset, data, "train", reporter)
        if hold_out is None:
            validation_list = read_split(dataset, data, "val", reporter)
        else:
            train_list, validation_list = split_off_group(train_list, hold_out)
        if train_list.multi_label:
            _check_several_labels(training)
        _check_labels(train_list, validation_list, reporter)
        torch.manual_seed(training.seed)
        model = parse_architecture(
            arch,
            num_classes=len(train_list.labels),
            frames=frames,
            taps=blending_frames,
            stem=stem,
            size=size,
            dropout=dropout,
        )
        if scale is not None and scale < model.size:
            raise typer.BadParameter(f"must be at least the size, {model.size}", param_hint="--scale")
        clip = model.clip_spec(sampling, stride or 1, scale)
        network = build(model, tam_init)
        origin: dict[str, Any] = {
            "dataset": dataset,
            "data": str(data),
            "hold_out": hold_out,
            "cached": cached,
        }
        if init is not None:
            report = initialise_from(network, model, init, train_list.labels)
            origin["init"] = report.to_json()
            for line in report.lines():
                reporter.message(line)
        network.to(processes.device)
        out.mkdir(parents=True, exist_ok=True)
        caches = (cache or out / "cache") if cached else None
        with processes.main_first():  # which fills the cache
            splits = (
                _open_split(train_list, clip, training, "training", caches, reporter),
                _open_split(validation_list, clip, training, "validation", caches, reporter),
            )
        if init is not None and report.folded and not resume:
            reporter.step("measuring the statistics of batch norm on training clips")
            measure_initial_statistics(network, splits[0], clip, processes.device)
        trainer = Trainer(
            network,
            model,
            *splits,
            training,
            out,
            clip=clip,
            origin=origin,
            reporter=reporter,
            processes=processes,
        )
        if processes.main and not resume:
            write_config(out, ctx.params | config_options(trainer.config))
        with stopping_on_signals() as stop:
            outcome = trainer.run(stop, resume=resume)
        if outcome.finished:
            best = f"best validation {trainer.metric.shown} {100 * outcome.best:.1f} %"
            reporter.message(f"done: {outcome.step} steps, {outcome.elapsed_s / 60:.1f} min, {best}")
        else:
            reporter.message(f"stopped after step {outcome.step}; the same command with --resume continues")


def _check_run(out: Path, *, resume: bool) -> None:
    """Refuse to overwrite a run, or to resume one that does not exist."""
    if out.exists() and not out.is_dir():
        raise BlvnetError(f"{out} is not a folder: choose another --out")
    exists = (out / LAST_FILE).exists()
    if resume and not exists:
        raise BlvnetError(f"{out} has no {LAST_FILE} to resume from")
    if exists and not resume:
        raise BlvnetError(f"{out} contains a run already: add --resume, or choose another --out")


def _check_effects(ctx: typer.Context, training: TrainConfig, *, cached: bool) -> None:
    """Refuse options of the command line that another option leaves without effect.

    Files and recipes may contain such options, because they give the values of many.
    """
    strengths = training.augmentation
    needed: tuple[tuple[Sequence[str], bool, str], ...] = (
        *((sizes, bool(getattr(strengths, name)), f"--{name} above 0") for name, sizes in SIZES.items()),
        (("rand_magnitude",), bool(strengths.rand_augment), "--rand-augment"),
        (("patience",), training.schedule is Schedule.PLATEAU, "--schedule plateau"),
        (("phases",), training.offsets is Offsets.PHASES, "--offsets phases"),
        (("cache",), cached, "--cached"),
    )
    for names, has_effect, need in needed:
        for name in names:
            source = ctx.get_parameter_source(name)
            if not has_effect and source is not None and source.name == "COMMANDLINE":
                raise typer.BadParameter(f"needs {need}", param_hint=f"--{name.replace('_', '-')}")


def _check_combination(training: TrainConfig, *, cached: bool, init: Path | None) -> None:
    """Refuse options that contradict each other."""
    if cached and training.offsets is not Offsets.PHASES:
        raise BlvnetError(f"--offsets {training.offsets} chooses frames as clips are drawn: add --no-cached")
    if cached and training.crop is not CropMode.FIXED:
        raise BlvnetError(f"--crop {training.crop} cuts frames as clips are drawn: add --no-cached")
    if init is None and training.batch_norm in (BatchNorm.FROZEN, BatchNorm.PARTIAL):
        raise BlvnetError(
            f"--batch-norm {training.batch_norm} keeps the statistics of a trained network: add --init"
        )
    if init is None and training.freeze is not Freeze.NONE:
        raise BlvnetError(f"--freeze {training.freeze} keeps the weights of a trained network: add --init")


def _check_several_labels(training: TrainConfig) -> None:
    """Refuse options that contradict each other where videos have several labels."""
    if training.label_smoothing and training.class_weights is not ClassWeights.NONE:
        raise BlvnetError(
            f"--class-weights {training.class_weights} multiplies what --label-smoothing gives to absent "
            "labels of these videos, which have several labels: leave one of the two out"
        )


def _check_labels(train: Listing, validation: Listing, reporter: ProgressReporter) -> None:
    """Refuse splits with different labels, and warn of labels that a split has no example of."""
    for label in set(train.labels) ^ set(validation.labels):
        where = "train" if label in train.labels else "val"
        raise BlvnetError(f"the train and val splits have different labels: only {where} has {label!r}")
    if train.labels != validation.labels:
        raise BlvnetError("the train and val splits have their labels in different orders")
    for split, listing in (("train", train), ("val", validation)):
        unused = listing.unused_labels()
        if unused:
            names = ", ".join(map(repr, unused[:NAMED_LABELS]))
            more = f" and {len(unused) - NAMED_LABELS} more" if len(unused) > NAMED_LABELS else ""
            reporter.message(f"warning: the {split} split has no clip of {names}{more}")


def _open_split(
    listing: Listing,
    clip: ClipSpec,
    config: TrainConfig,
    purpose: str,
    caches: Path | None,
    reporter: ProgressReporter,
) -> SplitData:
    """A split with the source of its clips: a cache, or the decoder."""
    training = purpose == "training"
    phases = config.phases if training else 1
    examples = listing.examples
    if caches is None:
        crops = TRAINING_CROPS if training else 1
        offsets = config.offsets if training else Offsets.PHASES
        crop = config.crop if training else CropMode.FIXED
        source = DecodedClips(len(examples), clip, phases=phases, crops=crops, offsets=offsets, crop=crop)
        return SplitData(listing, source)
    with reporter.count(f"decoding {purpose} clips", len(examples)) as counter:
        jobs = max(1, config.workers)
        cache = open_cache(examples, clip, phases, caches, jobs=jobs, advance=counter.advance)
    for item in cache.unreadable:
        reporter.message(f"unreadable: {item.path} ({item.reason})")
    return SplitData(listing.only(cache.rows), CachedClips(cache, cache.rows))
