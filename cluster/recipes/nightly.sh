#!/bin/sh
# nmf-batch every night from cron: 0 3 * * * /path/to/nightly.sh photos/ faces.zarr 99
# Ends with 0 where all is done, or with the code of what did not; cron mails what is on stderr.
set -u
images=$1 store=$2 rank=$3

attempt() { # the same command again, a few times, where it says that it is a matter of time
  for pause in 60 300 900 0; do
    "$@"
    code=$?
    [ "$code" -eq 75 ] && [ "$pause" -gt 0 ] || return "$code"
    sleep "$pause"
  done
}

attempt nmf-batch prep "$images" --zarr "$store"
code=$?
[ "$code" -eq 0 ] || [ "$code" -eq 3 ] || exit "$code" # 3: done, a few images could not be read
attempt nmf-batch run --zarr "$store" -d "$rank" --lock-timeout 10min
