#!/usr/bin/env bash
# On this machine: launch/local.sh [flags of research.main]
#
# Without a --config: the twelve nets of the depth study. With PROCESSES=4: four processes that run it
# together over the loopback. If one of them ends with an error, the others are ended.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

processes=${PROCESSES:-1}
patience=${PATIENCE:-60} # seconds between asking the others to end and ending them
if ! [[ $processes =~ ^[1-9][0-9]*$ ]]; then
  echo "PROCESSES: '$processes' is not a number of processes" >&2
  exit 2
fi
if [[ " $*" != *" --config="* ]]; then
  set -- --config=configs/mlp.py:all --config.seeds=5 "$@"
fi
if ((processes == 1)); then
  exec python -m research.main "$@"
fi

port=${PORT:-$((20000 + RANDOM % 10000))}
while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
  port=$((port + 1)) # somebody listens there
done

set -m # each in a group of its own: a ^C reaches this script only, which hands it on once
pids=()
for ((i = 0; i < processes; i++)); do
  python -m research.main "$@" \
    --coordinator="127.0.0.1:$port" --processes="$processes" --process="$i" </dev/null &
  pids[i]=$!
done

asked=
ask() { # ask SIGNAL: all that still run to end; once, as a second signal would not let them save
  if [[ -z $asked ]]; then
    asked=$SECONDS
    kill -s "$1" "${pids[@]}" 2>/dev/null || true
  fi
}
trap 'ask INT' INT
trap 'ask TERM' TERM

failed=0
while ((${#pids[@]})); do
  for i in "${!pids[@]}"; do
    if kill -0 "${pids[i]}" 2>/dev/null; then
      continue
    fi
    code=0
    wait "${pids[i]}" || code=$?
    unset "pids[i]"
    if ((code && !failed)); then
      failed=$code
      if [[ -z $asked ]]; then
        echo "process $i of $processes (from 0) has ended with code $code; ending the others" >&2
      fi
      ((${#pids[@]} == 0)) || ask TERM
    fi
  done
  if [[ -n $asked ]] && ((${#pids[@]} && SECONDS - asked >= patience)); then
    kill -s KILL "${pids[@]}" 2>/dev/null || true
  fi
  sleep 0.1
done
exit "$failed"
