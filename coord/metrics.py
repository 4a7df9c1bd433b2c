"""Prometheus metrics of the elections in this process, through the official client:
`coord.metrics.enable()`.

They need the extra `coord[prometheus]`. Before that call nothing is imported or counted.

| metric | type | labels | |
| --- | --- | --- | --- |
| `coord_is_leader` | gauge | role | 1 if this process leads, by the clock at the scrape; else 0 |
| `coord_fencing_token` | gauge | role | the token of the last term that this process held |
| `coord_elections_total` | counter | role | terms that began |
| `coord_losses_total` | counter | role, reason | terms that ended, by `coord.LossReason` |
| `coord_renewal_seconds` | histogram | | time from sending a renewal until its answer |
| `coord_renewal_left_seconds` | histogram | | time that was left of the term at that answer |

The histograms have no label for the role, because ten thousand roles would result in a quarter of a
million time series.
"""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING

from coord.core.lease import LossReason
from coord.election import lifecycle
from coord.election.term import Term
from coord.errors import CoordError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

LATENCIES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
SECONDS_LEFT = (0.1, 0.25, 0.5, 1, 2, 5, 10, 15, 20, 30, 60, 120)


class PrometheusObserver:
    """The metrics in one registry. The elections call its methods."""

    def __init__(self, registry: CollectorRegistry) -> None:
        from prometheus_client import Counter, Gauge, Histogram

        self.registry = registry
        role = ["role"]
        self._leads = Gauge(
            "coord_is_leader",
            "Whether this process leads the role",
            role,
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._token = Gauge(
            "coord_fencing_token",
            "Token of the last term that this process held",
            role,
            registry=registry,
            multiprocess_mode="max",
        )
        self._elections = Counter("coord_elections", "Terms that began", role, registry=registry)
        self._losses = Counter(
            "coord_losses", "Terms that ended", ["role", "reason"], registry=registry
        )
        self._latency = Histogram(
            "coord_renewal_seconds",
            "Time from sending a renewal until its answer",
            buckets=LATENCIES,
            registry=registry,
        )
        self._left = Histogram(
            "coord_renewal_left_seconds",
            "Time left of the term when a renewal was answered",
            buckets=SECONDS_LEFT,
            registry=registry,
        )
        self._terms: weakref.WeakValueDictionary[str, Term] = weakref.WeakValueDictionary()

    def elected(self, term: Term) -> None:
        self._elections.labels(term.role).inc()
        self._show(term)

    def lost(self, term: Term, reason: LossReason) -> None:
        self._losses.labels(term.role, str(reason)).inc()
        if self._terms.get(term.role) in (term, None):
            self._leads.labels(term.role).set(0)

    def renewed(self, term: Term, latency: float, remaining: float) -> None:
        self._latency.observe(latency)
        self._left.observe(remaining)
        if self._terms.get(term.role) is not term:
            self._show(term)  # the term began before the metrics were enabled

    def _show(self, term: Term) -> None:
        gauge = self._leads.labels(term.role)
        self._token.labels(term.role).set(term.token)
        self._terms[term.role] = term
        gauge.set(1)
        # The client keeps the metrics of many processes in files, which contain numbers only.
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            terms, role = self._terms, term.role
            gauge.set_function(lambda: float((held := terms.get(role)) is not None and held.held))

    def withdraw(self) -> None:
        """Unregister the metrics."""
        for metric in (
            self._leads,
            self._token,
            self._elections,
            self._losses,
            self._latency,
            self._left,
        ):
            self.registry.unregister(metric)


def enable(registry: CollectorRegistry | None = None) -> None:
    """Count from now on. A second call for the same registry does nothing.

    There is one registry at a time: a call for another one unregisters the metrics from the first.

    Args:
        registry: The registry of the metrics. None means the default one of the client.

    Raises:
        CoordError: The Prometheus client is not installed.
    """
    try:
        import prometheus_client
    except ImportError:
        raise CoordError(
            "cannot count: the Prometheus client is missing. pip install 'coord[prometheus]'"
        ) from None
    registry = prometheus_client.REGISTRY if registry is None else registry
    present = lifecycle.observer
    if isinstance(present, PrometheusObserver) and present.registry is registry:
        return
    disable()
    lifecycle.observer = PrometheusObserver(registry)


def registry() -> CollectorRegistry | None:
    """Return the registry that is counted in; None while metrics are not enabled."""
    present = lifecycle.observer
    return present.registry if isinstance(present, PrometheusObserver) else None


def disable() -> None:
    """Stop counting, and unregister the metrics."""
    present, lifecycle.observer = lifecycle.observer, None
    if isinstance(present, PrometheusObserver):
        present.withdraw()
