"""The stores that the workers share, by name: new for each run."""

from __future__ import annotations

from importlib import import_module

from tests.chaos.stage import Stage

STAGES = {
    "sqlite": "stage:SQLiteStage",
    "rethinkdb": "nodes:OneNode",
    "cluster": "nodes:ThreeNodes",
    "partitions": "nodes:PartitionedNodes",
    "postgresql": "backends:PostgreSQLStage",
    "standby": "backends:StandbyStage",
    "redis": "backends:RedisStage",
    "sentinel": "backends:SentinelStage",
    "etcd": "backends:EtcdStage",
}
"""Each with its module and class: a run imports what it needs of the stores."""


def stage_class(name: str) -> type[Stage]:
    """Return the class of a stage."""
    module, _, kind = STAGES[name].partition(":")
    stage = getattr(import_module(f"tests.chaos.{module}"), kind)
    assert issubclass(stage, Stage)
    return stage
