#!/usr/bin/env bash
# Fill in a manifest's ${VARIABLES}: NAME=... IMAGE=... launch/render.sh launch/jobset-gpu.yaml
set -euo pipefail
: "${1:?is missing: the manifest to fill in}"

text=$(<"$1")
while [[ $text =~ \$\{([A-Z_]+)\} ]]; do
  name=${BASH_REMATCH[1]}
  if [[ -z ${!name:-} ]]; then
    echo "$name is not set; $1 needs it" >&2
    exit 1
  fi
  if [[ ${!name} == *"\${"* ]]; then
    echo "$name has a \${ in it" >&2
    exit 1
  fi
  text=${text//"\${$name}"/"${!name}"}
done
printf '%s\n' "$text"
