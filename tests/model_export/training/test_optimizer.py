"""Learning rate schedules, and the parameters that weight decay applies to."""

from __future__ import annotations

from itertools import pairwise

import pytest

from model_export.networks.registry import build, parse_architecture
from model_export.training.config import Decay, Schedule, TrainConfig
from model_export.training.optimizer import Plateau, learning_rate, make_optimizer
from service.errors import BlvnetError

NETWORK = parse_architecture("blvnet-tam-mini", num_classes=2, frames=4, size=32)


def rates(config: TrainConfig, steps: int, steps_per_epoch: int = 4) -> list[float]:
    return [learning_rate(step, steps_per_epoch, config, Plateau()) for step in range(steps)]


def test_learning_rate_warms_up_and_ends_at_zero() -> None:
    found = rates(TrainConfig(epochs=4, warmup_epochs=1, lr=0.8), 17)
    assert found[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8])
    assert found[10] == pytest.approx(0.4)
    assert found[16] == pytest.approx(0.0)
    assert all(later <= earlier for earlier, later in pairwise(found[4:]))


def test_no_warm_up_starts_at_the_highest_rate() -> None:
    assert rates(TrainConfig(epochs=2, warmup_epochs=0, lr=0.3), 1) == [pytest.approx(0.3)]


def test_step_schedule_divides_by_ten_after_its_epochs() -> None:
    config = TrainConfig(epochs=4, warmup_epochs=0, lr=1.0, schedule=Schedule.STEP, lr_steps=(1, 2.5))
    assert rates(config, 16) == pytest.approx([1.0] * 4 + [0.1] * 6 + [0.01] * 6)


def test_step_schedule_has_the_published_steps_by_default() -> None:
    assert TrainConfig(epochs=50, schedule=Schedule.STEP).decay_epochs() == (15, 30, 45)


def test_plateau_divides_once_the_loss_has_not_fallen_for_longer_than_the_patience() -> None:
    plateau, factors = Plateau(), []
    for loss in (1.0, 0.9, 0.95, 0.9, 0.95, 0.5, 0.6):
        plateau.add(loss, patience=2)
        factors.append(plateau.factor)
    assert factors == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.1])
    config = TrainConfig(epochs=2, warmup_epochs=0, lr=0.5, schedule=Schedule.PLATEAU)
    assert learning_rate(3, 4, config, plateau) == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr_steps": (5.0,)}, "lr_steps needs --schedule step"),
        ({"schedule": Schedule.STEP, "lr_steps": (5.0, 2.0)}, "epochs in rising order"),
        ({"schedule": Schedule.STEP, "lr_steps": (5.0, 9.0), "epochs": 9}, "before the end of epoch 9"),
    ],
)
def test_bad_steps_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(BlvnetError, match=message):
        TrainConfig(**options)  # type: ignore[arg-type]


def test_only_kernels_are_decayed_by_default() -> None:
    network = build(NETWORK)
    config = TrainConfig()
    decayed, kept = make_optimizer(network, config).param_groups
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    assert (decayed["weight_decay"], kept["weight_decay"]) == (config.weight_decay, 0.0)
    assert decayed["nesterov"]
    assert {names[id(p)].rpartition(".")[2] for p in decayed["params"]} == {"weight"}
    assert {names[id(p)].rpartition(".")[2] for p in kept["params"]} == {"weight", "bias", "taps"}
    assert all(p.dim() >= 2 for p in decayed["params"])
    assert len(decayed["params"]) + len(kept["params"]) == len(names)


def test_everything_is_decayed_as_the_authors_do() -> None:
    network = build(NETWORK)
    decayed, kept = make_optimizer(network, TrainConfig(decay=Decay.ALL)).param_groups
    assert len(decayed["params"]) == len(list(network.parameters()))
    assert kept["params"] == []
