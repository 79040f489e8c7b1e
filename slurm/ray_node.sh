#!/usr/bin/env bash
# Ray on one node of a Slurm job: ray_up.sh runs this in a step of each node. It holds Ray until its standard input ends,
# which it does when the batch shell closes it or vanishes; then it ends its own Ray and removes its own files.
set -u
kind=$1 base=$2 ip=$3 cpus=$4 gpus=$5 store=$6 tmp=$7 keep=$8 stop=$9; shift 9 # the rest is how Python is run

end() { # CODE: end our Ray, keep its logs where it failed, leave nothing in the temporary folder
  trap '' TERM USR1
  [ -z "${watch:-}" ] || kill -TERM "$watch" 2>/dev/null
  if [ -n "${ray:-}" ]; then
    kill -TERM "$ray" 2>/dev/null
    for _ in $(seq 60); do kill -0 "$ray" 2>/dev/null || break; sleep 0.25; done
    kill -KILL "$ray" 2>/dev/null
  fi
  [ "$1" = 0 ] || tar -C "$tmp" -czf "$keep" --exclude='*.sock' --exclude='sockets' --exclude='session_latest' . 2>/dev/null
  rm -rf "$tmp"
  exit "$1"
}
trap 'end 0' TERM
# scancel --signal=USR1 reaches every process of a step: this shell tells the batch shell, and Ray must not die of it.
trap '{ : >"$stop"; } 2>/dev/null' USR1

rm -rf "$tmp" && (umask 077 && mkdir -p "$tmp") || { echo "cannot make $tmp"; exit 5; }
mapfile -t options < <(trap '' USR1; exec "$@" -m ecellm.cluster.ports "$kind" "$base" "${ECELLM_DASHBOARD:-}")
[ ${#options[@]} -gt 0 ] || { echo "no options for ray start"; end 5; }
if [ "$kind" = worker ]; then
  options+=("--address=$RAY_ADDRESS")
  for ((i = 0; i < 1200; i++)); do (exec 3<>"/dev/tcp/${RAY_ADDRESS%:*}/${RAY_ADDRESS##*:}") 2>/dev/null && break; sleep 0.25; done
fi
[ -z "${ECELLM_LABELS:-}" ] || options+=("--labels=$ECELLM_LABELS")
(
  trap '' USR1
  exec "$@" -m ray.scripts.scripts start --block --disable-usage-stats --node-ip-address="$ip" --num-cpus="$cpus" \
    --num-gpus="$gpus" --object-store-memory="$store" --temp-dir="$tmp" "${options[@]}" </dev/null
) &
ray=$!
if [ -n "${ECELLM_WATCH:-}" ]; then # on spot machines: the cloud's notice drains this node
  (trap - TERM; trap '' USR1; exec "$@" -m ecellm.cli cluster watch --cloud "$ECELLM_WATCH" </dev/null) &
  watch=$!
fi
exec 7<&0
(trap - TERM; trap '' USR1; read -r -u 7 _; kill -TERM $$) & # the life line
exec 7<&-
while kill -0 "$ray" 2>/dev/null; do sleep 0.5 & wait $!; done
wait "$ray"
echo "ray start ended by itself with code $?"
end 5
