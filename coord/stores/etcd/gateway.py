"""Requests to etcd's JSON gateway: bounded in time, and never repeated by the HTTP library."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
from collections.abc import AsyncGenerator, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from coord.runtime.timers import within
from coord.stores import failures
from coord.stores.etcd import errors
from coord.stores.etcd.url import EtcdURL
from coord.stores.failures import RequestError

if TYPE_CHECKING:
    import aiohttp

MAX_CONNECTIONS = 8
"""Connections to all members. HTTP/1.1 carries one request at a time, and ten thousand claims must
not open ten thousand connections."""
SILENCE = 60.0
"""Seconds after which a feed without any event is opened again: a peer may have disappeared."""
MAX_ANSWER = 64 * 1024 * 1024
"""Bytes of an answer. A larger one is not from etcd."""

Answer = dict[str, Any]
KEYS = "/v3/kv/"
"""What the paths of requests about keys begin with."""


def encode(text: str) -> str:
    """Return a key or a value as the gateway takes it."""
    return base64.b64encode(text.encode()).decode("ascii")


def decode(value: str) -> str:
    """Return a key or a value that the gateway answered."""
    return base64.b64decode(value).decode(errors="replace")


def end_of_prefix(prefix: str) -> str:
    """Return the end of the range of all keys that begin with `prefix`."""
    raw = prefix.encode()
    return base64.b64encode(raw[:-1] + bytes([raw[-1] + 1])).decode("ascii")


class Gateway:
    """The members of one cluster, of which the one that answered last is asked next.

    Args:
        url: The members, the user and the certificates.
    """

    def __init__(self, url: EtcdURL) -> None:
        self.url = url
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._member = 0
        self._token: str | None = None
        self._login = asyncio.Lock()
        self._turns = asyncio.Semaphore(MAX_CONNECTIONS)
        self._is_closed = False

    @property
    def server(self) -> str:
        """The member that is asked next, for messages."""
        return str(self.url.hosts[self._member])

    async def call(self, path: str, body: Mapping[str, Any], timeout: float) -> Answer:
        """Send one request, and return the answer within `timeout` seconds.

        A request that was certainly not applied is sent again while there is time, to another
        member.

        Raises:
            RequestError: There is no answer.
        """
        # The first request imports it, which takes seconds on a busy machine. No server is late
        # because of that.
        import aiohttp  # noqa: F401

        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        failures = 0
        while True:
            try:
                return await self._call(path, body, deadline - loop.time())
            except RequestError as err:
                self._member = (self._member + 1) % len(self.url.hosts)
                failures += 1
                pause = 0.02 * failures
                if (
                    not err.retryable
                    or failures > 2 * len(self.url.hosts)
                    or loop.time() + pause >= deadline
                ):
                    raise
                await asyncio.sleep(pause)

    async def _call(self, path: str, body: Mapping[str, Any], timeout: float) -> Answer:
        progress = SimpleNamespace(sent=False)
        server = self.server
        try:
            return await within(self._in_turn(path, body, progress), max(timeout, 0.001))
        except asyncio.TimeoutError:
            if progress.sent:
                raise failures.lost(server, "no answer in time") from None
            raise RequestError(
                f"cannot reach {server}: no connection in time", unknown=False
            ) from None

    async def _in_turn(
        self, path: str, body: Mapping[str, Any], progress: SimpleNamespace
    ) -> Answer:
        session = self._opened()
        async with self._turns:
            headers = await self._headers(session)
            return await self._post(session, path, body, headers, progress)

    async def _post(
        self,
        session: aiohttp.ClientSession,
        path: str,
        body: Mapping[str, Any],
        headers: Mapping[str, str],
        progress: SimpleNamespace,
    ) -> Answer:
        import aiohttp

        address = self.url.hosts[self._member]
        try:
            async with session.post(
                self.url.endpoint(address) + path,
                data=json.dumps(body, separators=(",", ":")),
                headers=headers,
                trace_request_ctx=progress,
                allow_redirects=False,
            ) as response:
                text = await _body(response)
                status = response.status
        except aiohttp.ClientConnectorError as err:
            raise failures.unreachable(str(address), type(err).__name__) from None
        except (aiohttp.ClientError, OSError) as err:
            if progress.sent:
                raise failures.lost(str(address), type(err).__name__) from None
            raise failures.unreachable(str(address), type(err).__name__) from None
        try:
            answer = json.loads(text)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise errors.no_gateway(str(address))
        if status == 200 and "error" not in answer:
            if path.startswith(KEYS) and not _is_from_etcd(answer):
                raise errors.no_gateway(str(address))
            return answer
        error = errors.from_server(_message(answer), str(address))
        if "invalid auth token" in error.detail:
            self._token = None
        raise error

    async def stream(self, path: str, body: Mapping[str, Any]) -> AsyncGenerator[Answer, None]:
        """Yield the messages of a stream.

        Raises:
            RequestError: The stream broke.
        """
        import aiohttp

        address = self.url.hosts[self._member]
        try:
            session = self._opened()
            # A member that lost its quorum ends the stream then, instead of staying silent.
            headers = {**await self._headers(session), "Grpc-Metadata-Hasleader": "true"}
            async with session.post(
                self.url.endpoint(address) + path,
                data=json.dumps(body),
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=5.0, sock_read=SILENCE),
                trace_request_ctx=SimpleNamespace(sent=False),
            ) as response:
                if response.status != 200:
                    text = (await _body(response)).decode(errors="replace")
                    raise errors.from_server(text, str(address))
                async for line in response.content:
                    message = json.loads(line)
                    if "error" in message:
                        raise errors.from_server(_message(message), str(address))
                    yield message["result"]
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError, ValueError, KeyError) as err:
            raise failures.lost(str(address), type(err).__name__) from None
        finally:
            self._member = (self._member + 1) % len(self.url.hosts)
        raise failures.lost(str(address), "the stream ended")

    async def _headers(self, session: aiohttp.ClientSession) -> dict[str, str]:
        if not self.url.user:
            return {}
        async with self._login:
            if self._token is None:
                credentials = {"name": self.url.user, "password": self.url.password}
                answer = await self._post(
                    session,
                    "/v3/auth/authenticate",
                    credentials,
                    {},
                    SimpleNamespace(sent=False),
                )
                self._token = str(answer["token"])
            return {"Authorization": self._token}

    def _opened(self) -> aiohttp.ClientSession:
        import aiohttp

        loop = asyncio.get_running_loop()
        if self._is_closed:
            raise failures.closed()
        if self._session is None or loop is not self._loop:
            trace = aiohttp.TraceConfig()
            trace.on_request_headers_sent.append(_note_sent)
            self._loop, self._token = loop, None
            self._login, self._turns = asyncio.Lock(), asyncio.Semaphore(MAX_CONNECTIONS)
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, ssl=self._ssl()),
                timeout=aiohttp.ClientTimeout(total=None),
                cookie_jar=aiohttp.DummyCookieJar(),
                trace_configs=[trace],
                read_bufsize=2**20,
            )
        return self._session

    def _ssl(self) -> ssl.SSLContext | bool:
        if not self.url.tls:
            return True
        context = ssl.create_default_context(cafile=self.url.ca_certs)
        # With h2 offered, the server would choose it.
        context.set_alpn_protocols(["http/1.1"])
        if self.url.cert is not None:
            context.load_cert_chain(self.url.cert, self.url.key)
        return context

    async def close(self) -> None:
        """Close all connections."""
        self._is_closed = True
        session, self._session = self._session, None
        if session is not None and self._loop is asyncio.get_running_loop():
            with contextlib.suppress(Exception):
                await session.close()

    def abandon(self) -> None:
        """Forget all connections in a forked child, without a word to the server."""
        if self._session is not None:
            _abandoned.append(self._session)
        self._session, self._token, self._loop = None, None, None


_abandoned: list[aiohttp.ClientSession] = []
"""Sessions of the parent process. They are kept, because the garbage collector would close their
connections."""


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """Return the whole body. An answer that is too large counts as lost."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_ANSWER:
            raise OSError("the answer is too large")
    return bytes(body)


async def _note_sent(_session: object, context: Any, _parameters: object) -> None:
    context.trace_request_ctx.sent = True


def _is_from_etcd(answer: Answer) -> bool:
    """Return whether an answer has what every answer about keys has: the revision of the store."""
    header = answer.get("header")
    return isinstance(header, dict) and str(header.get("revision")).isdecimal()


def _message(answer: Answer) -> str:
    error = answer.get("error")
    if isinstance(error, dict):  # in a stream
        return str(error.get("message", ""))
    return str(answer.get("message") or error or "")
