import math
from fractions import Fraction

import pytest

from vae_lightning.losses import Capacity, Constant, Cyclical, KLWeight, LinearWarmup, Objective, SquaredError
from vae_lightning.losses.beta_schedule import BetaSchedule


def betas(schedule: BetaSchedule, epochs: range, beta: float = 1.0) -> list[float]:
    objective = Objective(SquaredError(), beta=beta, beta_schedule=schedule)
    return [objective.weight_at(epoch, step=10 * epoch).beta for epoch in epochs]


def test_constant() -> None:
    assert betas(Constant(), range(3), beta=3.0) == [3.0, 3.0, 3.0]


def test_warmup_is_linear_and_ends_at_beta() -> None:
    assert betas(LinearWarmup(duration=4), range(7), beta=4.0) == [0.0, 1.0, 2.0, 3.0, 4.0, 4.0, 4.0]
    by_step = LinearWarmup(duration=40, unit="step")
    assert betas(by_step, range(7), beta=4.0) == [0.0, 1.0, 2.0, 3.0, 4.0, 4.0, 4.0]
    assert by_step.factor(epoch=99, step=10) == 0.25


def test_cycles_rise_and_hold() -> None:
    """Fu et al. 2019, equations 6 and 7, with M = 2 and R = 0.5: two cycles of four."""
    expected = [0.0, 0.5, 1.0, 1.0, 0.0, 0.5, 1.0, 1.0, 1.0, 1.0]
    assert betas(Cyclical(duration=8, num_cycles=2), range(10)) == pytest.approx(expected)
    assert betas(Cyclical(duration=80, unit="step", num_cycles=2), range(10)) == pytest.approx(expected)
    slower = Cyclical(duration=8, num_cycles=2, ramp_fraction=1.0)
    assert betas(slower, range(5)) == pytest.approx([0.0, 0.25, 0.5, 0.75, 0.0])


@pytest.mark.parametrize("duration", range(1, 46))
def test_schedules_of_any_length_are_those_of_exact_arithmetic(duration: int) -> None:
    """A cycle begins at 0, also where the start of the cycle is no binary fraction (22 cycles in 22 or 44 epochs)."""
    warmup, capacity = LinearWarmup(duration), Capacity(3.0, duration)
    for epoch in range(duration):
        assert warmup.factor(epoch, 0) == epoch / duration
        assert capacity.capacity_nats(epoch, 0) == 3.0 * (epoch / duration)
    for num_cycles in range(1, duration + 1):
        cyclical = Cyclical(duration, num_cycles=num_cycles)
        for epoch in range(duration):
            exact = min(Fraction(1), Fraction(epoch * num_cycles % duration, duration) * 2)
            assert abs(cyclical.factor(epoch, 0) - exact) < 1e-12, (num_cycles, epoch)


def test_capacity_rises_while_beta_stays() -> None:
    objective = Objective(SquaredError(), beta=1000.0, beta_schedule=Capacity(20.0, duration=4))
    weights = [objective.weight_at(epoch, step=0) for epoch in range(6)]
    assert weights == [KLWeight(1000.0, capacity) for capacity in (0.0, 5.0, 10.0, 15.0, 20.0, 20.0)]
    assert objective.final_weight == KLWeight(1000.0, 20.0)


@pytest.mark.parametrize("schedule", [Constant(), LinearWarmup(5), Cyclical(5), Capacity(9.0, 5)])
def test_every_schedule_ends_where_validation_is_all_along(schedule: BetaSchedule) -> None:
    objective = Objective(SquaredError(), beta=2.0, beta_schedule=schedule)
    assert objective.weight_at(epoch=5, step=123) == objective.final_weight


def test_schedules_may_go_to_their_borders() -> None:
    assert betas(LinearWarmup(duration=1), range(3)) == [0.0, 1.0, 1.0]
    assert betas(Cyclical(duration=4, num_cycles=1, ramp_fraction=1.0), range(6)) == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    assert betas(Cyclical(duration=2, num_cycles=2), range(4)) == [0.0, 0.0, 1.0, 1.0]
    by_step = Capacity(0.5, duration=2, unit="step")
    assert [by_step.capacity_nats(epoch=9, step=step) for step in range(4)] == [0.0, 0.25, 0.5, 0.5]


def test_defaults_are_those_of_the_sources() -> None:
    """The residual preset's warm-up of 10 epochs; Fu et al. 2019: M = 4, R = 0.5; Burgess et al. 2018: C up to 25."""
    assert LinearWarmup().duration == 10
    cyclical, capacity = Cyclical(), Capacity()
    assert (cyclical.duration, cyclical.num_cycles, cyclical.ramp_fraction) == (8, 4, 0.5)
    assert (capacity.final_capacity_nats, capacity.duration) == (25.0, 10)
    assert {schedule.unit for schedule in (LinearWarmup(), cyclical, capacity)} == {"epoch"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LinearWarmup(duration=0), "duration=0"),
        (lambda: LinearWarmup(unit="hour"), "epoch, step"),
        (lambda: Cyclical(duration=3, num_cycles=4), "between 1 and duration"),
        (lambda: Cyclical(num_cycles=0), "num_cycles=0"),
        (lambda: Cyclical(ramp_fraction=0.0), "ramp_fraction=0"),
        (lambda: Cyclical(ramp_fraction=1.5), "ramp_fraction=1.5"),
        (lambda: Capacity(capacity_nats=0.0), "capacity_nats=0"),
        (lambda: Capacity(capacity_nats=math.inf), "capacity_nats=inf"),
        (lambda: Capacity(capacity_nats=math.nan), "capacity_nats=nan"),
    ],
)
def test_schedules_refuse_nonsense(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]
