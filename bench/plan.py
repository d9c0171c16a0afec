"""How much a run measures."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """A run in numbers.

    Attributes:
        rounds: how often each contender is asked.
        seconds: how long each time; wrk takes whole ones only.
        repeats: how often what is no load is measured.
        replicas: numbers of replicas to deploy.
        idle_seconds: for how long an idle stack is watched.
        rollout_seconds: for how long the load runs in which a release falls.
        workers: processes and threads of a replica to try.
        node_rounds: how often each contender across nodes is asked.
        node_replicas: numbers of replicas to release on three nodes.
    """

    rounds: int
    seconds: float
    repeats: int
    replicas: tuple[int, ...]
    idle_seconds: float
    rollout_seconds: float
    workers: tuple[tuple[int, int], ...]
    node_rounds: int
    node_replicas: tuple[int, ...]


FULL = Plan(
    rounds=3,
    seconds=4,
    repeats=3,
    replicas=(2, 8, 32),
    idle_seconds=90,
    rollout_seconds=30,
    workers=((1, 1), (1, 8), (2, 1), (2, 2), (2, 4), (2, 8), (2, 16), (4, 2), (4, 4)),
    node_rounds=5,
    node_replicas=(3, 12),
)
# Long enough to see that everything works, not to trust a figure.
QUICK = Plan(
    rounds=2,
    seconds=2,
    repeats=1,
    replicas=(2, 32),
    idle_seconds=30,
    rollout_seconds=25,
    workers=((1, 1), (2, 1), (2, 8)),
    node_rounds=2,
    node_replicas=(3, 12),
)
