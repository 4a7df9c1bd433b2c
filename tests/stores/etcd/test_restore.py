"""A snapshot of a real etcd is restored with the vendor's command, without a higher revision, and
processes run on that know rows and floors of before."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from coord.core.operations import Claim, Renew
from coord.stores.etcd import EtcdStore
from coord.stores.etcd.admin import admin
from tests.stores.etcd.test_retirement import answered, led, opened, retired
from tests.support import requirements
from tests.support.etcd_server import Member, request

FLOOR = 1_000


class Backup:
    """A snapshot, and the member that it was taken of."""

    def __init__(self, member: Member, file: Path) -> None:
        self._member, self._file = member, file

    def take(self) -> None:
        self._run(
            "etcdctl", "snapshot", "save", str(self._file), "--endpoints", self._member.client_url
        )

    def restore(self) -> None:
        """Restore it under the same name and address, so that clients find it again."""
        member = self._member
        member.stop()
        data = member.directory / "data"
        shutil.rmtree(data)
        words = ["--name", member.name, "--initial-cluster", member.initial_cluster]
        words += ["--initial-advertise-peer-urls", member.peer_url, "--data-dir", str(data)]
        words += ["--initial-cluster-token", "coord"]
        # etcd 3.6 has moved the command to etcdutl.
        program = "etcdutl" if shutil.which("etcdutl") else "etcdctl"
        self._run(program, "snapshot", "restore", str(self._file), *words)
        member.start()

    def revision(self) -> int:
        return int(request(self._member, "kv/range", key="YQ==")["header"]["revision"])

    def _run(self, *words: str) -> None:
        environment = {**os.environ, "ETCDCTL_API": "3"}
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def member() -> Iterator[Member]:
    requirements.need("etcd")
    if shutil.which("etcdctl") is None:
        pytest.skip("not tested: etcdctl")
    with Member() as member:
        yield member


async def renewed_until(store: EtcdStore, role: str, revision: int, backup: Backup) -> None:
    """Renew a lease of c until the store is at this revision."""
    lease = (await store.read([role], 20))[0]
    for beat in range(lease.beat + 1, lease.beat + 1 + revision - backup.revision()):
        (result,) = await store.renew([Renew(role, "c", lease.token, beat, 30.0)], 20)
        assert answered(result).applied
    assert backup.revision() == revision


def test_processes_that_run_on_after_a_restore_write_over_nothing(
    member: Member, tmp_path: Path
) -> None:
    """A row has the revision at which a process knew another, and a floor is older than the
    revision at which another process knew all."""
    url, backup = member.url("restored"), Backup(member, tmp_path / "snapshot")

    async def body() -> None:
        async with opened(url) as leader, opened(url) as idle, opened(url) as behind:
            async with opened(url) as other:
                for store, role in ((leader, "job"), (behind, "quiet")):
                    assert answered(await store.claim(Claim(role, "a", 1, 30.0), 20)).applied
                assert await retired(other, "old", await led(other, "old", floor=70))
                assert (await led(idle, "first")).token == 72  # and it knows the floors
                await asyncio.to_thread(backup.take)
                for beat in range(2, 30):
                    for store, role in ((leader, "job"), (behind, "quiet")):
                        (result,) = await store.renew([Renew(role, "a", 1, beat, 30.0)], 20)
                        assert answered(result).applied
                last = await asyncio.to_thread(backup.revision)
                # The revision of the row of job is before the last one.
                assert await retired(other, "lost", await led(other, "lost", floor=80))
                assert (await led(idle, "second")).token == 82

            await asyncio.to_thread(backup.restore)
            async with opened(url) as other:
                assert answered(await other.claim(Claim("busy", "c", 1, 30.0), 20)).applied
                await renewed_until(other, "busy", last - 20, backup)
                assert await admin(url).raise_token_floor(FLOOR, ["lost"], 20) > 0
                assert await retired(other, "new", await led(other, "new", floor=5_000), "new")
                taken = answered(await other.claim(Claim("job", "c", 1, 30.0, takeover=True), 20))
                assert (taken.applied, taken.lease.token) == (True, FLOOR + 1)
                await renewed_until(other, "job", last - 1, backup)

                (refused,) = await leader.renew([Renew("job", "a", 1, 30, 30.0)], 20)
                lease = answered(refused).lease
                assert (refused.applied, lease.holder, lease.token) == (False, "c", FLOOR + 1)
                first = answered(await idle.claim(Claim("new", "a", 1, 30.0), 20))
                assert (first.applied, first.lease.token) == (True, 5_002)

    asyncio.run(body())


def test_a_row_with_a_lower_revision_than_before_is_used(member: Member, tmp_path: Path) -> None:
    """Nobody raised the tokens, and the revision of the store is beyond that of before by now."""
    url, backup = member.url("restored"), Backup(member, tmp_path / "snapshot")

    async def body() -> None:
        async with opened(url) as behind, opened(url) as other:
            assert answered(await behind.claim(Claim("quiet", "a", 1, 30.0), 20)).applied
            assert answered(await other.claim(Claim("busy", "c", 1, 30.0), 20)).applied
            await asyncio.to_thread(backup.take)
            for beat in range(2, 9):
                (result,) = await behind.renew([Renew("quiet", "a", 1, beat, 30.0)], 20)
                assert answered(result).applied
            last = await asyncio.to_thread(backup.revision)
            await asyncio.to_thread(backup.restore)
            async with opened(url) as new:
                await renewed_until(new, "busy", last + 5, backup)
            (result,) = await behind.renew([Renew("quiet", "a", 1, 9, 30.0)], 5)
            assert answered(result).applied

    asyncio.run(body())
