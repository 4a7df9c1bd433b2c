"""Subscriptions: messages as they are published, on a connection of their own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

from coord.runtime.timers import within
from coord.stores import failures
from coord.stores.redis import errors
from coord.stores.redis.connection import Client, Closing, make_driver, open_driver

PING_EVERY = 5.0
"""Seconds of silence after which the server is asked whether it is there: a peer that disappeared
is silent."""
CONNECT_TIMEOUT = 10.0
SUBSCRIBED = b""
"""What a feed yields when its subscription is active."""


async def subscribe(
    client: Client, channels: Sequence[str] | None, pattern: str
) -> AsyncGenerator[bytes, None]:
    """Yield `SUBSCRIBED` once the subscription is active, then the messages.

    Args:
        client: Knows which server is the primary.
        channels: The channels to subscribe to; None means all that match `pattern`.
        pattern: See `channels`.

    Raises:
        RequestError: The server cannot be reached, refuses, or stopped answering.
    """
    from redis.exceptions import RedisError

    try:
        address = await within(client.primary(), CONNECT_TIMEOUT)
        driver = make_driver(client.url, address)
        server = str(address)
        await within(open_driver(driver, server), CONNECT_TIMEOUT)
    except asyncio.TimeoutError:
        raise failures.unreachable(client.url.redacted, "no connection in time") from None
    reading: asyncio.Future[object] | None = None
    closing = Closing(driver)
    try:
        names = [pattern] if channels is None else list(channels)
        await driver.send_command(
            "PSUBSCRIBE" if channels is None else "SUBSCRIBE", *names, check_health=False
        )
        confirmed, pinged = 0, False
        while True:
            reading = reading or asyncio.ensure_future(driver.read_response())
            done, _ = await asyncio.wait({reading}, timeout=PING_EVERY)
            if not done:
                if pinged:
                    raise failures.lost(server, f"no answer to PING in {PING_EVERY:g} s")
                await driver.send_command("PING", check_health=False)
                pinged = True
                continue
            reply, reading, pinged = reading.result(), None, False
            if not isinstance(reply, list) or not reply:
                continue
            if reply[0] in (b"subscribe", b"psubscribe"):
                confirmed += 1
                if confirmed == len(names):
                    yield SUBSCRIBED
            elif reply[0] in (b"message", b"pmessage"):
                yield reply[-1]
    except (RedisError, OSError) as err:
        if isinstance(err, RedisError) and errors.code_of(err) in errors.REFUSED:
            raise errors.from_server(err, server) from None
        raise failures.lost(server, type(err).__name__) from None
    finally:
        if reading is not None:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        await closing.close()
