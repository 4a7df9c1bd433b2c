"""Asking first, before something is changed, and who it is that changes it."""

from __future__ import annotations

import getpass
import os
import sys

import click

from coord.cli import exit_codes


def obtain(question: str, *, yes: bool) -> None:
    """Go on only after a yes, on the terminal or through a pipe; `yes` has said so already. Exits with 1 after a no."""
    if yes:
        return
    try:
        agreed = click.confirm(question, err=True)
    except click.Abort:
        if sys.stdin.isatty():
            raise  # Ctrl-C
        click.echo(err=True)
        raise click.UsageError("this asks first, and nobody answers: give --yes") from None
    if not agreed:
        click.echo("nothing was done", err=True)
        sys.exit(exit_codes.FAILED)


def asker() -> str:
    """Who runs this: `user@host`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # nobody in the list of users
        user = f"uid {os.getuid()}"
    return f"{user}@{os.uname().nodename}".encode()[:200].decode(errors="ignore")
