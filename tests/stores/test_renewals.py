"""Renewals on every store: what feeds show of them, and what happens to those of roles without a
row."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from typing import Any

import pytest

from coord.core.operations import Answer, Claim, Renew
from coord.stores import urls
from tests.support.store_urls import PARAMETERS, NewURL


@pytest.mark.parametrize("kind", PARAMETERS)
def test_each_renewal_is_seen(kind: str, new_url: NewURL) -> None:
    """So a candidate counts the ttl from the last one (rule 4). Without them, it would begin to
    count again with each of its refused claims."""
    url = new_url(kind)

    async def body() -> None:
        leader, candidate = urls.open_url(url), urls.open_url(url)
        try:
            claimed = await leader.claim(Claim("role", "a", 1, 1.2), 10)
            assert isinstance(claimed, Answer)
            watched: Any = candidate.watch(["role"])
            async with contextlib.aclosing(watched) as feed:
                assert (await feed.__anext__()).beat == 1
                for beat in range(2, 5):
                    renewal = Renew("role", "a", claimed.lease.token, beat, 1.2)
                    (renewed,) = await leader.renew([renewal], 10)
                    assert isinstance(renewed, Answer), renewed
                    while (await feed.__anext__()).beat < beat:
                        pass
        finally:
            await leader.close()
            await candidate.close()

    asyncio.run(asyncio.wait_for(body(), 100))


@pytest.mark.parametrize("kind", PARAMETERS)
def test_a_renewal_of_a_role_without_a_row_is_refused(kind: str, new_url: NewURL) -> None:
    """As after the loss of a database: alone, in a batch, and beside renewals that are applied."""
    url = new_url(kind)

    async def body() -> None:
        store = urls.open_url(url)
        try:
            claimed = await store.claim(Claim("held", secrets.token_hex(8), 1, 30.0), 30)
            assert isinstance(claimed, Answer), claimed
            assert claimed.applied, claimed
            holder, token = claimed.lease.holder or "", claimed.lease.token
            absent = [f"absent-{number}" for number in range(20)]
            for roles in (absent[:1], absent, [*absent, "held"]):
                for beat in range(2, 12):
                    renewals = [Renew(role, holder, token, beat, 30.0) for role in roles]
                    results = await store.renew(renewals, 10)
                    if all(isinstance(result, Answer) for result in results):
                        break  # otherwise the server was too busy: again, with another beat
                    await asyncio.sleep(0.2)
                answers = [result for result in results if isinstance(result, Answer)]
                assert len(answers) == len(roles), results
                applied = [answer.lease.role for answer in answers if answer.applied]
                assert applied == [role for role in roles if role == "held"]
        finally:
            await store.close()

    asyncio.run(asyncio.wait_for(body(), 100))
