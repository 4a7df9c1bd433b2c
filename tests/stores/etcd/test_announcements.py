"""What holds for the announcements of every store, on etcd."""

from __future__ import annotations

from tests.stores.test_announcements import *  # noqa: F403 # collected with the url of this folder

# A post on etcd takes several requests: an etcd lease, the keys, and the count.
del test_one_query_each  # noqa: F821 # imported above
