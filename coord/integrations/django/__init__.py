"""Django: `manage.py run_as_leader` and a system check.

Add `"coord.integrations.django"` to `INSTALLED_APPS`. The setting `COORD_URL` names the store;
without it, the environment variable of the same name does.
"""

from __future__ import annotations
