"""The log-in of a connection: SCRAM-SHA-256 (RFC 5802 and RFC 7677), without input and output.

Everything that arrives before the server has proved that it knows the password may come from a
stranger. So each field is checked, and the work that the other side can ask for is limited.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import secrets
import struct
from collections.abc import Awaitable, Callable
from typing import Any

from coord.runtime.threads import start_thread_soon

MAX_ITERATIONS = 1_000_000
"""The most iterations of the password's hash that a server may ask for, about half a second of
work. RethinkDB asks for 4,096 unless an administrator has set another number."""
MAX_ITERATIONS_ON_LOOP = 20_000
"""With more iterations the hash is computed in a thread, so that the loop goes on."""
_VERSION = struct.pack("<L", 0x34C2BDC3)
"""V1_0 of the protocol."""
_PROTOCOL = 0
_WRONG_CREDENTIALS = range(10, 21)
"""The codes of errors that mean a wrong user or password."""


class LoginRefused(Exception):
    """The server knows no such user, or not with this password."""


class MalformedGreeting(Exception):
    """The answer is none of a RethinkDB server. The text names what is wrong with it."""


async def log_in(exchange: Callable[[bytes], Awaitable[bytes]], user: str, password: str) -> None:
    """Log in, and check that the server knows the password, too.

    Args:
        exchange: Sends a message (nothing if it is empty) and returns the next answer.
        user: The user, in ASCII.
        password: The password.

    Raises:
        LoginRefused: The user or the password is wrong.
        MalformedGreeting: The answer is none of a RethinkDB server.
    """
    nonce = base64.b64encode(secrets.token_bytes(18)).decode()
    first = f"n={user.replace('=', '=3D').replace(',', '=2C')},r={nonce}"
    hello = {
        "protocol_version": _PROTOCOL,
        "authentication_method": "SCRAM-SHA-256",
        "authentication": f"n,,{first}",
    }
    version = _decoded(await exchange(_VERSION + _encoded(hello)))
    lowest, highest = version.get("min_protocol_version"), version.get("max_protocol_version")
    if not (
        isinstance(lowest, int) and isinstance(highest, int) and lowest <= _PROTOCOL <= highest
    ):
        raise MalformedGreeting("it speaks another version of the protocol")
    challenge = _text(_decoded(await exchange(b"")), "authentication")
    fields = _fields(challenge)
    their_nonce = fields.get("r", "")
    if not their_nonce.startswith(nonce) or their_nonce == nonce:
        raise MalformedGreeting("it does not repeat our nonce")
    key = await _salted(password, _bytes(fields, "s"), _iterations(fields))
    final = f"c=biws,r={their_nonce}"
    signed = f"{first},{challenge},{final}".encode()
    client_key = _hmac(key, b"Client Key")
    signature = _hmac(hashlib.sha256(client_key).digest(), signed)
    proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
    answer = {"authentication": f"{final},p={base64.b64encode(proof).decode()}"}
    verdict = _fields(_text(_decoded(await exchange(_encoded(answer))), "authentication"))
    if not hmac.compare_digest(_bytes(verdict, "v"), _hmac(_hmac(key, b"Server Key"), signed)):
        raise MalformedGreeting("it does not prove that it knows the password")


def _encoded(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\0"


def _decoded(answer: bytes) -> dict[str, Any]:
    try:
        message = json.loads(answer)
    except (ValueError, RecursionError):
        raise MalformedGreeting("it does not answer in JSON") from None
    if not isinstance(message, dict):
        raise MalformedGreeting("it does not answer with an object")
    if message.get("success") is True:
        return message
    code = message.get("error_code")
    if isinstance(code, int) and code in _WRONG_CREDENTIALS:
        raise LoginRefused
    raise MalformedGreeting("it reports an error")


def _text(message: dict[str, Any], name: str) -> str:
    text = message.get(name)
    if not isinstance(text, str) or not text.isascii():
        raise MalformedGreeting(f"its answer has no {name}")
    return text


def _fields(text: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in text.split(","))
    return {name: value for name, _, value in pairs}


def _bytes(fields: dict[str, str], name: str) -> bytes:
    try:
        value = base64.b64decode(fields.get(name, ""), validate=True)
    except ValueError:
        value = b""
    if not value:
        raise MalformedGreeting(f"its field {name} is missing or not in Base64")
    return value


def _iterations(fields: dict[str, str]) -> int:
    text = fields.get("i", "")
    count = int(text) if text.isdigit() and len(text) < 12 else 0
    if not 0 < count <= MAX_ITERATIONS:
        shown = f"{count:,}" if count else "an invalid number of"
        raise MalformedGreeting(
            f"it asks for {shown} iterations of the password's hash, of at most {MAX_ITERATIONS:,}"
        )
    return count


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


async def _salted(password: str, salt: bytes, iterations: int) -> bytes:
    def derive() -> bytes:
        return hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)

    if iterations <= MAX_ITERATIONS_ON_LOOP:
        return derive()
    loop = asyncio.get_running_loop()
    result: asyncio.Future[bytes] = loop.create_future()

    def hand_over(key: bytes) -> None:
        if not result.done():  # nobody waits any more: the attempt to connect was given up
            result.set_result(key)

    def work() -> None:
        key = derive()
        if not loop.is_closed():
            loop.call_soon_threadsafe(hand_over, key)

    start_thread_soon(work, "coord rethinkdb password")
    return await result
