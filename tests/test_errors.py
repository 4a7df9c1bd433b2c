"""Every exception of coord can be pickled and copied: it passes from a worker process to its pool with
its class, message and attributes."""

from __future__ import annotations

import ast
import copy
import inspect
import multiprocessing
import pickle
import threading
from pathlib import Path

import pytest

from coord import errors
from coord.core.lease import LossReason

ROOT = Path(errors.__file__).parent
EXAMPLES = [
    errors.CoordError("cannot do it"),
    errors.CoordinatorClosed("cannot do it: it is closed"),
    errors.BadArgument("ttl", 0, "must be more"),
    errors.StoreUnavailable("no answer"),
    errors.StoreRefused("no"),
    errors.NotSetUp("run coord init"),
    errors.AccessDenied("wrong password"),
    errors.NotLeader("job"),
    errors.NotLeader("job", "why"),
    errors.LeadershipLost("job", 3, LossReason.EXPIRED),
    errors.AcquireTimeout("job", 2.0, "why"),
    errors.TooManyRoles("report-7", 10_000),
    errors.SlotsDiffer("job", 3, 4),
    errors.SharesDiffer("group", "4 shards", "5 shards"),
    errors.OutcomeUnknown("no answer"),
    errors.TickTooOld("job", 3, "it is late"),
    errors.TickUnfinished("job", "2026-11-30T02:00:00Z", 7, 1.5),
    errors.StaleToken("the printer", 3),
    errors.StaleToken("the printer", 3, 7),
]


def same(first: BaseException, other: BaseException) -> bool:
    return (
        type(first) is type(other)
        and str(first) == str(other)
        and first.args == other.args
        and vars(first) == vars(other)
    )


def test_the_examples_contain_every_exception() -> None:
    classes = {
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, BaseException)
    }
    assert classes == {type(example) for example in EXAMPLES}


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_exception_survives_pickle_and_copy(error: errors.CoordError, protocol: int) -> None:
    assert same(pickle.loads(pickle.dumps(error, protocol)), error)
    assert same(copy.copy(error), error)
    assert same(copy.deepcopy(error), error)


def test_a_value_that_cannot_be_pickled_is_replaced_by_its_text() -> None:
    lock = threading.Lock()
    error = errors.BadArgument("status", lock, "must be a dict")
    again = pickle.loads(pickle.dumps(error))
    assert (again.argument, again.value, again.allowed) == ("status", repr(lock), "must be a dict")
    assert str(again) == str(error)
    assert error.value is lock


def test_an_exception_of_a_user_with_arguments_of_its_own_survives_too() -> None:
    again = pickle.loads(pickle.dumps(Special("a", 2)))
    assert same(again, Special("a", 2))


class Special(errors.NotLeader):
    def __init__(self, first: str, second: int) -> None:
        super().__init__(first)
        self.second = second


def raise_example(number: int) -> None:
    raise EXAMPLES[number]


def test_a_pool_passes_every_exception_on() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        for number, error in enumerate(EXAMPLES):
            with pytest.raises(type(error)) as caught:
                pool.apply_async(raise_example, (number,)).get(60)
            assert str(caught.value) == str(error)


def texts_of_bad_arguments() -> list[tuple[str, str]]:
    """The place and the begin of each text of a `BadArgument` that is written where it is raised."""
    texts = []
    for path in sorted(ROOT.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or len(node.args) < 3:
                continue
            if getattr(node.func, "id", getattr(node.func, "attr", "")) == "BadArgument":
                text = node.args[2]
                if isinstance(text, ast.JoinedStr):
                    text = text.values[0]
                if isinstance(text, ast.Constant):
                    place = f"{path.relative_to(ROOT)}:{node.lineno}"
                    texts.append((place, str(text.value)))
    return texts


def test_an_invalid_argument_is_told_what_it_must_be() -> None:
    texts = texts_of_bad_arguments()
    assert len(texts) > 20
    # The text about a URL may name the part that is invalid.
    wrong = [f"{place}: {text}" for place, text in texts if not text.startswith("must ")]
    assert [item for item in wrong if "/url.py:" not in item] == []
