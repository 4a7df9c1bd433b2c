"""The stores that the workers share, by name: new for each run."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from tests.chaos.backends import (
    EtcdStage,
    PostgreSQLStage,
    RedisStage,
    SentinelStage,
    StandbyStage,
)
from tests.chaos.nodes import OneNode, PartitionedNodes, ThreeNodes
from tests.chaos.stage import SQLiteStage, Stage

STAGES: dict[str, Callable[[Path, int, random.Random], Stage]] = {
    "sqlite": SQLiteStage,
    "rethinkdb": OneNode,
    "cluster": ThreeNodes,
    "partitions": PartitionedNodes,
    "postgresql": PostgreSQLStage,
    "standby": StandbyStage,
    "redis": RedisStage,
    "sentinel": SentinelStage,
    "etcd": EtcdStage,
}
