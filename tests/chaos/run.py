"""One run from start to end: the crew on its stage, faults one after the other and at times two at
once, the end."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coord import AsyncCoordinator, StoreUnavailable
from coord.stores import urls
from coord.stores.protocol import Retirable, Store
from tests.chaos import faults
from tests.chaos.crew import Crew
from tests.chaos.jobs import FAULTS, FULL
from tests.chaos.processes import Process
from tests.chaos.recorder import Recorder, now, recording
from tests.chaos.scene import Fault, NotNow, Scene
from tests.chaos.stage import Stage

ENOUGH = {"renew": 3, "write": 21}
"""Answered operations without which a run shows nothing. On a busy machine it goes on until it has
them."""


@dataclass
class Plan:
    """`kinds`: the kinds of fault, first in this order and then by chance; None for all, first in
    random order."""

    seconds: float
    seed: int
    workers: int = 4
    ttl: float = 2.0
    kinds: tuple[str, ...] | None = None
    calm: tuple[float, float] = (0.5, 3.0)
    """Between faults, in ttls."""
    quiet: float = 0.08
    """The chance of 6 to 15 s more between faults, in which a demotion would be a false one."""
    longest: float = math.inf
    """The longest that one fault lasts, in ttls, where nothing else ends it."""
    broken: str = ""
    """"deadline": workers that believe on; "fence": a resource that refuses nothing."""
    features: tuple[str, ...] = ()
    """What workers do beside the election (jobs.py)."""


class Run:
    def __init__(
        self, plan: Plan, directory: Path, make_stage: Callable[[Path, int, random.Random], Stage]
    ) -> None:
        self.plan, self.directory = plan, directory
        self.chance = random.Random(plan.seed)
        self.stage = make_stage(directory, plan.workers, self.chance)
        more = [kind for feature in plan.features for kind in FAULTS.get(feature, ())]
        retires = isinstance(urls.open_url(self.stage.example_url), Retirable)
        more = [kind for kind in more if retires or kind != "retire"]
        self.stage.kinds = (*self.stage.kinds, *more) if plan.kinds is None else plan.kinds
        self.crew = Crew(
            directory,
            plan.workers,
            plan.ttl,
            self.stage.url_of,
            self.stage.example_url,
            self.chance,
            plan.broken,
            plan.features,
        )
        self.faults: list[Fault] = []
        self.active: list[str] = []
        self.counted: Counter[str] = Counter()
        self.began = self.ended = 0.0
        self.lag = 0.0
        """The longest that this very process came late: how busy the machine was, in seconds."""
        self.recovered_in: float | None = None
        """Seconds from the last heal until somebody leads; None for never."""
        self.restored_in: float | None = None
        """The same, until all seats of the features are held."""
        self.held: dict[str, list[int]] = {}
        """How many seats of each such feature the workers held at the end."""
        self._resource: Process | None = None

    async def run(self) -> None:
        lag = asyncio.create_task(self._watch_lag())
        try:
            _ = self.crew.forkserver  # imports while the servers start
            await self.stage.start()
            await self._start_resource()
            await self.crew.start()
            await self._until_led(60.0)
            self.began = now()
            await self._make_trouble()
            healed, before = now(), self._leads_now()
            limit = 30.0 + 5 * self.plan.ttl
            self.recovered_in = 0.0 if before else None
            while self.recovered_in is None and now() - healed < limit:
                await asyncio.sleep(0.02)
                if self._leads_now():
                    self.recovered_in = now() - healed
            while self.restored_in is None and now() - healed < limit:
                await asyncio.sleep(0.02)
                if self.restored():
                    self.restored_in = now() - healed
            while now() - healed < limit:
                if self._has_enough():
                    break
                await asyncio.sleep(0.2)
            self.held = {feature: self.crew.held(feature) for feature in self._counted()}
            self.ended = now()
            await self.crew.stop()
        finally:
            lag.cancel()
            for member in self.crew.members:
                if member.runs:
                    with contextlib.suppress(ProcessLookupError):
                        await member.kill()
            if self._resource is not None and not self._resource.ended.is_set():
                self._resource.send(signal.SIGKILL)
                await self._resource.ended.wait()
            self.crew.close()
            await self.stage.close()

    def _counted(self) -> list[str]:
        return [feature for feature in self.plan.features if feature in FULL]

    def restored(self) -> bool:
        """Whether the workers hold all seats of each feature, and the shards fairly."""
        for feature in self._counted():
            held = self.crew.held(feature)
            if sum(held) != min(FULL[feature], len(held) if feature == "slots" else FULL[feature]):
                return False
            if feature == "share" and max(held) - min(held) > 1:
                return False
        return True

    def _has_enough(self) -> bool:
        """Whether the histories have what makes the run meaningful."""
        texts = [path.read_text() for path in self.directory.glob("history-*.jsonl")]
        lines = [line for text in texts for line in text.splitlines() if '"kind": "ok"' in line]
        return all(
            sum(f'"action": "{action}"' in line for line in lines) >= count
            for action, count in ENOUGH.items()
        )

    def _leads_now(self) -> bool:
        """Whether the last that was heard is that somebody leads, who is still there."""
        leader = self.crew.leader
        if leader is None:
            return False
        return not any(
            note["note"] == "lost" and note["token"] == self.crew.token
            for note in reversed(self.crew.notes[-200:])
        )

    async def _until_led(self, limit: float) -> None:
        until = now() + limit
        while not self._leads_now():
            if now() > until:
                raise RuntimeError(
                    f"nobody led within {limit:g} s of the start: see {self.directory}"
                )
            await asyncio.sleep(0.02)

    async def _start_resource(self) -> None:
        arguments = [str(self.directory / name) for name in ("resource.sock", "resource.db")]
        if self.plan.broken == "fence":
            arguments.append("--blind")
        self._resource = Process(self.crew.forkserver, "tests.chaos.resource", *arguments)
        await self._resource.connect()
        if await self._resource.stdout.readline() != b"ready\n":
            raise RuntimeError("the resource did not start")

    async def _wait_for_store(self, operator: AsyncCoordinator) -> None:
        """Wait until the store answers: on a busy machine a server takes seconds to begin."""
        deadline = time.monotonic() + 60
        while True:
            try:
                return await operator.check()
            except StoreUnavailable:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.2)

    async def _make_trouble(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            operators = [
                AsyncCoordinator(store=self._recording(url, number), timeout=2.0)
                for number, url in enumerate(self.stage.operators_urls)
            ]
            for operator in operators:
                stack.push_async_callback(operator.close)
                await self._wait_for_store(operator)
            plan = self.plan
            scene = Scene(
                self.crew, self.stage, plan.ttl, self.chance, operators, longest=plan.longest
            )
            await self._inject(scene)

    def _recording(self, url: str, number: int) -> Store:
        name = f"operator{number}"
        recorder = Recorder(self.directory / f"history-{name}.jsonl", name)
        return recording(urls.open_url(url), recorder)

    async def _inject(self, scene: Scene) -> None:
        until = self.began + self.plan.seconds
        first = (
            list(dict.fromkeys(self.stage.kinds))
            if self.plan.kinds is None
            else list(self.plan.kinds)
        )
        if self.plan.kinds is None:
            self.chance.shuffle(first)
        latest = until + 2 * self.plan.seconds
        while now() < (
            latest if first else until
        ):  # each of the first comes to its turn, if that can be
            await asyncio.sleep(
                scene.between(*self.plan.calm)
                + (
                    self.chance.uniform(6, 15)
                    if not first and self.chance.random() < self.plan.quiet
                    else 0.0
                )
            )
            if not first and now() >= until:
                break
            at_once = 2 if not first and self.chance.random() < 0.25 else 1
            kinds = [first[0] if first else faults.pick(scene) for _ in range(at_once)]
            done = await asyncio.gather(*(self._inject_fault(scene, kind) for kind in kinds))
            if first and done[0]:
                del first[0]

    async def _inject_fault(self, scene: Scene, kind: str) -> bool:
        """Whether it found something to hit, and hit it."""
        self.active.append(kind)
        try:
            fault = await faults.inject(scene, kind)
        except NotNow:
            return False
        else:
            self.faults.append(fault)
            self.counted[kind] += 1
            return not fault.missed
        finally:
            self.active.remove(kind)

    async def _watch_lag(self) -> None:
        while True:
            before = now()
            await asyncio.sleep(0.05)
            self.lag = max(self.lag, now() - before - 0.05)

    def state(self) -> dict[str, Any]:
        """For the display."""
        leader = self.crew.leader
        return {
            "seconds": now() - self.began if self.began else 0.0,
            "leader": "nobody" if leader is None else leader.name,
            "token": self.crew.token,
            "elections": self.crew.elections,
            "faults": dict(self.counted),
            "active": list(self.active),
        }
