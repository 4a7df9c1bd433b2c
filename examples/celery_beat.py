"""Celery beat on every machine: one beat leads and sends the tasks, and the others wait.

Needs: pip install 'coord[celery]' 'celery[redis]', and a broker, which the variable BROKER names
Run it on each machine, in this directory:

    celery -A celery_beat beat --scheduler coord.integrations.celery:LeaderScheduler

Kill the leading beat with `kill -9`: another one takes over within the ttl, and it knows which runs
were sent. The variable COORD_URL names the store of the role.
"""

import os
from typing import Any

from celery import Celery

app = Celery("celery_beat", broker=os.environ.get("BROKER", "redis://localhost:6379/0"))
app.conf.update(
    beat_schedule={"report": {"task": "celery_beat.report", "schedule": 0.3}},
    coord_beat_role="reports",
    coord_beat_ttl=5,
)


@app.task(bind=True)  # type: ignore[untyped-decorator] # Celery has no types
def report(self: Any) -> None:
    print(f"sent by the beat with token {self.request.coord_token}")
