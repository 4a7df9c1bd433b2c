"""A feed shows renewals, so that a candidate counts the ttl from the last one (rule 4). If it left
them out, a candidate would begin to count anew with each of its refused claims, and a role would be
without a leader for up to two ttls after a crash."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from coord.core.operations import Answer, Claim, Renew
from coord.stores import urls
from tests.support.store_urls import PARAMETERS, NewURL


@pytest.mark.parametrize("kind", PARAMETERS)
def test_each_renewal_is_seen(kind: str, new_url: NewURL) -> None:
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

    asyncio.run(asyncio.wait_for(body(), 30))
