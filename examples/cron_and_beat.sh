#!/bin/sh
# One cron line on every machine, and the job runs on one of them; Celery's beat, of which there must be one.
#
# Run it: COORD_URL=rethinkdb://db1/coord examples/cron_and_beat.sh        (in one go, or take a line of it)
#
# As a line of crontab, the same on each machine:
#
#   0 3 * * *  COORD_URL=rethinkdb://db1/coord  coord once nightly --every 1d --offset 3h -- nightly
#
# The first machine runs the job for the 03:00 UTC that is nearest to now, and the others exit with 0. A machine whose
# clock is wrong by minutes, or that starts late, does not run it again. If the job fails, the next call runs it again.
#
# Celery's beat sends each task once per beat process, so it must run once. Start this on each machine, under systemd
# or another that restarts it; the standbys wait:
#
#   coord run celery-beat -- celery -A tasks beat --schedule /var/lib/tasks/beat
#
# When a machine dies, the next one's beat starts within the ttl; a partitioned one's is ended before that.

NIGHTLY=${NIGHTLY:-"echo nightly, token \$COORD_TOKEN"}
exec coord once nightly --every 1d --offset 3h -- sh -c "$NIGHTLY"
