"""Each sync class has the public names, the parameters and the docstrings of its async
counterpart."""

from __future__ import annotations

import inspect
import pydoc
from typing import Any

import pytest

import coord

PAIRS = [
    (coord.Coordinator, coord.AsyncCoordinator),
    (coord.Leadership, coord.AsyncLeadership),
    (coord.ServiceRegistry, coord.AsyncServiceRegistry),
    (coord.Shares, coord.AsyncShares),
    (coord.Slots, coord.AsyncSlots),
]
OWN_DOCSTRING = {
    "__init__",
    "leadership",
    "close",
    "run",
    "services",
    "share",
    "slots",
    "store",
    "session",
}
"""Members whose docstrings differ on purpose: they name the class, or the thread."""
SYNC_ONLY = {
    "abandon", "after_fork", "close_quickly", "coordinator", "host", "inner", "on_close", "portal",
    "forget_shared", "begin_shared_call", "end_shared_call", "shared_leadership",
}  # fmt: skip
ASYNC_ONLY = {"after_fork", "begin", "announcements", "elector", "first_outcome", "stop_soon"}


INTERNAL = ("coordinator", "dispatcher", "owner", "run_work")
"""Parameters that only coord passes."""


def members(kind: type) -> dict[str, Any]:
    return {
        name: inspect.getattr_static(kind, name) for name in dir(kind) if not name.startswith("_")
    }


def parameters(function: Any) -> list[tuple[str, object, object, object]]:
    return [
        (p.name, p.kind, p.default, p.annotation)
        for p in inspect.signature(function).parameters.values()
        if p.name != "self"
    ]


@pytest.mark.parametrize(("sync", "of"), PAIRS)
def test_the_same_names(sync: type, of: type) -> None:
    callable_names = {name for name, member in members(of).items() if callable(member)}
    assert callable_names - members(sync).keys() <= ASYNC_ONLY
    extra = {name for name, member in members(sync).items() if callable(member)} - callable_names
    assert extra <= SYNC_ONLY


@pytest.mark.parametrize(("sync", "of"), PAIRS)
def test_the_same_parameters_and_docstrings(sync: type, of: type) -> None:
    compared = 0
    for name, member in members(sync).items():
        twin = members(of).get(name)
        if twin is None or not callable(member) or not callable(twin):
            continue
        compared += 1
        assert parameters(member) == parameters(twin), name
        assert not inspect.iscoroutinefunction(member), name
        assert member.__doc__, name
        if name not in OWN_DOCSTRING:
            assert member.__doc__ == twin.__doc__, name
    assert compared >= 4


def test_the_same_settings_everywhere() -> None:
    def settings(function: Any) -> list[tuple[str, object, object, object]]:
        return [parameter for parameter in parameters(function) if parameter[0] not in INTERNAL]

    expected = settings(coord.AsyncLeadership.__init__)
    assert ("ttl", inspect.Parameter.KEYWORD_ONLY, 30.0, "float") in expected
    for function in (
        coord.Leadership.__init__,
        coord.Coordinator.leadership,
        coord.AsyncCoordinator.leadership,
    ):
        assert settings(function) == expected, function


def test_help_shows_them_on_class_and_instance() -> None:
    with coord.Coordinator("memory://") as c:
        lead = c.leadership("r")
        for owner in (coord.Leadership, lead):
            text = pydoc.plain(pydoc.render_doc(owner.wait))
            assert "wait(" in text
            assert "timeout: 'float | None' = None" in text
            assert "Wait until this candidate leads" in text
        assert "self" not in inspect.signature(lead.wait).parameters
        assert "ttl: 'float' = 30.0" in pydoc.plain(pydoc.render_doc(c.leadership))
        assert "Iterator" in str(inspect.signature(c.watch_leader))
        assert "AsyncIterator" not in str(inspect.signature(c.watch_leader))


def test_bad_arguments_are_refused_by_the_call_itself() -> None:
    with coord.Coordinator("memory://") as c, pytest.raises(coord.BadArgument):
        c.watch_leader("")  # not by the first step of the iterator


@pytest.mark.parametrize(
    ("setting", "function"),
    [
        ("on_elected", lambda: None),
        ("on_lost", lambda term: None),
        ("on_new_leader", lambda item, two: None),
        ("on_info", lambda: None),
        ("on_lost", 7),
    ],
)
def test_callbacks_that_cannot_be_called_are_refused(setting: str, function: Any) -> None:
    with coord.Coordinator("memory://") as c:
        with pytest.raises(coord.BadArgument, match=setting):
            c.leadership("r", **{setting: function})
        with pytest.raises(coord.BadArgument, match=setting):
            getattr(c.leadership("r"), setting)(function)


LOOKUPS = {
    "candidates",
    "check",
    "history",
    "leader",
    "leaders",
    "notes",
    "once_done",
    "watch_leader",
    "watch_leaders",
}
REQUESTS = {"evict", "pause", "request_step_down", "request_transfer", "resume", "retire"}
UNIQUE = {"release", "releasing", "unique_service"}
COORDINATOR = {"close", "leadership", "once", "services", "share", "slots", "store", "url"} | UNIQUE
LEADING = {"acquire", "release", "run", "start", "step_down", "stop", "transfer", "update", "wait"}
LEADERSHIP = {"candidate", "held", "info", "is_leader", "role", "started", "term", "timing"}
DECORATORS = {"on_elected", "on_info", "on_lost", "on_new_leader"}


def test_dir_of_an_instance_lists_what_is_public() -> None:
    with coord.Coordinator("memory://") as c:
        expected = COORDINATOR | LOOKUPS | REQUESTS
        for coordinator, more in ((c, set()), (c.inner, {"announcements"})):
            names = {name for name in dir(coordinator) if not name.startswith("__")}
            assert names == expected | more
        leadership = c.leadership("r")
        for candidate in (leadership, leadership.inner):
            names = {name for name in dir(candidate) if not name.startswith("__")}
            assert names == LEADING | LEADERSHIP | DECORATORS
            assert all(hasattr(candidate, name) for name in names - {"term"})
