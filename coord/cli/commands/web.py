"""`coord web` serves a page that shows all roles."""

from __future__ import annotations

import asyncio

import click

from coord.cli import exit_codes, options, output
from coord.errors import BadArgument

LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")


@click.command(
    epilog=exit_codes.help_of(
        {0: "ended by a signal", exit_codes.FAILED: "the address cannot be used"}
    )
)
@click.option(
    "--bind",
    metavar="HOST:PORT",
    default="127.0.0.1:8008",
    show_default=True,
    help="Address to listen on. An address that other machines can reach also needs --allow-host.",
)
@click.option(
    "--token-file",
    metavar="FILE",
    help="File with a token on its first line. Requests that carry the token may hand roles over. "
    "Without it the page is read-only.",
)
@click.option(
    "--allow-host",
    "allowed_hosts",
    metavar="NAME",
    multiple=True,
    help="Host name under which browsers and load balancers reach the page, such as "
    "coord.example. May be repeated.",
)
@click.option(
    "--root-path",
    metavar="PATH",
    default="",
    help="Path below which a proxy publishes the page, such as /coord, if the proxy does not "
    "remove it.",
)
@options.url
def web(
    bind: str,
    token_file: str | None,
    allowed_hosts: tuple[str, ...],
    root_path: str,
    url: str | None,
) -> None:
    """Serve a web page that shows all roles live, with JSON and probes for other programs.

    Needs: pip install 'coord[web]'. Ctrl-C ends it.
    """
    from coord.web import missing

    try:
        from coord.web import server
    except ImportError as err:
        raise missing(err) from None
    address = server.Address.parse(bind)
    for name in allowed_hosts:
        _check_host(name)
    token = None if token_file is None else server.read_token(token_file, _say)
    if not address.is_loopback:
        if not allowed_hosts:
            raise BadArgument(
                "bind", bind, "must be a loopback address, or name the page with --allow-host too"
            )
        _warn(address.host, has_token=token is not None)

    def started(page: str, store: str) -> None:
        _say(f"{page} shows {store}")

    hosts = (*LOOPBACK_HOSTS, *allowed_hosts)
    full = options.resolve_url(url)
    asyncio.run(
        server.serve(full, address, token=token, hosts=hosts, root_path=root_path, started=started)
    )


def _check_host(name: str) -> None:
    from coord.web.security import validate_hosts

    try:
        validate_hosts([name])
    except BadArgument:
        allowed = "must be a host name without a port, such as coord.example"
        raise BadArgument("--allow-host", name, allowed) from None


def _warn(host: str, *, has_token: bool) -> None:
    text = f"everybody who can reach {host} can read all roles, infos, histories and services"
    orders = "can hand roles over" if has_token else "cannot change anything, without a token"
    who = "everybody who has the token" if has_token else "they"
    _say(f"{text}; {who} {orders}; put TLS in front")


def _say(text: str) -> None:
    click.echo(f"coord web: {output.one_line(text)}", err=True)
