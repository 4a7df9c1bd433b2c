"""Chaos: real workers that stand for one role, really killed, stopped and cut off, and a judge of
what they did.

`python -m tests.chaos --store STAGE --seconds N` runs for as long as one likes (stages.py);
`test_chaos.py` runs it briefly, and shows that the judge is not blind.

worker.py    a candidate: coord's public API, and writes under its term to a fenced and an unfenced
resource resource.py  the two resources, in a process of their own that keeps a journal of what it
accepted, in order document.py  a second fenced resource, where the store is RethinkDB: a document
there recorder.py  what a worker knows, as a history for `coord.testing.history`, in a file that
outlives kill -9 proxy.py     the network between a worker and a RethinkDB server: blackholes,
stalls, delays, resets links.py     the network among the nodes of a cluster, which can lose one of
them clocks.py    servers whose wall clocks are off and jump (shift_clock.c is preloaded into them)
stage.py     a store that the workers share, and what can be done to it: SQLite's file servers.py   what all
stages with servers have in common nodes.py the same where there are RethinkDB servers, one or three
backends.py  PostgreSQL, Redis and etcd namespaces.py  network namespaces stages.py    all of them by name scene.py
what faults are injected into, and what is known of one orders.py    what is asked of the leader: to
step down, to hand over to one candidate faults.py    the kinds of fault, and how each is injected
and healed crew.py      the workers as processes: started, killed, started again; who leads
lifeline.py  no process outlives its run run.py       one run from start to end figures.py   what
came of it, in numbers report.py    the numbers for people"""
