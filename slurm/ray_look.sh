#!/usr/bin/env bash
# One node's look at itself: ray_up.sh runs this in a step over all nodes, as `ray_look.sh STOP COMMAND ...`. A notice to the
# steps (scancel --signal=USR1) is written down in STOP, where the batch shell reads it, and the command does not die of it.
set -u
stop=$1; shift
trap '{ : >"$stop"; } 2>/dev/null' USR1
(trap '' USR1; exec "$@") &
look=$!
wait "$look"
code=$?
while kill -0 "$look" 2>/dev/null; do wait "$look"; code=$?; done # a trap ends `wait` early
exit "$code"
