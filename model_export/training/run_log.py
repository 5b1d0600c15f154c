"""Reports of a run: `RUN/log.jsonl`, `RUN/curves.png` drawn from it, and progress on the terminal.

The log has one JSON object per line. `kind` is `start` (the whole configuration), `step` (`step`, `epoch`,
`loss`, `lr`, `clips_per_s`, and `waiting`, the share of the time spent waiting for data), `epoch` (`step`,
`epoch`, `validation_loss`, `validation_top1` or, for videos with several labels, `validation_map`,
`training_s`, the seconds that the epoch's steps took, `waiting_s`, the part that was spent waiting for data,
`elapsed_s`), `unreadable` (`path`, `reason`) or `resume` (as `start`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from model_export.datasets.reading import Unreadable
from model_export.metrics import Metric
from model_export.progress import ProgressReporter
from model_export.training.config import TrainConfig
from service.errors import BlvnetError
from service.packages.files import atomic_write

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

LOG_FILE = "log.jsonl"
CURVES_FILE = "curves.png"
BOARD_FOLDER = "tensorboard"

Line = dict[str, Any]


class RunLog:
    """Appends lines to the log of a run.

    Args:
        run: the run's folder.
        resume_at: keep the lines up to this step, as the later steps will run again; None starts a new log.
        enabled: False to write nothing, as in all processes except the main one.

    Raises:
        BlvnetError: the log cannot be written.
    """

    def __init__(self, run: Path, resume_at: int | None, *, enabled: bool = True) -> None:
        self.path = run / LOG_FILE
        self.enabled = enabled
        self.resume_at = resume_at
        if not enabled:
            return
        kept = [] if resume_at is None else [line for line in read_log(run) if line["step"] <= resume_at]
        with writing(self.path), atomic_write(self.path) as file:
            file.write("".join(json.dumps(line) + "\n" for line in kept).encode())

    def add(self, kind: str, step: int, **values: Any) -> None:
        """Append one line; it is in the file when this returns."""
        if not self.enabled:
            return
        with writing(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")


class RunReport:
    """Logs a run and shows its progress: the mean of every `log_every` steps, each epoch, unreadable files.

    Args:
        log: the run's log.
        reporter: the terminal.
        config: options of the run.
        steps_per_epoch: steps of one epoch.
        metric: metric of the validation.
    """

    def __init__(
        self,
        log: RunLog,
        reporter: ProgressReporter,
        config: TrainConfig,
        steps_per_epoch: int,
        metric: Metric = Metric.TOP1,
    ) -> None:
        self._log = log
        self._reporter = reporter
        self._config = config
        self._steps_per_epoch = steps_per_epoch
        self._metric = metric
        self._unreadable: set[Path] = set()
        self._board = (
            open_board(log.path.parent, log.resume_at) if config.tensorboard and log.enabled else None
        )

    @contextmanager
    def epoch(self, epoch: int, completed: int) -> Iterator[None]:
        """Show the progress of an epoch, counted from 1, whose first `completed` steps ran before."""
        self._title = f"epoch {epoch}/{self._config.epochs}"
        self._epoch = epoch
        with self._reporter.count(
            self._title, self._steps_per_epoch, completed=completed, lines=0
        ) as counter:
            self._counter = counter
            self._epoch_started = time.monotonic()
            self._epoch_waited_s = 0.0
            self._start_mean()
            yield
            self._epoch_s = time.monotonic() - self._epoch_started

    def step(self, step: int, *, loss: float | None, lr: float, clips: int, waited_s: float) -> None:
        """Report a step; `loss` is None if none of its clips could be read."""
        self._counter.advance()
        self._waited_s += waited_s
        self._epoch_waited_s += waited_s
        if loss is not None:
            self._losses.append(loss)
            self._clips += clips
        if step % self._config.log_every or not self._losses:
            return
        seconds = time.monotonic() - self._started
        line = {
            "epoch": self._epoch,
            "loss": round(sum(self._losses) / len(self._losses), 4),
            "lr": float(f"{lr:.6g}"),
            "clips_per_s": round(self._clips / seconds, 1),
            "waiting": round(self._waited_s / seconds, 2),
        }
        self._add("step", step, line)
        waiting = f", {line['waiting']:.0%} of the time waiting for data" if line["waiting"] >= 0.05 else ""
        self._counter.describe(
            f"{self._title}: step {step}, loss {line['loss']:.3f}, lr {line['lr']:.3g}, "
            f"{line['clips_per_s']} clips/s{waiting}"
        )
        self._start_mean()

    def validation(self, step: int, *, loss: float, score: float, best: bool, elapsed_s: float) -> None:
        """Report the validation at the end of an epoch."""
        line = {
            "epoch": self._epoch,
            "validation_loss": round(loss, 4),
            self._metric.log_key: round(score, 4),
            "training_s": round(self._epoch_s, 1),
            "waiting_s": round(self._epoch_waited_s, 1),
            "elapsed_s": round(elapsed_s, 1),
        }
        self._add("epoch", step, line)
        self._reporter.message(
            f"{self._title}: validation loss {loss:.3f}, {self._metric.shown} {100 * score:.1f} %"
            f"{' (best)' if best else ''}, {elapsed_s / 60:.1f} min"
        )

    def unreadable(self, step: int, items: Sequence[Unreadable]) -> None:
        """Name files that cannot be read, once each."""
        for item in items:
            if item.path not in self._unreadable:
                self._unreadable.add(item.path)
                self._log.add("unreadable", step, path=str(item.path), reason=item.reason)
                self._reporter.message(f"unreadable: {item.path} ({item.reason})")

    def _add(self, kind: str, step: int, line: Line) -> None:
        """Write a line to the log, and its values to TensorBoard."""
        self._log.add(kind, step, **line)
        if self._board is not None:
            for name, value in line.items():
                self._board.add_scalar(f"{kind}/{name}", value, step)
            self._board.flush()

    def _start_mean(self) -> None:
        self._losses: list[float] = []
        self._clips = 0
        self._waited_s = 0.0
        self._started = time.monotonic()


def open_board(run: Path, resume_at: int | None) -> SummaryWriter:
    """Open `RUN/tensorboard` for writing; values after the step `resume_at` are replaced, as in `RunLog`.

    Raises:
        ModuleNotFoundError: TensorBoard is not installed; the command line says how to install it.
    """
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(run / BOARD_FOLDER, purge_step=None if resume_at is None else resume_at + 1)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an error while writing `path`, such as a full disk, into a BlvnetError."""
    try:
        yield
    except OSError as exc:
        raise BlvnetError(f"{path} cannot be written ({exc.strerror})") from exc


def read_log(run: Path) -> list[Line]:
    """Read the lines of a run's log, without a last line that a crash cut off.

    Raises:
        BlvnetError: the log is damaged.
    """
    path = run / LOG_FILE
    if not path.exists():
        return []
    lines = path.read_bytes().splitlines(keepends=True)
    try:
        return [json.loads(line) for line in lines if line.endswith(b"\n")]
    except ValueError as exc:
        raise BlvnetError(f"{path} is damaged: remove it, and the run continues with a new log") from exc


def plot_curves(run: Path) -> Path:
    """Draw loss, learning rate and validation accuracy over the steps to `RUN/curves.png`.

    Raises:
        BlvnetError: the picture cannot be written.
    """
    lines = read_log(run)
    steps = [line for line in lines if line["kind"] == "step"]
    epochs = [line for line in lines if line["kind"] == "epoch"]
    figure = Figure(figsize=(10, 4), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    loss.plot([s["step"] for s in steps], [s["loss"] for s in steps], linewidth=0.7, label="training loss")
    loss.plot([e["step"] for e in epochs], [e["validation_loss"] for e in epochs], label="validation loss")
    rate = loss.twinx()
    rate.plot([s["step"] for s in steps], [s["lr"] for s in steps], color="grey", linestyle=":")
    rate.set_ylabel("learning rate (dotted)")
    several = any(Metric.MAP.log_key in e for e in epochs)
    metric = Metric.MAP if several else Metric.TOP1
    loss.set(xlabel="step", ylabel="binary cross-entropy" if several else "cross-entropy")
    loss.legend()
    scores = [100 * e[metric.log_key] for e in epochs]
    accuracy.plot([e["step"] for e in epochs], scores, marker="o")
    accuracy.set(xlabel="step", ylabel=f"validation {metric.shown}, %", ylim=(0, 100))
    accuracy.grid(alpha=0.3)
    path = run / CURVES_FILE
    with writing(path), atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=110)
    return path
