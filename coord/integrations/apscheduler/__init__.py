"""APScheduler 3 on the leader only: schedulers that run their jobs under a term."""

try:
    from apscheduler.schedulers.base import BaseScheduler as _BaseScheduler  # noqa: F401
except ImportError as err:
    raise ImportError(
        "cannot use coord.integrations.apscheduler: APScheduler 3 is not installed; "
        "run: pip install 'coord[apscheduler]'"
    ) from err

from coord.integrations.apscheduler.schedulers import (
    LeaderAsyncIOScheduler as LeaderAsyncIOScheduler,
)
from coord.integrations.apscheduler.schedulers import (
    LeaderBackgroundScheduler as LeaderBackgroundScheduler,
)
from coord.integrations.apscheduler.schedulers import (
    LeaderBlockingScheduler as LeaderBlockingScheduler,
)
from coord.integrations.apscheduler.schedulers import LeaderScheduler as LeaderScheduler
from coord.integrations.apscheduler.schedulers import lead_scheduler as lead_scheduler
