"""Chaos: real workers that are candidates for one role, and that do what the other features of coord
are for; really killed, stopped and cut off; and a judge of what they did.

`python -m tests.chaos --store STAGE --seconds N --features NAMES` runs for as long as one likes
(stages.py); `test_chaos.py` and `test_features.py` run it briefly, and show that the judge is not
blind.

| module | what it has |
| --- | --- |
| worker.py | a candidate: coord's public API, and writes under its term to the resources |
| jobs.py | what workers do for each feature |
| resource.py | the resources, in a process of their own with a journal in the order of the writes |
| document.py | a second fenced resource, where the store is RethinkDB: a document there |
| recorder.py | what a process knows, as a history in a file that outlives kill -9 |
| proxy.py | the network between a worker and a server: blackholes, stalls, delays, resets |
| links.py | the network among the nodes of a cluster, which can lose one of them |
| namespaces.py | the same with network namespaces |
| clocks.py | servers whose wall clocks are off and jump (shift_clock.c is preloaded into them) |
| stage.py | a store that the workers share, and what can be done to it: SQLite's file |
| servers.py | what all stages with servers have in common |
| nodes.py | the stages with RethinkDB servers, one or three |
| backends.py | those with PostgreSQL, Redis and etcd |
| stages.py | all of them by name |
| scene.py | what faults are injected into, and what is known of one |
| orders.py | what operators do: requests to the leader, evictions, pauses, retired roles |
| faults.py | the kinds of fault, and how each is injected and healed |
| crew.py | the workers as processes: started, killed, started again; who leads |
| processes.py | a process of a run: a fork of one that has imported its code |
| lifeline.py | no process outlives its run |
| run.py | one run from start to end |
| judges.py | what the features must keep beside what `coord.testing.history` judges |
| figures.py | what came of a run, in numbers |
| report.py | the numbers for people |
"""
