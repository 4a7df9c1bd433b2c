"""The proxy for faults ends quietly."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from coord.testing.proxy import FaultProxy, Link


@pytest.mark.parametrize("mode", [Link.PASS, Link.FREEZE])
def test_the_end_of_a_proxy_with_open_connections_is_no_error(
    mode: Link, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        connected = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connected.set()
            with contextlib.suppress(ConnectionResetError):
                await reader.read()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server, FaultProxy(*server.sockets[0].getsockname()[:2]) as proxy:
            proxy.set(mode)
            reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
            if mode is Link.PASS:
                await connected.wait()
            else:
                await asyncio.sleep(0.1)
            await proxy.__aexit__()
            with pytest.raises(ConnectionResetError):
                await reader.read()
            writer.close()

    asyncio.run(main())
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []
