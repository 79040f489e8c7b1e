# shellcheck shell=bash
# A private Ray over the nodes of one Slurm job, one stage in it, and an honest exit code. The .sbatch files source it:
#
#   source slurm/ray_up.sh && ray_up STAGE RUN.toml [RUN.toml ...] [--section.key value ...]
#
# Every failed path ends with one line "ray_up: ..." that names the cause, and with the exit code of README.md. A stop that
# was asked for (Slurm's USR1 before the time limit, scancel --signal=USR1) saves, and the job requeues itself. Nothing here
# calls `ray stop`, which would end every Ray of this user on the machine: what was started is ended by its own pid.
# Settings come from the environment: slurm/README.md has the list.
set -uo pipefail

ru_asked='' ru_driver='' ru_dir='' ru_root='' ru_names=() ru_run=() ru_restarted=0
declare -A ru_step=()     # node -> pid of the srun that holds its Ray
trap 'ru_notice USR1' USR1
trap 'ru_notice TERM' TERM INT

ru_say() { printf 'ray_up: %s\n' "$*" >&2; }

ru_notice() { # a signal came: pass it on to the stage, which saves
  ru_asked=$1
  ru_say "asked to stop ($1): the state is saved first"
  [ -z "$ru_driver" ] || kill -TERM "$ru_driver" 2>/dev/null
}

ru_heed() { # [CODE]: back into the queue where a stop was asked for. A notice to the steps alone is a file, or a step that
  # ended with CODE 138: USR1 came before it could write that file.
  [ ! -e "$ru_dir/stop" ] && [ "${1:-0}" != 138 ] || [ -n "$ru_asked" ] || ru_notice USR1
  [ -z "$ru_asked" ] || ru_again
}

ru_blame() { # CODE CAUSE: fail, unless it comes of a notice that another node's step is about to write down
  sleep 1 & wait $!
  ru_heed "$1"
  ru_fail 5 "$2"
}

ru_fail() { # CODE CAUSE: take all down, say why, leave
  ru_down
  ru_say "exit code $1: $2"
  exit "$1"
}

ru_notice_s() { # seconds between the notice and the time limit, as sbatch was told; the batch file's own number without it
  local told=${ECELLM_SIGNAL_S:-${SBATCH_SIGNAL:-}}
  told=${told:-$(sed -n 's/^#SBATCH --signal[= ]//p' "$0" 2>/dev/null | tail -n 1)}
  case $told in *@*) told=${told##*@} ;; *[!0-9]*) told=60 ;; esac # Slurm's own number where a signal has none
  told=${told%%[!0-9]*}
  echo "${told:-0}"
}

ru_last() { # FILE: its last telling line; that Ray ended is told where nothing else was said
  local lines
  lines=$(grep -av -e '^[[:space:]]*$' -e '^srun: ' "$1" 2>/dev/null || grep -av '^[[:space:]]*$' "$1" 2>/dev/null)
  grep -av '^ray start ended by itself' <<<"$lines" | grep . | tail -n 1 | cut -c1-300 | grep . || tail -n 1 <<<"$lines"
}

ray_up() {
  local stage=$1; shift
  [ -n "${SLURM_JOB_ID:-}" ] || { ru_say "exit code 2: no Slurm job; submit with: sbatch slurm/$stage.sbatch RUN.toml"; exit 2; }
  ru_name=$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}
  mapfile -t ru_names < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
  ru_environment
  ru_arguments "$stage" "$@"
  case $stage in
    build | report) ru_drive "$stage" ;; # these need no cluster
    *) ru_check "$stage" && ru_start && ru_drive "$stage" ;;
  esac
}

ru_environment() { # where the code is, and how a command is run: modules, a virtual environment or an image
  ru_root=${ECELLM_HOME:-$SLURM_SUBMIT_DIR}
  cd "$ru_root" 2>/dev/null && [ -f jobs/train.py ] && [ -f slurm/ray_node.sh ] ||
    ru_fail 2 "$ru_root is no checkout of ecellm: submit from its top folder, or set ECELLM_HOME"
  if [ -n "${ECELLM_SETUP:-}" ]; then
    # shellcheck disable=SC1090
    set +u # files of modules and environments read variables that are not set
    source "$ECELLM_SETUP" || ru_fail 2 "ECELLM_SETUP: $ECELLM_SETUP cannot be read or failed"
    set -u
  fi
  ru_tmp=${ECELLM_TMP:-/tmp}
  ru_dir=$ru_tmp/ecellm-$UID-$ru_name
  rm -rf "$ru_dir"
  (umask 077 && mkdir -p "$ru_dir" && mkfifo "$ru_dir/life" && head -c 65536 /dev/zero >"$ru_dir/room") 2>/dev/null ||
    ru_fail 5 "node ${ru_names[0]} has no room in its temporary folder $ru_tmp: clean it, or set ECELLM_TMP"
  rm -f "$ru_dir/room"
  if [ -n "${ECELLM_IMAGE:-}" ]; then
    local run
    run=$(command -v apptainer || command -v singularity) || ru_fail 2 "ECELLM_IMAGE is set, but there is no apptainer here"
    [ -r "$ECELLM_IMAGE" ] || ru_fail 2 "ECELLM_IMAGE: $ECELLM_IMAGE cannot be read"
    ru_run=("$run" exec --bind "$ru_root,$ru_tmp${ECELLM_BIND:+,$ECELLM_BIND}" --pwd "$ru_root")
    [ -z "${SLURM_GPUS_ON_NODE:-}" ] || ru_run+=(--nv)
    ru_run+=("$ECELLM_IMAGE" python)
  else
    ru_run=("${ECELLM_VENV:-$ru_root/.venv}/bin/python")
    [ -x "${ru_run[0]}" ] || ru_fail 2 "no Python at ${ru_run[0]}: set ECELLM_VENV, or run make .venv/.installed there"
    export PATH="${ru_run[0]%/*}:$PATH"
  fi
  export PYTHONPATH="$ru_root${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
  # How sbatch was asked for GPUs (--gpus, --gpus-per-task) is not how a step of one node gets all of that node's.
  unset SLURM_GPUS SLURM_GPUS_PER_TASK SLURM_NTASKS_PER_GPU
  # What sbatch carried over from the login node belongs to another Ray.
  unset RAY_ADDRESS RAY_AUTH_TOKEN_PATH RAY_JOB_ID RAY_RUNTIME_ENV_HOOK
  RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
  export RAY_AUTH_TOKEN RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
  export ECELLM_CAUSE_FILE=$ru_dir/cause
  ru_logs=${ECELLM_LOGS:-$ru_root/runs/slurm}/$ru_name
  mkdir -p "$ru_logs" 2>/dev/null || ru_fail 4 "$ru_logs cannot be made: set ECELLM_LOGS to a folder that can be written"
}

ru_arguments() { # the run file and the overrides; an element of a job array takes the run file of its number
  local stage=$1 files=(); shift
  while [ $# -gt 0 ] && [ "${1#--}" = "$1" ]; do files+=("$1"); shift; done
  ru_overrides=("$@")
  [ ${#files[@]} -gt 0 ] || ru_fail 2 "no run file: sbatch slurm/$stage.sbatch RUN.toml"
  local number=${SLURM_ARRAY_TASK_ID:-0}
  [ -n "${SLURM_ARRAY_TASK_ID:-}" ] || [ ${#files[@]} -eq 1 ] ||
    ru_fail 2 "${#files[@]} run files: give one, or sbatch --array=0-$((${#files[@]} - 1))"
  [ ${#files[@]} -gt 1 ] || number=0
  [ "$number" -lt ${#files[@]} ] || ru_fail 2 "element $number of the array has no run file: ${#files[@]} were given"
  if [ "${SLURM_ARRAY_TASK_COUNT:-1}" -gt 1 ]; then # elements run at once, and two must not write to one place
    [ ${#files[@]} -gt 1 ] || ru_fail 2 "an array of $SLURM_ARRAY_TASK_COUNT elements with one run file: give one for each"
    case " ${ru_overrides[*]-} " in *" --out "* | *" --out="*) ru_fail 2 "one --out for all elements of an array: set out in the run files" ;; esac
    [ "$SLURM_ARRAY_TASK_COUNT" -ge ${#files[@]} ] || [ "$number" != "${SLURM_ARRAY_TASK_MIN:-0}" ] ||
      ru_say "${#files[@]} run files for $SLURM_ARRAY_TASK_COUNT elements: the others are left out"
  fi
  ru_file=${files[$number]}
  # With ECELLM_HOME the checkout is elsewhere; a run file is looked up where sbatch was called.
  [ "${ru_file#/}" != "$ru_file" ] || [ ! -f "$SLURM_SUBMIT_DIR/$ru_file" ] || ru_file=$SLURM_SUBMIT_DIR/$ru_file
}

# Steps lie beside each other: without --overlap the second would wait for the first one's processors.
ru_srun=(srun --overlap --quiet --mpi=none --cpu-bind=none --export=ALL)

ru_cause() { # FILE: the cause that our command line left, or the last line of a log
  head -n 1 "$ECELLM_CAUSE_FILE" 2>/dev/null | grep . || ru_last "$1"
}

ru_check() { # STAGE: the run file, then every node by itself, then all together
  local all=${#ru_names[@]} code names=() seconds=${ECELLM_START_S:-300}
  "${ru_run[@]}" -m ecellm.cli cluster begin "$ru_file" --job "$ru_name" "${ru_overrides[@]}" >"$ru_dir/canary" ||
    ru_fail $? "$(ru_cause /dev/null)"
  ru_heed
  mapfile -t names <"$ru_dir/canary"
  timeout --kill-after=10 "$seconds" "${ru_srun[@]}" --label --input=none \
    --nodes="$all" --ntasks="$all" --ntasks-per-node=1 \
    bash "$ru_root/slurm/ray_look.sh" "$ru_dir/stop" "${ru_run[@]}" -m ecellm.cluster.nodecheck \
    --out "${names[0]}" --canary "${names[1]}" --nonce "${names[2]}" --job "$SLURM_JOB_ID" --temporary "$ru_tmp" \
    --peers "$(IFS=,; echo "${ru_names[*]:0:2}")" --interface "${ECELLM_INTERFACE:-}" \
    >"$ru_logs/nodes.jsonl" 2>"$ru_logs/nodes.err" & # who is missing is told by judge
  ru_driver=$! # so that a notice ends it, and is not heard only when it is over
  wait $ru_driver
  code=$?
  while kill -0 $ru_driver 2>/dev/null; do wait $ru_driver; code=$?; done # a trap ends `wait` early
  ru_driver=''
  ru_heed $code
  "${ru_run[@]}" -m ecellm.cli cluster judge "$ru_file" --canary "$ru_dir/canary" --said "$ru_logs/nodes.jsonl" \
    --heard "$ru_logs/nodes.err" --names "$(IFS=,; echo "${ru_names[*]}")" --job "$SLURM_JOB_ID" \
    --stage "$1" --notice "$(ru_notice_s)" "${ru_overrides[@]}" >"$ru_dir/plan"
  code=$?
  [ $code = 0 ] || ru_fail $code "$(ru_cause /dev/null)"
  ru_heed
  # shellcheck disable=SC1091
  source "$ru_dir/plan"
  [ -z "$warning" ] || ru_say "warning: $warning"
}

ru_start() { # Ray on every node at once, then wait until it has all resources
  local name begun=$SECONDS
  exec 8<>"$ru_dir/life" # while this is open the nodes keep their Ray, and let it go when we vanish
  export RAY_ADDRESS=$address ECELLM_NODES_CHECKED=1
  for name in "${ru_names[@]}"; do ru_node "$name"; done
  "${ru_run[@]}" -m ecellm.cli cluster ready --nodes ${#ru_names[@]} --cpus "$total_cpus" --gpus "$total_gpus" \
    --seconds "${ECELLM_START_S:-300}" 8>&- &
  ru_driver=$!
  while kill -0 $ru_driver 2>/dev/null; do
    ru_heed
    for name in "${ru_names[@]}"; do
      kill -0 "${ru_step[$name]}" 2>/dev/null && continue
      wait "${ru_step[$name]}"
      ru_blame $? "Ray did not start on $name: $(ru_last "$ru_logs/ray-$name.log")"
    done
    sleep 0.3
  done
  wait $ru_driver
  local code=$?
  ru_driver=''
  ru_heed
  [ $code = 0 ] || ru_fail $code "$(ru_cause /dev/null)"
  ru_say "Ray $address is whole: ${#ru_names[@]} nodes, $total_cpus CPUs, $total_gpus GPUs, after $((SECONDS - begun)) s"
  if [ -n "${ECELLM_DASHBOARD:-}" ]; then
    (umask 077 && echo "$RAY_AUTH_TOKEN" >"$ru_logs/token")
    ru_say "dashboard: ssh -J LOGIN -L 8265:127.0.0.1:$((base + 2)) ${ru_names[0]}, with the token in $ru_logs/token"
  fi
}

ru_node() { # NODE: hold Ray on it in a step of its own
  local kind=worker
  [ "$1" != "${ru_names[0]}" ] || kind=head
  # shellcheck disable=SC2154
  "${ru_srun[@]}" --nodes=1 --ntasks=1 --ntasks-per-node=1 --nodelist="$1" --cpus-per-task="${node_cpus[$1]}" \
    bash "$ru_root/slurm/ray_node.sh" "$kind" "$base" "${node_address[$1]}" "${node_cpus[$1]}" "${node_gpus[$1]}" \
    "$object_store" "$ru_tmp/ec$ru_name" "$ru_logs/ray-$1.tgz" "$ru_dir/stop" "${ru_run[@]}" \
    <"$ru_dir/life" >>"$ru_logs/ray-$1.log" 2>&1 8>&- &
  ru_step[$1]=$!
}

ru_drive() { # run the stage on this node, and watch the cluster while it runs
  local stage=$1 code gone=''
  rm -f "$ECELLM_CAUSE_FILE"
  "${ru_run[@]}" -m "jobs.$stage" "$ru_file" "${derived[@]+"${derived[@]}"}" "${ru_overrides[@]}" 8>&- &
  ru_driver=$!
  [ -z "$ru_asked" ] || kill -TERM $ru_driver
  while kill -0 $ru_driver 2>/dev/null; do
    [ ! -e "$ru_dir/stop" ] || [ -n "$ru_asked" ] || ru_notice USR1
    [ -n "$gone" ] || ru_watch || { gone=$?; ru_end_driver 20; }
    sleep 0.5 & wait $!
  done
  wait $ru_driver
  code=$?
  ru_driver=''
  case $code in
    0) ru_down; ru_say "$stage is done"; exit 0 ;;
    75) [ -n "$gone" ] || ru_again ;;
  esac
  [ -z "$gone" ] || ru_fail 5 "$ru_lost" # we ended the stage ourselves then, whatever it made of that
  case $code in # a stop in its first second, before it could hear of it: nothing was begun
    130 | 138 | 143) [ -z "$ru_asked" ] || ru_again ;;
  esac
  [ $code -le 128 ] || [ $code = 130 ] || ru_fail 5 "$stage was killed by signal $((code - 128))$(ru_why_killed $code)"
  ru_fail $code "$stage: $(ru_cause /dev/null)"
}

ru_why_killed() { [ "$1" != 137 ] || echo ", as the system does when memory runs out"; }

ru_watch() { # a lost head is the end; a lost worker's Ray is started again, three times in all
  local name
  for name in "${!ru_step[@]}"; do
    kill -0 "${ru_step[$name]}" 2>/dev/null && continue
    ru_lost="Ray ended on $name while the stage ran: $(ru_last "$ru_logs/ray-$name.log")"
    [ "$name" != "${ru_names[0]}" ] && [ $ru_restarted -lt 3 ] || return 1
    ru_restarted=$((ru_restarted + 1))
    ru_say "$ru_lost; it is started again ($ru_restarted of 3)"
    ru_node "$name"
  done
}

ru_end_driver() { # SECONDS: ask the stage to end, then make it
  local i
  [ -n "$ru_driver" ] || return 0
  kill -TERM "$ru_driver" 2>/dev/null
  for ((i = 0; i < $1 * 2; i++)); do
    kill -0 "$ru_driver" 2>/dev/null || return 0
    sleep 0.5 & wait $!
  done
  kill -KILL "$ru_driver" 2>/dev/null
}

ru_down() { # end what was started here, by pid, and leave no file
  local name i
  ru_end_driver 10
  { exec 8>&-; } 2>/dev/null # the nodes' steps read the end of it, and end their Ray
  for ((i = 0; i < 60; i++)); do
    for name in "${!ru_step[@]}"; do kill -0 "${ru_step[$name]}" 2>/dev/null || unset "ru_step[$name]"; done
    [ ${#ru_step[@]} -gt 0 ] || break
    [ $i != 40 ] || kill -TERM "${ru_step[@]}" 2>/dev/null
    sleep 0.5 & wait $!
  done
  [ ${#ru_step[@]} = 0 ] || kill -KILL "${ru_step[@]}" 2>/dev/null
  [ -z "$ru_dir" ] || rm -rf "$ru_dir"
}

ru_again() { # stopped with the state saved: back into the queue, unless Slurm or a person decides what comes next
  local most=${ECELLM_MAX_RESTARTS:-100} id=$SLURM_JOB_ID
  ru_down
  [ "$ru_asked" != TERM ] || { ru_say "exit code 75: stopped, state saved; Slurm decides whether the job runs again"; exit 75; }
  [ "${SLURM_RESTART_COUNT:-0}" -lt "$most" ] ||
    { ru_say "exit code 75: stopped, state saved; not requeued after $most restarts (ECELLM_MAX_RESTARTS)"; exit 75; }
  trap '' TERM
  scontrol requeue "$id" ||
    { ru_say "exit code 75: stopped, state saved; the job cannot be requeued (sbatch --requeue), submit it again"; exit 75; }
  ru_say "requeued: stopped with the state saved, the next start goes on from there"
  sleep 300 & wait $! # Slurm ends this shell
  exit 75
}
