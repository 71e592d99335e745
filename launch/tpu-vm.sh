#!/usr/bin/env bash
# A TPU VM slice on spot: PROJECT=... ZONE=... NAME=... ACCELERATOR_TYPE=... RUNTIME_VERSION=...
# WORKDIR=gs://... launch/tpu-vm.sh [flags of research.main]
#
# Queues for the slice, runs the last commit on all its machines, queues again when it is taken away,
# and deletes it at the end, however that comes. Start it where it can stay, in tmux for example.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
: "${PROJECT:?is not set: the project that pays}"
: "${ZONE:?is not set: see gcloud compute tpus locations list}"
: "${NAME:?is not set: a name for the slice, of your choice}"
: "${ACCELERATOR_TYPE:?is not set: see gcloud compute tpus accelerator-types list}"
: "${RUNTIME_VERSION:?is not set: see gcloud compute tpus versions list}"
: "${WORKDIR:?is not set: a directory of a bucket, gs://...}"

where=(--project="$PROJECT" --zone="$ZONE")
slice() { # slice VERB ARGUMENT...
  local verb=$1
  shift
  gcloud compute tpus queued-resources "$verb" "$NAME" "${where[@]}" "$@"
}
delete() { slice delete --force --quiet || true; }

archive=$(mktemp)
trap 'delete; rm -f "$archive"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
git archive --format=tar.gz --output="$archive" HEAD

# flock: after a broken connection the processes of before may still run; then wait for them.
remote=$(
  cat <<END
set -e
mkdir -p laboratory && tar -xzf laboratory.tar.gz -C laboratory && cd laboratory
python3 -m pip install --quiet --user uv
~/.local/bin/uv venv --quiet --allow-existing --python 3.12 .venv
~/.local/bin/uv pip install --quiet --no-deps -r requirements.txt -r launch/requirements-stores.txt
~/.local/bin/uv pip install --quiet -c requirements.txt "jax[tpu]"
exec flock ../laboratory.lock .venv/bin/python -m research.main --workdir=$(printf '%q ' "$WORKDIR" "$@")
END
)

state() { slice describe --format='value(state.state)' 2>/dev/null || true; }

while true; do
  case $(state) in
    '')
      slice create --node-id="$NAME" --accelerator-type="$ACCELERATOR_TYPE" \
        --runtime-version="$RUNTIME_VERSION" --spot
      ;;
    ACTIVE)
      code=0
      { slice scp "$archive" "$NAME:laboratory.tar.gz" --worker=all \
        && slice ssh --worker=all --command="$remote"; } || code=$?
      # Done, or a mistake that another try would repeat; gcloud says 1 for a slice that is gone, too.
      if ((code == 0)) || { ((code <= 2)) && [[ $(state) == ACTIVE ]]; }; then
        exit "$code"
      fi
      echo "exit code $code: once more, to go on from $WORKDIR" >&2
      ;;
    FAILED | SUSPENDED) delete ;;
  esac
  sleep "${PAUSE:-30}"
done
