"""The answers to wrong inputs, as a table: each is one line that names the argument, the value and
what to do, without a traceback.

`…` in an expected answer matches any text. A row is the answer that a user gets, so a change of a
message changes its row.
"""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

import coord
import coord.integrations.apscheduler
import coord.integrations.asgi
from coord.cli import COMMANDS, main
from coord.stores import urls

# fmt: off
COMMAND_LINES: list[tuple[str, int, str]] = [
    ('leader', 2, "coord: Missing argument 'ROLE'. (see coord leader --help)"),
    ("leader ''", 2, "coord: invalid role '': must be a string of 1 to 120 bytes in UTF-8, without NUL"),
    ('leader job --url /tmp/foo.db', 2, "coord: invalid --url '/tmp/foo.db': must be a URL: …; for this file write sqlite:///tmp/foo.db"),
    ('leader job --url foo.db', 2, "coord: invalid --url 'foo.db': must be a URL: …; for this file write sqlite:foo.db"),
    ("leader job --url ''", 2, "coord: invalid --url '': must be a URL: …"),
    ('leader job --url mysql://db/x', 2, "coord: invalid --url 'mysql://db/x': must be a URL: …"),
    ('leader job --url sqlite://x/y', 2, "coord: invalid --url 'sqlite://x/y': must have three slashes or none: use sqlite:///absolute/path or sqlite:relative/path, and ?filesystem=local if necessary"),
    ('leader job --url sqlite:///', 2, "coord: invalid --url 'sqlite:///': must name a file: use sqlite:///absolute/path or sqlite:relative/path, and ?filesystem=local if necessary"),
    ('leader job --url sqlite::memory:', 2, "coord: invalid --url 'sqlite::memory:': must name a file (for a store in memory use memory://name)"),
    ('leader job --url sqlite:///a?x=1', 2, "coord: invalid --url 'sqlite:///a?…': must have %3F for ? in the path: use sqlite:///absolute/path or sqlite:relative/path, and ?filesystem=local if necessary"),
    ('leader job --url sqlite:///a#b', 2, "coord: invalid --url 'sqlite:///a#…': must have %23 for # in the path: use sqlite:///absolute/path or sqlite:relative/path, and ?filesystem=local if necessary"),
    ('leader job --url sqlite:///tmp/a.db?mode=ro', 2, "coord: invalid --url 'sqlite:///tmp/a.db?…': must have %3F for ? in the path: use sqlite:///absolute/path or sqlite:relative/path, and ?filesystem=local if necessary"),
    ('leader job --url rethinkdb://host:port/db', 2, "coord: invalid --url 'rethinkdb://host:***': a port must be a number from 1 to 65535"),
    ('leader job --url rethinkdb://host:99999/db', 2, "coord: invalid --url 'rethinkdb://host:99999/db': a port must be a number from 1 to 65535"),
    ('leader job --url rethinkdb://host/db?tls=maybe', 2, "coord: invalid --url 'rethinkdb://host/db?tls=maybe': tls must be 1 or 0"),
    ('leader job --url rethinkdb://host/db?nope=1', 2, "coord: invalid --url 'rethinkdb://host/db?***': an option must have a value, occur once, and be one of ca_certs, max_clock_skew, password_file, table, tls"),
    ('leader job --url postgresql://', 2, "coord: invalid --url 'postgresql://': must name a database, and must not contain %00; must have the form …"),
    ('leader job --url postgresql://host', 2, "coord: invalid --url 'postgresql://host': must name a database, and must not contain %00; must have the form …"),
    ('leader job --url postgresql://host:x/db', 2, "coord: invalid --url 'postgresql://…': must have ports from 1 to 65535"),
    ('leader job --url postgresql://host/db?sslmode=maybe', 2, "coord: invalid --url 'postgresql://host/db?…': must have an sslmode of disable, allow, prefer, require, verify-ca, verify-full"),
    ('leader job --url postgresql://host/db?application_name=x', 2, "coord: invalid --url 'postgresql://host/db?…': must give each option once, with a value; the options are max_clock_skew, password_file, schema, sslmode, sslrootcert"),
    ('leader job --url redis://', 2, "coord: invalid --url 'redis://': must have a host name, or an IPv6 address in brackets"),
    ('leader job --url redis://host/db', 2, "coord: invalid --url 'redis://host/db': must end in the number of a database; must have the form …"),
    ('leader job --url redis://host/-1', 2, "coord: invalid --url 'redis://host/-1': must end in the number of a database; must have the form …"),
    ('leader job --url redis://host/0?namespace=a*b', 2, "coord: invalid --url 'redis://host/0?…': must have a namespace of 1 to 100 letters, digits, _ . and -"),
    ('leader job --url redis://host?ca_certs=/nowhere', 2, "coord: invalid --url 'redis://host?…': must name a PEM file as ca_certs"),
    ('leader job --url redis+sentinel://h1,h2', 2, "coord: invalid --url 'redis+sentinel://h1,h2': must name the service of the sentinels, as in …/mymaster"),
    ('leader job --url redis://host:port', 2, "coord: invalid --url 'redis://…': must have ports from 1 to 65535"),
    ('leader job --url rediss://host:0', 2, "coord: invalid --url 'rediss://host:0': must have ports from 1 to 65535"),
    ('leader job --url etcd://', 2, "coord: invalid --url 'etcd://': must have a host name, or an IPv6 address in brackets"),
    ('leader job --url etcd://host/name', 2, "coord: invalid --url 'etcd://host/name': must have no path; must have the form …"),
    ('leader job --url etcd://host:2379?user=x', 2, "coord: invalid --url 'etcd://host:2379?…': must give each option once, with a value; the options are ca_certs, cert, key, max_clock_skew, namespace, password_file, tls"),
    ('leader job --url etcd://host?max_clock_skew=-1', 2, "coord: invalid --url 'etcd://host?…': must have max_clock_skew=SECONDS (0 or more) or max_clock_skew=off"),
    ('leader job --url rethinkdb://host/db?password_file=/nowhere', 2, "coord: invalid --url 'rethinkdb://host/db?password_file=/nowhere': password_file must be a text file that coord may read"),
    ('leader job --url postgresql://host/db?password_file=/nowhere', 2, "coord: invalid --url 'postgresql://host/db?…': must name a readable text file as password_file"),
    ('statu', 2, "coord: No such command 'statu'. Did you mean status? (see coord --help)"),
    ('leader a b', 2, 'coord: Got unexpected extra argument (b) (see coord leader --help)'),
    ('leader job --jsn', 2, "coord: No such option…--jsn…(see coord leader --help)"),
    ('status --all=1', 2, "coord: Option '--all' does not take a value. (see coord --help)"),
    ('run', 2, "coord: Missing argument 'ROLE'. (see coord run --help)"),
    ('run job', 2, "coord: Missing argument 'COMMAND...'. (see coord run --help)"),
    ('run job --ttl 0 -- true', 2, 'coord: invalid --ttl 0: must be between 0.1 and 2,678,400 seconds'),
    ('run job --ttl abc -- true', 2, "coord: invalid --ttl 'abc': must be a number"),
    ('run job --ttl nan -- true', 2, 'coord: invalid --ttl nan: must be between 0.1 and 2,678,400 seconds'),
    ('run job --ttl 1e9 -- true', 2, 'coord: invalid --ttl 1e9: must be between 0.1 and 2,678,400 seconds'),
    ('run job --timeout -1 -- true', 2, 'coord: invalid --timeout -1: must be between 0 and 1,000,000,000 seconds'),
    ('pause jobs/', 2, "coord: invalid role 'jobs/': must not end with '/' or '#', as the rows of groups do"),
    ('run jobs/ -- true', 2, "coord: invalid role 'jobs/': must not end with '/' or '#', as the rows of groups do"),
    ('run job --no-wait --timeout 3 -- true', 2, 'coord: --no-wait and --timeout cannot be used together (see coord run --help)'),
    ('run job --grace 40 -- true', 2, 'coord: invalid --grace 40: must be between 0 and 12 seconds for a ttl of 30 seconds'),
    ('run job --grace -1 -- true', 2, 'coord: invalid --grace -1: must be between 0 and 1,000,000,000 seconds'),
    ("run job --info '{bad' -- true", 2, "coord: invalid --info '{bad': must be KEY=VALUE or a JSON object (Expecting property name enclosed in double quotes: line 1 column 2 (char 1))"),
    ('run job --info x -- true', 2, "coord: invalid --info 'x': must be KEY=VALUE or a JSON object"),
    ("run job --info '[1]' -- true", 2, "coord: invalid --info '[1]': must be KEY=VALUE or a JSON object"),
    ('run job --info \'{"a": 1e999}\' -- true', 2, "coord: invalid --info {'host…: must be a dict with string keys that JSON can hold, of at most 16,384 bytes (Out of range float values are not JSON compliant…)"),
    ('run job --priority 5000 -- true', 2, 'coord: invalid --priority 5000: must be an int from -1000 to 1000'),
    ('run job --priority high -- true', 2, "coord: invalid --priority 'high': must be a whole number"),
    ('run job --min-tenure -1 -- true', 2, 'coord: invalid --min-tenure -1: must be between 0 and 1,000,000,000 seconds'),
    ('run job --at-least -1 -- true', 2, 'coord: invalid --at-least -1: must be between 0 and 2,678,400 seconds'),
    ('run job --at-least 1e9 -- true', 2, 'coord: invalid --at-least 1e9: must be between 0 and 2,678,400 seconds'),
    ('run job -- /no/such/program', 127, "coord run: cannot execute COMMAND '/no/such/program': there is no such program; use a path, or the name of a program on PATH"),
    ('run job -- no-such-program', 127, "coord run: cannot execute COMMAND 'no-such-program': there is no such program; use a path, or the name of a program on PATH"),
    ('run job -- /etc', 126, "coord run: cannot execute COMMAND '/etc': it is not an executable file; name a program, or run chmod +x on this one"),
    ('run job -- /etc/passwd', 126, "coord run: cannot execute COMMAND '/etc/passwd': it is not an executable file; name a program, or run chmod +x on this one"),
    ('run job --password-file /nowhere -- true', 2, "coord: invalid --password-file '/nowhere': must be left out for this store"),
    ('run job --url memory:// -- true', 2, "coord: invalid --url 'memory://': must name a store that several processes can use, and memory:// …: use sqlite:///path or postgresql://host/database"),
    ('run job --url sqlite:x.db --password-file empty -- true', 2, "coord: invalid --password-file 'empty': must be left out for this store"),
    ("run '' -- true", 2, "coord: invalid role '': must be a string of 1 to 120 bytes in UTF-8, without NUL"),
    ('run job --url rethinkdb://host/db --password-file /nowhere -- true', 2, "coord: invalid --url 'rethinkdb://host/db?password_file=/nowhere': password_file must be a text file that coord may read"),
    ('history', 2, "coord: Missing argument 'ROLE'. (see coord history --help)"),
    ("history ''", 2, "coord: invalid role '': must be a string of 1 to 120 bytes in UTF-8, without NUL"),
    ('history job --limit 0', 2, "coord: No such option…--limit…(see coord history --help)"),
    ("candidates ''", 2, "coord: invalid role '': must be a string of 1 to 120 bytes in UTF-8, without NUL"),
    ("watch ''", 2, "coord: invalid role '': must be a string of 1 to 120 bytes in UTF-8, without NUL"),
    ('watch job --nope', 2, "coord: No such option…--nope…(see coord watch --help)"),
    ("services ''", 2, "coord: invalid role '': must be a string of 1 to 120 bytes in UTF-8, without NUL"),
    ('purge --ttls 0 --yes', 2, 'coord: invalid --ttls 0: must be between 1 and 1,000,000 ttls'),
    ('purge --ttls x --yes', 2, "coord: invalid --ttls 'x': must be a number"),
    ('step-down', 2, "coord: Missing argument 'ROLE'. (see coord step-down --help)"),
    ("step-down ''", 2, "coord: invalid role '': must be a string of 1 to 120 bytes in UTF-8, without NUL"),
    ('step-down job --cooldown -1 --yes', 2, 'coord: invalid --cooldown -1: must be between 0 and 1,000,000,000 seconds'),
    ('step-down job --timeout -1 --yes', 2, 'coord: invalid --timeout -1: must be between 0 and 1,000,000,000 seconds'),
    ('step-down job --timeout x --yes', 2, "coord: invalid --timeout 'x': must be a number"),
    ('transfer job', 2, "coord: Missing option '--to'. (see coord transfer --help)"),
    ("transfer '' --to x --yes", 2, "coord: invalid role '': must be a string of 1 to 120 bytes in UTF-8, without NUL"),
    ('transfer job --to x --timeout -1 --yes', 2, 'coord: invalid --timeout -1: must be between 0 and 1,000,000,000 seconds'),
    ('init --replicas 0', 2, "coord: invalid --replicas '0': must be a whole number of at least 1"),
    ('init --replicas x', 2, "coord: invalid --replicas 'x': must be a whole number of at least 1"),
    ('init --replicas 3', 2, 'coord: invalid --replicas 3: must be left out for SQLite'),
    ('init --token-floor -1', 2, 'coord: invalid --token-floor -1: must be an int from 0 to 9007199254740991'),
    ('init --token-floor 99999999999999999999', 2, 'coord: invalid --token-floor 99999999999999999999: must be an int from 0 to 9007199254740991'),
    ('init --role job', 2, 'coord: --role needs --token-floor (see coord init --help)'),
    ("init --token-floor 1 --role ''", 2, "coord: invalid role '': must be a string of 1 to 120 bytes in UTF-8, without NUL"),
    ('init --url sqlite:text.txt', 78, 'coord: cannot use …/text.txt: it is not a SQLite file; name another file in the URL'),
    ('leader job --url sqlite:text.txt', 78, 'coord: cannot use …/text.txt: it is not a SQLite file; name another file in the URL'),
    ('leader job --url sqlite:/no/such/dir/x.db', 78, 'coord: no such database: /no/such/dir/x.db. Check the URL. The first candidate or service creates the file, and so does coord init'),
    ('leader job --url sqlite:missing.db', 78, 'coord: no such database: …/missing.db. Check the URL. The first candidate or service creates the file, and so does coord init'),
    ('doctor --url nothing', 2, "coord: invalid --url '…': must be a URL: …"),
    ('completion', 2, "coord: Missing argument '{bash|zsh|fish}'. Choose from: bash, zsh, fish (see coord completion --help)"),
    ('completion tcsh', 2, "coord: invalid SHELL 'tcsh': must be one of bash, zsh, fish"),
    ('top --json=1', 2, "coord: Option '--json' does not take a value. (see coord --help)"),
    ('once', 2, "coord: Missing argument 'JOB'. (see coord once --help)"),
    ('once job -- true', 2, 'coord: name the tick: --tick TICK, or --every DURATION (see coord once --help)'),
    ("once '' --tick 1 -- true", 2, "coord: invalid job '': must be a string of 1 to 120 bytes in UTF-8, without NUL"),
    ('once job --tick tomorrow -- true', 2, "coord: invalid --tick 'tomorrow': must be a whole number, or a time in ISO format such as 2026-11-30T02:00 (UTC if it names no offset)"),
    ('once job --tick 5 --every 1h -- true', 2, "coord: invalid --tick '5': must be a time with --every, such as 2026-11-30T02:00"),
    ('once job --tick 5 --within 1h -- true', 2, "coord: invalid --within '1h': must be left out if the tick is a number"),
    ('once job --every hourly -- true', 2, "coord: invalid --every 'hourly': must be a duration: a number of seconds, or with a unit: 90, 15m, 1h, 1d"),
    ('once job --tick 5 --ttl 0 -- true', 2, 'coord: invalid --ttl 0: must be between 0.1 and 2,678,400 seconds'),
    ('once job --tick 5 -- no-such-program', 127, "coord once: cannot execute COMMAND 'no-such-program': there is no such program; use a path, or the name of a program on PATH"),
    ('notes', 2, "coord: Missing argument 'ROLE'. (see coord notes --help)"),
    ("notes ''", 2, "coord: invalid role '': must be a string of 1 to 120 bytes in UTF-8, without NUL"),
    ('evict', 2, "coord: Missing argument 'ROLE'. (see coord evict --help)"),
    ("evict ''", 2, "coord: invalid role '': must be a string of 1 to 120 bytes in UTF-8, without NUL"),
    ("evict job --by '' --yes", 78, 'coord: no such database: …/coord/coord.db. Check the URL. The first candidate or service creates the file, and so does coord init'),
    ("pause ''", 2, "coord: invalid role '': must be a string of 1 to 120 bytes in UTF-8, without NUL"),
    ('pause job --timeout -1 --yes', 2, 'coord: invalid --timeout -1: must be between 0 and 1,000,000,000 seconds'),
    ("resume ''", 2, "coord: invalid role '': must be a string of 1 to 120 bytes in UTF-8, without NUL"),
    ('resume', 2, "coord: Missing argument 'ROLE'. (see coord resume --help)"),
    ('resume job --nope', 2, "coord: No such option…--nope…(see coord resume --help)"),
    ('web --bind x', 2, "coord: invalid --bind 'x': must be HOST:PORT, such as 127.0.0.1:8008"),
    ('web --bind 127.0.0.1:99999', 2, "coord: invalid --bind '127.0.0.1:99999': must be HOST:PORT, such as 127.0.0.1:8008"),
    ('web --bind 0.0.0.0:8008', 2, "coord: invalid --bind '0.0.0.0:8008': must be a loopback address, or name the page with --allow-host too"),
    ('web --token-file /nowhere', 2, "coord: invalid --token-file '/nowhere': must be a …"),
    ('retire', 2, "coord: Missing option '--unused'. (see coord retire --help)"),
    ('retire --unused -1 --yes', 2, "coord: invalid --unused '-1': must be a number with a unit: 90d, 12h, 30min or 45s"),
    ('slots', 2, "coord: Missing argument 'ROLE'. (see coord slots --help)"),
    ("slots ''", 2, "coord: invalid role '': must be a string of 1 to 120 bytes in UTF-8, without NUL"),
    ('run job --slots 0 -- true', 2, 'coord: invalid --slots 0: must be a number from 1 to 64'),
    ("web --allow-host ''", 2, "coord: invalid --allow-host '': must be a host name without a port, such as coord.example"),
    ('web --allow-host a --allow-host b:80', 2, "coord: invalid --allow-host 'b:80': must be a host name without a port, such as coord.example"),
    ('slots job 0', 2, 'coord: invalid NUMBER 0: must be a number from 1 to 64'),
    ('share job --shards 0 -- true', 2, 'coord: invalid --shards 0: must be a whole number from 1 to 4,096'),
    ("share '' --shards 1 -- true", 2, "coord: invalid group '': must be a string of 1 to 100 bytes in UTF-8, without NUL"),
    ("retire --unused 1d --prefix '' --yes", 2, "coord: invalid --prefix '': must be a string of 1 to 120 bytes in UTF-8, without NUL"),
    ('once job --every 0 -- true', 2, "coord: invalid --every '0': must be greater than 0"),
    ('once job --every 40000d -- true', 2, "coord: invalid --every '40000d': must be at most 1,000,000,000 seconds"),
    ('once job --tick 1 --offset 40000d -- true', 2, "coord: invalid --offset '40000d': must be at most 1,000,000,000 seconds"),
    ('run job --ttl 1e12 -- true', 2, 'coord: invalid --ttl 1e12: must be between 0.1 and 2,678,400 seconds'),
    ('run 1e1 --ttl=1 --timeout=-10 -- 1e1', 2, 'coord: invalid --timeout -10: must be between 0 and 1,000,000,000 seconds'),
    ('purge --ttls 99999999999999999999', 2, 'coord: invalid --ttls 99999999999999999999: must be between 1 and 1,000,000 ttls'),
    ('web --root-path x', 2, "coord: invalid --root-path 'x': must be a plain path such as /coord"),
    ('web extra', 2, 'coord: Got unexpected extra argument (extra) (see coord web --help)'),
    ('migrate', 2, "coord: Missing option '--from'. (see coord migrate --help)"),
    ('migrate --from sqlite:a.db', 2, "coord: Missing option '--to'. (see coord migrate --help)"),
    ('migrate --from nothing --to sqlite:a.db', 2, "coord: invalid --from '…': must be a URL: …"),
    ("migrate --from sqlite:a.db --to ''", 2, "coord: invalid --to '': must be a URL: …"),
    ("migrate --from sqlite:a.db --to sqlite:b.db --role ''", 2, "coord: invalid --role '': must be a string of 1 to 120 bytes in UTF-8, without NUL"),
    ('migrate --from sqlite:a.db --to memory://', 2, "coord: invalid --to 'memory://': must not be a store in memory: it ends with its process"),
    ('migrate --from sqlite:a.db --to sqlite:a.db', 78, 'coord: no such database: …/a.db. Check the URL. The first candidate or service creates the file, and so does coord init'),
    ('migrate --to mysql://x/y', 2, "coord: Missing option '--from'. (see coord migrate --help)"),
    ('doctor --jsn', 2, "coord: No such option…--jsn…(see coord doctor --help)"),
    ('purge --ttls 1e9 --yes', 2, 'coord: invalid --ttls 1e9: must be between 1 and 1,000,000 ttls'),
    ('candidates job extra', 2, 'coord: Got unexpected extra argument (extra) (see coord candidates --help)'),
    ('watch --url etcd://host/name', 2, "coord: invalid --url 'etcd://host/name': must have no path; must have the form …"),
    ('top --url redis://', 2, "coord: invalid --url 'redis://': must have a host name, or an IPv6 address in brackets"),
    ('step-down job --nope', 2, "coord: No such option…--nope…(see coord step-down --help)"),
    ('transfer job --to', 2, "coord: Option '--to' requires an argument. (see coord --help)"),
    ('init --url postgresql://host', 2, "coord: invalid --url 'postgresql://host': must name a database, and must not contain %00; must have the form …"),
    ("init --service-table 'a b'", 2, "coord: invalid --service-table 'a b': must be 1 to 100 of the characters A-Z, a-z, 0-9, _ and -"),
    ("init --service-table '' --url rethinkdb://host/db", 2, "coord: invalid --service-table '': must be 1 to 100 of the characters A-Z, a-z, 0-9, _ and -"),
    ("init --service-table 'a/b' --url redis://127.0.0.1:1", 2, "coord: invalid --service-table 'a/b': must be 1 to 100 of the characters A-Z, a-z, 0-9, _ and -"),
    ("transfer job --to '' --yes", 2, "coord: invalid --to '': must be the id or name of a candidate, of at most 200 bytes"),
    ("step-down job --yes --by xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", 2, "coord: invalid --by 'xxx…: must be a string of at most 200 bytes; it has 201 bytes"),
    ("leader job --url memory://", 2, "coord: invalid --url 'memory://': must name a store that several processes can use, and memory:// is one process's own: use sqlite:///path or postgresql://host/database"),
    ("status --url memory://", 2, "coord: invalid --url 'memory://': must name a store that several processes can use, and memory:// is one process's own: use sqlite:///path or postgresql://host/database"),
    ("candidates --url memory://", 2, "coord: invalid --url 'memory://': must name a store that several processes can use, and memory:// is one process's own: use sqlite:///path or postgresql://host/database"),
    ("history job --url memory://", 2, "coord: invalid --url 'memory://': must name a store that several processes can use, and memory:// is one process's own: use sqlite:///path or postgresql://host/database"),
    ("notes job --url memory://", 2, "coord: invalid --url 'memory://': must name a store that several processes can use, and memory:// is one process's own: use sqlite:///path or postgresql://host/database"),
    ("watch --url memory://", 2, "coord: invalid --url 'memory://': must name a store that several processes can use, and memory:// is one process's own: use sqlite:///path or postgresql://host/database"),
    ("services --url memory://", 2, "coord: invalid --url 'memory://': must name a store that several processes can use, and memory:// is one process's own: use sqlite:///path or postgresql://host/database"),
    ("slots job --url memory://", 2, "coord: invalid --url 'memory://': must name a store that several processes can use, and memory:// is one process's own: use sqlite:///path or postgresql://host/database"),
    ("purge --yes --url memory://", 2, "coord: invalid --url 'memory://': must name a store that several processes can use, and memory:// is one process's own: use sqlite:///path or postgresql://host/database"),
    ("retire --unused 1d --yes --url memory://", 2, "coord: invalid --url 'memory://': must name a store that several processes can use, and memory:// is one process's own: use sqlite:///path or postgresql://host/database"),
    ("step-down job --yes --url memory://", 2, "coord: invalid --url 'memory://': must name a store that several processes can use, and memory:// is one process's own: use sqlite:///path or postgresql://host/database"),
    ("evict job --yes --url memory://", 2, "coord: invalid --url 'memory://': must name a store that several processes can use, and memory:// is one process's own: use sqlite:///path or postgresql://host/database"),
    ("pause job --yes --url memory://", 2, "coord: invalid --url 'memory://': must name a store that several processes can use, and memory:// is one process's own: use sqlite:///path or postgresql://host/database"),
    ("resume job --url memory://", 2, "coord: invalid --url 'memory://': must name a store that several processes can use, and memory:// is one process's own: use sqlite:///path or postgresql://host/database"),
    ("init --guard --url memory://", 2, "coord: invalid --url 'memory://': must name a store that several processes can use, and memory:// is one process's own: use sqlite:///path or postgresql://host/database"),
    ("once job --tick 1 --url memory:// -- true", 2, "coord: invalid --url 'memory://': must name a store that several processes can use, and memory:// is one process's own: use sqlite:///path or postgresql://host/database"),
    ("web --url memory://", 2, "coord: invalid --url 'memory://': must name a store that several processes can use, and memory:// is one process's own: use sqlite:///path or postgresql://host/database"),
    ("share group --shards 2 --url memory:// -- true", 2, "coord: invalid --url 'memory://': must name a store that several processes can use, and memory:// is one process's own: use sqlite:///path or postgresql://host/database"),
    ('init --replicas 3 --url postgresql://host/db', 2, 'coord: invalid --replicas 3: must be omitted: PostgreSQL has no such option'),
]
CALLS: list[tuple[str, str]] = [
    ('coord.Coordinator("")', "invalid url '': must be a URL: …"),
    ('coord.Coordinator(b"sqlite:x")', "invalid url b'sqlite:x': must be a URL: …"),
    ('coord.Coordinator(5)', 'invalid url 5: must be a URL: …'),
    ('coord.Coordinator("db1/app")', "invalid url '…': must be a URL: …"),
    ('coord.Coordinator("memory://", timeout=0)', 'invalid timeout 0: must be greater than 0 and at most 1,000,000,000 seconds'),
    ('coord.Coordinator("memory://", timeout="5")', "invalid timeout '5': must be greater than 0 and at most 1,000,000,000 seconds"),
    ('coord.Coordinator("memory://", timeout=None)', 'invalid timeout None: must be greater than 0 and at most 1,000,000,000 seconds'),
    ('coord.Coordinator("memory://", store=5)', 'invalid store 5: must be an object with the methods of coord.stores.protocol.Store, or None'),
    ('coord.Coordinator(store=5)', 'invalid store 5: must be an object with the methods of coord.stores.protocol.Store, or None'),
    ('coord.connect("sqlite:text.txt")', 'cannot use …/text.txt: it is not a SQLite file; name another file in the URL'),
    ('coord.connect("sqlite:/proc/x.db")', "cannot use /proc/x.db: its file system (proc) is not known to be local, and SQLite's log and the lease clock need one machine. Use a local path, or RethinkDB for several machines. If the file system belongs to this machine alone, add ?filesystem=local to the URL"),
    ('c.leadership("")', "invalid role '': must be a string of 1 to 120 bytes in UTF-8, without NUL"),
    ('c.leadership(5)', 'invalid role 5: must be a string of 1 to 120 bytes in UTF-8, without NUL'),
    ('c.leadership(None)', 'invalid role None: must be a string of 1 to 120 bytes in UTF-8, without NUL'),
    ('c.leadership("a\\0b")', "invalid role 'a\\x00b': must be a string of 1 to 120 bytes in UTF-8, without NUL"),
    ('c.leadership("x"*121)', "invalid role 'xxxx…: must be a string of 1 to 120 bytes in UTF-8, without NUL; it has 121 bytes"),
    ('c.leadership("\\ud800")', "invalid role '\\ud800': must be a string of 1 to 120 bytes in UTF-8, without NUL"),
    ('c.leadership("job", ttl=0)', 'invalid ttl 0: must be between 0.1 and 2,678,400 seconds'),
    ('c.leadership("job", ttl="30")', "invalid ttl '30': must be between 0.1 and 2,678,400 seconds"),
    ('c.leadership("job", ttl=True)', 'invalid ttl True: must be between 0.1 and 2,678,400 seconds'),
    ('c.leadership("job", ttl=float("nan"))', 'invalid ttl nan: must be between 0.1 and 2,678,400 seconds'),
    ('c.leadership("job", ttl=10, renew_every=20)', 'invalid ttl 10.0: must be at least renew_every + 2 * attempt_timeout + margin: 20 + 2 * 1.66667 + 1 = 24.3333 s'),
    ('c.leadership("job", ttl=10, renew_every=-1)', 'invalid renew_every -1: must be greater than 0 and at most 1,000,000,000 seconds'),
    ('c.leadership("job", ttl=10, attempt_timeout=0)', 'invalid attempt_timeout 0: must be greater than 0 and at most 1,000,000,000 seconds'),
    ('c.leadership("job", ttl=10, attempt_timeout=60)', 'invalid ttl 10.0: must be at least renew_every + 2 * attempt_timeout + margin: 3.33333 + 2 * 60 + 1 = 124.333 s'),
    ('c.leadership("job", ttl=10, margin=10)', 'invalid ttl 10.0: must be at least renew_every + 2 * attempt_timeout + margin: 3.33333 + 2 * 1.66667 + 10 = 16.6667 s'),
    ('c.leadership("job", ttl=10, margin=-1)', 'invalid margin -1: must be between 0 and 1,000,000,000 seconds'),
    ('c.leadership("job", info=["a"])', "invalid info ['a']: must be a dict with string keys that JSON can hold, of at most 16,384 bytes"),
    ('c.leadership("job", info={1: 2})', 'invalid info {1: 2}: must be a dict with string keys that JSON can hold, of at most 16,384 bytes'),
    ('c.leadership("job", info={"a": object()})', "invalid info {'a': <object object at …>}: must be a dict with string keys that JSON can hold, of at most 16,384 bytes (Object of type object is not JSON serializable)"),
    ('c.leadership("job", info={"a": "x"*20000})', "invalid info {'a': 'xxxx…: must be a dict with string keys that JSON can hold, of at most 16,384 bytes; it has 20,009"),
    ('c.leadership("job", info={"a": float("inf")})', "invalid info {'a': inf}: must be a dict with string keys that JSON can hold, of at most 16,384 bytes (Out of range float values are not JSON compliant…)"),
    ('c.leadership("job", on_elected="start")', "invalid on_elected 'start': must be a function, plain or async, called as on_elected(term)"),
    ('c.leadership("job", on_lost=5)', 'invalid on_lost 5: must be a function, plain or async, called as on_lost(term, reason)'),
    ('c.leadership("job", on_new_leader=5)', 'invalid on_new_leader 5: must be a function, plain or async, called as on_new_leader(lease)'),
    ('c.leadership("job", drain_timeout=-1)', 'invalid drain_timeout -1: must be between 0 and 1,000,000,000 seconds'),
    ('c.leadership("job", at_most=0)', 'invalid at_most 0: must be greater than 0 and at most 1,000,000,000 seconds'),
    ('c.leadership("job", token_floor=-1)', 'invalid token_floor -1: must be an int from 0 to 9007199254740991'),
    ('c.leadership("job", priority=1.5)', 'invalid priority 1.5: must be an int from -1000 to 1000'),
    ('c.leadership("job", priority=2000)', 'invalid priority 2000: must be an int from -1000 to 1000'),
    ('c.leadership("job", min_tenure=-1)', 'invalid min_tenure -1: must be between 0 and 1,000,000,000 seconds'),
    ('c.leadership("job").acquire(timeout=-1)', 'invalid timeout -1: must be between 0 and 1,000,000,000 seconds'),
    ('c.leadership("job").acquire(timeout="x")', "invalid timeout 'x': must be between 0 and 1,000,000,000 seconds"),
    ('c.leadership("job").wait(timeout=-1)', 'invalid timeout -1: must be between 0 and 1,000,000,000 seconds'),
    ('c.leadership("job").step_down(cooldown=-1)', 'invalid cooldown -1: must be between 0 and 1,000,000,000 seconds'),
    ('c.leader("")', "invalid role '': must be a string of 1 to 120 bytes in UTF-8, without NUL"),
    ('c.leader(None)', 'invalid role None: must be a string of 1 to 120 bytes in UTF-8, without NUL'),
    ('c.candidates("")', "invalid role '': must be a string of 1 to 120 bytes in UTF-8, without NUL"),
    ('c.candidates(5)', 'invalid role 5: must be a string of 1 to 120 bytes in UTF-8, without NUL'),
    ('c.watch_leader("")', "invalid role '': must be a string of 1 to 120 bytes in UTF-8, without NUL"),
    ('c.request_step_down("")', "invalid role '': must be a string of 1 to 120 bytes in UTF-8, without NUL"),
    ('c.request_step_down("job", by=5)', 'invalid by 5: must be a string of at most 200 bytes'),
    ('c.unique_service("", {"ttl": 5})', "invalid role '': must be a string of 1 to 120 bytes in UTF-8, without NUL"),
    ('c.unique_service("job", {})', "invalid candidate {}: must be a dict with string keys and at least ttl, in seconds"),
    ('c.unique_service("job", {"ttl": 0})', "invalid candidate['ttl'] 0: must be between 0.1 and 2,678,400 seconds"),
    ('c.unique_service("job", {"ttl": "5"})', "invalid candidate['ttl'] '5': must be between 0.1 and 2,678,400 seconds"),
    ('c.unique_service("job", 5)', 'invalid candidate 5: must be a dict with string keys and at least ttl, in seconds'),
    ('c.unique_service("job", {"ttl": 5, "x": object()})', "invalid candidate {'ttl': 5, 'x': <object object at …: must be a dict with string keys that JSON can hold, of at most 16,384 bytes (Object of type object is not JSON serializable)"),
    ('c.unique_service("job", {"ttl": 5, "role": "other"})', "invalid candidate['role'] 'other': must be 'job', or absent"),
    ('c.unique_service("job", {"ttl": 5, "x": "y"*70000})', "invalid candidate {'ttl': 5, 'x': 'yyyy…: must be a dict with string keys that JSON can hold, of at most 16,384 bytes; it has 70,…"),
    ('c.release("")', "invalid role '': must be a string of 1 to 120 bytes in UTF-8, without NUL"),
    ('c.release("job", 5)', 'invalid candidate 5: must be a dict with string keys and at least ttl, in seconds'),
    ('c.releasing("").__enter__()', "invalid role '': must be a string of 1 to 120 bytes in UTF-8, without NUL"),
    ('coord.unique_service("", {"ttl": 5})', "invalid role '': must be a string of 1 to 120 bytes in UTF-8, without NUL"),
    ('coord.unique_service("job", {"ttl": -1})', "invalid candidate['ttl'] -1: must be between 0.1 and 2,678,400 seconds"),
    ('coord.release("")', "invalid role '': must be a string of 1 to 120 bytes in UTF-8, without NUL"),
    ('coord.leader_only("")', "invalid role '': must be a string of 1 to 120 bytes in UTF-8, without NUL"),
    ('coord.leader_only("job", scope="x")', 'invalid scope \'x\': must be "process" or "call"'),
    ('coord.leader_only("job", at_least=5)', 'invalid at_least 5: must be 0 with scope="process", which keeps the role between calls'),
    ('coord.leader_only("job", scope="call", at_least=-5)', 'invalid at_least -5: must be between 0 and 2,678,400 seconds'),
    ('coord.leader_only("job", ttl=0)', 'invalid ttl 0: must be between 0.1 and 2,678,400 seconds'),
    ('coord.leader_only("job")(5)', 'invalid function 5: must be a function, sync or async'),
    ('coord.leader_only(print)', 'invalid role <built-in function print>: must be a string of 1 to 120 bytes in UTF-8, without NUL'),
    ('coord.leader_only("job", otherwise="explode")', 'invalid otherwise \'explode\': must be "skip", "wait" or "raise"'),
    ('coord.leader_only("job", coordinator=5)', 'invalid coordinator 5: must be a coord.Coordinator; coroutine functions need one, too'),
    ('c.leadership("job").run(5)', 'invalid function 5: must be a function, sync or async'),
    ('coord.ServiceRegistry("nope")', "invalid url '…': must be a URL: …"),
    ('coord.ServiceRegistry("memory://", table="a b")', "invalid table 'a b': must be 1 to 100 of the characters A-Z, a-z, 0-9, _ and -"),
    ('c.services.heartbeat({})', 'invalid status_info []: must be a dict with string keys and at least role, ttl and load; role is missing'),
    ('c.services.heartbeat({"role": "web"})', "invalid status_info ['role']: must be a dict with string keys and at least role, ttl and load; ttl is missing"),
    ('c.services.heartbeat({"role": "", "ttl": 5})', "invalid status_info ['role', 'ttl']: must be a dict with string keys and at least role, ttl and load; load is missing"),
    ('c.services.heartbeat({"role": "web", "ttl": 0})', "invalid status_info ['role', 'ttl']: must be a dict with string keys and at least role, ttl and load; load is missing"),
    ('c.services.heartbeat({"role": "web", "ttl": 5, "load": "x"})', "invalid status_info['load'] 'x': must be a finite number"),
    ('c.services.heartbeat(5)', "invalid status_info 'int': must be a dict with string keys and at least role, ttl and load"),
    ('c.services.heartbeat({"role": "web", "ttl": 5, "x": object()})', "invalid status_info ['role', 'ttl', 'x']: must be a dict with string keys and at least role, ttl and load; load is missing"),
    ('c.services.healthy_services("")', "invalid role '': must be a string of 1 to 120 bytes in UTF-8, without NUL"),
    ('c.services.healthy_service(None)', 'invalid role None: must be a string of 1 to 120 bytes in UTF-8, without NUL'),
    ('c.services.purge_stale_services(0)', 'invalid ttls_until_deletion 0: must be between 1 and 1,000,000 ttls'),
    ('c.services.unregister("")', "invalid id '': must be a string of 1 to 127 bytes in UTF-8, without NUL, or an int below 2^53"),
    ('c.services.unregister(None)', 'invalid id None: must be a string of 1 to 127 bytes in UTF-8, without NUL, or an int below 2^53'),
    ('coord.Timing.of(0)', 'invalid ttl 0: must be between 0.1 and 2,678,400 seconds'),
    ('coord.Timing.of(10, renew_every=9)', 'invalid ttl 10.0: must be at least renew_every + 2 * attempt_timeout + margin: 9 + 2 * 1.66667 + 1 = 13.3333 s'),
    ('coord.fencing.Fence(5)', 'invalid name 5: must be a string of 1 to 200 bytes'),
    ('coord.fencing.Fence("")', "invalid name '': must be a string of 1 to 200 bytes"),
    ('c.once("", 1, print)', "invalid job '': must be a string of 1 to 120 bytes in UTF-8, without NUL"),
    ('c.once("j", 1.5, print)', 'invalid tick 1.5: must be an int, a datetime with a time zone, or a text in ISO format such as 2026-11-30T02:00 (UTC if it names no offset)'),
    ('c.once("j", 1, 3)', 'invalid function 3: must be a function, sync or async'),
    ('c.once("j", 1, print, keep=0)', 'invalid keep 0: must be an int from 1 to 64'),
    ('c.once("j", 1, print, within=5)', 'invalid within 5: must be left out if the tick is an int'),
    ('c.once_done("j", "soon")', "invalid tick 'soon': must be an int, a datetime with a time zone, or a text in ISO format such as 2026-11-30T02:00 (UTC if it names no offset)"),
    ('coord.tick(every=0)', 'invalid every 0: must be greater than 0 and at most 1,000,000,000 seconds'),
    ('c.notes("")', "invalid role '': must be a string of 1 to 120 bytes in UTF-8, without NUL"),
    ('c.once_done("", "t")', "invalid job '': must be a string of 1 to 120 bytes in UTF-8, without NUL"),
    ('c.share("", 4)', "invalid group '': must be a string of 1 to 100 bytes in UTF-8, without NUL"),
    ('c.share("shards", 0)', 'invalid shards 0: must be a number from 1 to 4,096, or as many different names'),
    ('c.share("shards", "4")', "invalid shards '4': must be a number from 1 to 4,096, or as many different names"),
    ('c.share("shards", 4, ttl=0)', 'invalid ttl 0: must be between 0.1 and 2,678,400 seconds'),
    ('c.pause("")', "invalid role '': must be a string of 1 to 120 bytes in UTF-8, without NUL"),
    ('c.pause("job", by=5)', 'invalid by 5: must be a string of at most 200 bytes'),
    ('c.evict("")', "invalid role '': must be a string of 1 to 120 bytes in UTF-8, without NUL"),
    ('c.evict("job", by=5)', 'invalid by 5: must be a string of at most 200 bytes'),
    ('c.resume("")', "invalid role '': must be a string of 1 to 120 bytes in UTF-8, without NUL"),
    ('c.leadership("job").update(5)', 'invalid info 5: must be a dict with string keys that JSON can hold, of at most 16,384 bytes'),
    ('c.leadership("job").update({"a": object()})', "invalid info {'a': <object object at …>}: must be a dict with string keys that JSON can hold, of at most 16,384 bytes (Object of type object is not JSON serializable)"),
    ('c.leadership("notes").run(lambda: coord.require_term().note("", 1))', "invalid key '': must be a string of 1 to 120 bytes in UTF-8, without NUL"),
    ('c.leadership("notes").run(lambda: coord.require_term().note("a", object()))', "invalid note 'a' <object object at …>: must be a value that JSON can hold (Object of type object is not JSON serializable)"),
    ('c.leadership("notes").run(lambda: coord.require_term().note("a"*200, 1))', "invalid key 'aaaa…: must be a string of 1 to 120 bytes in UTF-8, without NUL; it has 200 bytes"),
    ('c.leadership("notes").run(lambda: coord.require_term().note(5))', 'invalid note 5: must be a key and a value, or a dict of notes'),
    ('c.leadership("notes").run(lambda: coord.require_term().note("a", "x"*70000))', "invalid note {'a': 'xxxx…: must fit in 65,536 bytes of JSON with the other notes of the role, and they would have 70,008; delete old ones with a value of None"),
    ('coord.web.create_app(5)', 'invalid coordinator 5: must be a Coordinator or an AsyncCoordinator'),
    ('coord.web.create_app(c, token=5)', "invalid token '<int>': must be at least 16 visible ASCII characters without blanks"),
    ('coord.web.create_app(c, token="")', "invalid token '<0 characters>': must be at least 16 visible ASCII characters without blanks"),
    ('coord.web.create_app(c, allowed_hosts="x")', "invalid allowed_hosts 'x': must be a sequence of host names without ports, such as ('coord.example',)"),
    ('coord.web.create_app(c, allowed_hosts=())', "invalid allowed_hosts (): must be a sequence of host names without ports, such as ('coord.example',)"),
    ('coord.web.create_app(c, title=5)', 'invalid title 5: must be a string of 1 to 200 bytes'),
    ('coord.health(5)', 'invalid coordinator 5: must be a Coordinator, an AsyncCoordinator, or None'),
    ('coord.health(max_lag=-1)', 'invalid max_lag -1: must be greater than 0 and at most 1,000,000,000 seconds'),
    ('coord.fencing.token_of("x")', "invalid term 'x': must be a coord.Term, or a token: an int from 1 to 2**53"),
    ('coord.fencing.token_of(0)', 'invalid term 0: must be a coord.Term, or a token: an int from 1 to 2**53'),
    ('coord.fencing.sql_write(None, "a b", {"id": 1}, {"x": 1}, 1)', "invalid table 'a b': must be a plain name: letters, digits and _"),
    ('coord.fencing.sql_write(None, "t", {}, {"x": 1}, 1)', 'invalid key {}: must have at least one column'),
    ('coord.fencing.sql_write(None, "t", {"id": 1}, {}, 1)', 'invalid changes {}: must have at least one column'),
    ('coord.fencing.Fence("x", -1)', 'invalid newest -1: must be an int from 0 to 2**53'),
    ('coord.connect("memory://", timeout=-1)', 'invalid timeout -1: must be greater than 0 and at most 1,000,000,000 seconds'),
    ('coord.Coordinator("sqlite:///tmp/x.db?mode=ro")', "invalid url 'sqlite:///tmp/x.db?…': must have %3F for ? in the path: use sqlite:///absolute/path or sqlite:relative/path, and ?filesystem=local if necessary"),
    ('coord.Coordinator("postgresql://me:geheim@host/db?sslmode=maybe")', "invalid url 'postgresql://me:***@host/db?…': must have an sslmode of disable, allow, prefer, require, verify-ca, verify-full"),
    ('coord.Coordinator("redis://me:geheim@host/x")', "invalid url 'redis://me:***@host/x': must end in the number of a database; must have the form …"),
    ('coord.Coordinator("etcd://me:geheim@host/x")', "invalid url 'etcd://me:***@host/x': must have no path; must have the form …"),
    ('coord.Coordinator("rethinkdb://me:geheim@host:port/db")', "invalid url 'rethinkdb://me:***@host:***': a port must be a number from 1 to 65535"),
    ('c.history(5)', 'invalid role 5: must be a string of 1 to 120 bytes in UTF-8, without NUL'),
    ('c.services.heartbeat({"role": "web", "ttl": 5, "load": 1, "x": object()})', "invalid status_info['x'] <object object at …>: must be None, a bool, number, string, bytes, datetime with a time zone, list or dict"),
    ('c.services.heartbeat({"role": "", "ttl": 5, "load": 1})', "invalid status_info['role'] '': must be a string of 1 to 120 bytes in UTF-8, without NUL"),
    ('c.services.heartbeat({"role": "web", "ttl": 0, "load": 1})', "invalid status_info['ttl'] 0: must be greater than 0 and at most 1,000,000,000 seconds"),
    ('c.services.healthy_service("web", choose="worst")', 'invalid choose \'worst\': must be "least" (the lowest load) or "spread" (the better of two)'),
    ('coord.integrations.asgi.Lead("")', "invalid role '': must be a string of 1 to 120 bytes in UTF-8, without NUL"),
    ('coord.integrations.asgi.Lead("api", ttl=0)', 'invalid ttl 0: must be between 0.1 and 2,678,400 seconds'),
    ('coord.integrations.asgi.Lead("api", otherwise="x")', 'invalid otherwise \'x\': must be "refuse" or "redirect"'),
    ('coord.integrations.asgi.Lead("api", info=5)', 'invalid info 5: must be a dict with string keys that JSON can hold, of at most 16,384 bytes'),
    ('coord.integrations.asgi.Lead("api").every(0, print)', 'invalid seconds 0: must be greater than 0 and at most 1,000,000,000 seconds'),
    ('coord.integrations.asgi.Lead("api").every(60, 5)', 'invalid job 5: must be a coroutine function (async def)'),
    ('coord.integrations.apscheduler.LeaderBackgroundScheduler(role="")', "invalid role '': must be a string of 1 to 120 bytes in UTF-8, without NUL"),
    ('coord.integrations.apscheduler.LeaderBackgroundScheduler(missed="never")', 'invalid missed \'never\': must be "skip", "once" or "all"'),
    ('coord.integrations.apscheduler.LeaderBackgroundScheduler(ttl=0)', 'invalid ttl 0: must be between 0.1 and 2,678,400 seconds'),
    ('coord.integrations.apscheduler.LeaderBackgroundScheduler(look_every=0)', 'invalid look_every 0: must be greater than 0 and at most 1,000,000,000 seconds'),
    ('coord.integrations.apscheduler.lead_scheduler(5)', 'invalid scheduler 5: must be a scheduler of APScheduler 3 that is no LeaderScheduler yet'),
    ('c.unique_service("other", {})', 'invalid candidate {}: must be a dict with string keys and at least ttl, in seconds'),
    ('c.release("other", {})', 'invalid candidate {}: must be a dict with string keys and at least ttl, in seconds'),
]
# fmt: on

ENVIRONMENT = ("db1.example/app", "invalid COORD_URL '…': must be a URL: …")
PREFIXES = ("coord: ", "coord run: ", "coord once: ")


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory with a text file, an empty file, and no store."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COORD_URL", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    (tmp_path / "text.txt").write_text("no database at all\n" * 100)
    (tmp_path / "empty").write_text("")


@pytest.fixture(scope="module")
def c() -> Iterator[coord.Coordinator]:
    with coord.Coordinator("memory://error-messages") as coordinator:
        yield coordinator


def check(answer: str, expected: str) -> None:
    assert answer.isprintable(), answer
    assert "Traceback" not in answer
    pattern = ".*".join(re.escape(part) for part in expected.split("…"))
    assert re.fullmatch(pattern, answer), f"{answer}\n  is not\n{expected}"


def answer_of(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[object, str]:
    with pytest.raises(SystemExit) as caught:
        main(words)
    out, err = capsys.readouterr()
    assert out == ""
    line, end, rest = err.partition("\n")
    assert (end, rest) == ("\n", ""), err
    assert line.startswith(PREFIXES)
    return caught.value.code, line


@pytest.mark.parametrize(
    ("words", "status", "expected"), COMMAND_LINES, ids=[words for words, _, _ in COMMAND_LINES]
)
def test_a_wrong_command_line(
    words: str, status: int, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    exit_status, line = answer_of(shlex.split(words), capsys)
    assert exit_status == status
    check(line, expected)


NEEDED = {
    "run": "job -- true", "once": "job --tick 1 -- true", "share": "job -- true",
    "leader": "job", "history": "job", "step-down": "job", "transfer": "job --to x", "evict": "job",
    "pause": "job", "resume": "job", "slots": "job", "retire": "--unused 1d", "notes": "job",
    "completion": "bash", "migrate": "--from sqlite:a.db --to sqlite:b.db",
}  # fmt: skip
"""What each command needs to be called at all."""
FLOATS = ("nan", "inf", "-1e300", "1e300", "", " ", "x")
WHOLE = ("-99999999999999999999", "1.5", "inf", "", " ", "x")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_wrong_number_is_named_as_it_was_written(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever the option: its name, the value, and the rule."""
    command = importlib.import_module(COMMANDS[name][0])
    params = getattr(command, name.replace("-", "_")).params
    for param in params:
        if isinstance(param.type, click.types.FloatParamType):
            values = FLOATS
        elif isinstance(param.type, click.types.IntParamType):
            values = WHOLE
        else:
            continue
        for value in values:
            if isinstance(param, click.Option):
                shown = max(param.opts, key=len)
                before = ["--shards=2"] if name == "share" else []
                words = [name, *before, f"{shown}={value}", *shlex.split(NEEDED.get(name, ""))]
            else:
                shown = str(param.name).upper()
                words = [name, *shlex.split(NEEDED.get(name, "")), "--", value]
            status, line = answer_of(words, capsys)
            as_written = rf"('{re.escape(value)}'|{re.escape(value)})"
            assert status == 2, words
            assert re.fullmatch(rf"coord: invalid {shown} {as_written}: must be .*", line), line


@pytest.mark.parametrize(("call", "expected"), CALLS, ids=[call for call, _ in CALLS])
def test_a_wrong_call(call: str, expected: str, c: coord.Coordinator) -> None:
    names: dict[str, Any] = {"coord": coord, "c": c}
    with pytest.raises(coord.CoordError) as caught:
        eval(call, names)
    check(str(caught.value), expected)


@pytest.mark.parametrize("word", ["job", "a b", "it's", '"$(x)`', "-x", "é", "a\n\x1b'\\", "*"])
def test_a_command_in_a_message_can_be_copied(word: str) -> None:
    text = coord.errors.command("resume", word)
    assert text.isprintable()
    script = f'coord() {{ printf "%s\\0" "$@"; }}; {text}'
    out = subprocess.run(["bash", "-c", script], check=True, capture_output=True).stdout.decode()
    assert out.split("\0")[:-1] == ["resume", *["--"] * word.startswith("-"), word]


def test_every_command_in_a_message_is_quoted() -> None:
    """No text of the code has the name of a command, and then a value that is not quoted."""
    names = "|".join(COMMANDS)
    unquoted = re.compile(rf"coord (?:{names})(?: --?[\w-]+)*[ =]'?\{{")
    files = Path(coord.__file__).parent.rglob("*.py")
    assert [path for path in files if unquoted.search(path.read_text())] == []
    assert unquoted.search('f"run `coord resume {role}`"')
    assert unquoted.search("f\"run coord init --url '{url}'\"")


def test_a_wrong_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url, expected = ENVIRONMENT
    monkeypatch.setenv("COORD_URL", url)
    status, line = answer_of(["status"], capsys)
    assert status == 2
    check(line, f"coord: {expected}")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_names_an_option_that_it_does_not_have(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, line = answer_of([command, "--no-such-option"], capsys)
    assert status == 2
    check(line, f"coord: No such option…--no-such-option…(see coord {command} --help)")


def test_the_table_covers_every_store() -> None:
    assert len(COMMAND_LINES) + len(CALLS) > 250
    text = " ".join([*(words for words, _, _ in COMMAND_LINES), *(call for call, _ in CALLS)])
    assert {scheme for scheme in urls.BACKENDS if f"{scheme}://" not in text} <= ALIASES


ALIASES = {"postgres", "rediss+sentinel"}
"""Other names of schemes in the table."""
