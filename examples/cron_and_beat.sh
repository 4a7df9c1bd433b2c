#!/bin/sh
# One cron line on every machine, and the job runs on one of them; Celery's beat, of which there must be one.
#
# Run it: COORD_URL=rethinkdb://db1/coord examples/cron_and_beat.sh        (in one go, or take a line of it)
#
# As a line of crontab, the same on each machine:
#
#   0 3 * * *  COORD_URL=rethinkdb://db1/coord  coord run --no-wait --at-least 50 nightly -- nightly
#
# The first machine gets the role, and the others exit with 75 at once. With --at-least 50 nobody else gets the role for
# 50 s, until the minute has begun by all clocks. A short job would end, and a machine that is 2 s behind would run it again.
#
# Celery's beat sends each task once per beat process, so it must run once. Start this on each machine, under systemd
# or another that restarts it; the standbys wait:
#
#   coord run celery-beat -- celery -A tasks beat --schedule /var/lib/tasks/beat
#
# When a machine dies, the next one's beat starts within the ttl; a partitioned one's is ended before that.

NIGHTLY=${NIGHTLY:-"echo nightly, token \$COORD_TOKEN"}
HOLD=${HOLD:-50}
coord run --no-wait --at-least "$HOLD" nightly -- sh -c "$NIGHTLY"
status=$?
[ $status -eq 75 ] && echo "another machine does it" && exit 0
exit $status
