#!/usr/bin/env bash
# The whole product once, on real weights: `make demo` runs this after it has set up both environments.
#
# Workstation (.venv): generate data, choose how much of all-MiniLM-L6-v2 must train, export it for a Raspberry Pi Zero 2 W,
# draw the run.
# Device (.venv-device, no torch): evaluate, train inside the profile's budget, evaluate, merge, predict.
# Leaves everything in build/demo. Exits non-zero when a step fails, the budget is exceeded, or training did not
# beat a bag of words by 5 points (scripts/demo_table.py). Settings: EPOCHS, PROFILE, SEED, MINUTES (of the choice).
set -euo pipefail
cd "$(dirname "$0")/.."

EPOCHS=${EPOCHS:-4}
PROFILE=${PROFILE:-rpi-zero2w-512}
SEED=${SEED:-0}
MINUTES=${MINUTES:-0.5}
OUT=build/demo
HOST=.venv/bin/edge-far
DEVICE=.venv-device/bin/edge-far

bold='' plain=''
[ -t 2 ] && bold=$'\033[1m' plain=$'\033[0m'
say() { printf '\n%s%s%s\n' "$bold" "$*" "$plain" >&2; }

# Shows a command as a user would type it, runs it, keeps its JSON document in $OUT/NAME.json.
step() {
  local name=$1 word
  shift
  printf '$ edge-far' >&2
  for word in "${@:2}"; do
    case $word in
      *[!A-Za-z0-9_./=-]*) printf ' "%s"' "$word" >&2 ;;
      *) printf ' %s' "$word" >&2 ;;
    esac
  done
  printf '\n' >&2
  "$@" --json > "$OUT/$name.json"
}

# One thread a core, four at most: more make small batches slower. nproc respects OMP_NUM_THREADS and CPU affinity.
cores=$(nproc)
export OMP_NUM_THREADS=$((cores < 4 ? cores : 4)) OMP_WAIT_POLICY=passive
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false

for command in "$HOST" "$DEVICE"; do
  [ -x "$command" ] || { echo "demo: $command is missing; run 'make demo', which sets it up" >&2; exit 1; }
done
MODEL=$(.venv/bin/python scripts/packaged_model.py)

mkdir -p build
exec 9> build/demo.lock
flock -n 9 || { echo "demo: another demo is running in this checkout" >&2; exit 1; }
rm -rf -- "$OUT"
mkdir "$OUT"

say "1/7  Workstation: smart-home sentences, and what a bag-of-words classifier reaches on them"
step data "$HOST" demo --out "$OUT/data" --seed "$SEED" --baseline

say "2/7  Workstation: how much must train? Each rung of the ladder is tried; the cheapest good one becomes a bundle"
step export "$HOST" export --model "$MODEL" --train "$OUT/data/train.jsonl" --profile "$PROFILE" \
  --choose-minutes "$MINUTES" --epochs "$EPOCHS" --seed "$SEED" --out "$OUT/bundle"

say "3/7  Device: will it fit? Accuracy as exported"
step plan "$DEVICE" plan "$OUT/bundle" --train "$OUT/data/train.jsonl"
step before "$DEVICE" eval "$OUT/bundle" --data "$OUT/data/test.jsonl"

say "4/7  Device: training with ONNX Runtime, in a process without torch, inside the budget of $PROFILE"
step train "$DEVICE" train "$OUT/bundle" --train "$OUT/data/train.jsonl" --eval "$OUT/data/eval.jsonl" --out "$OUT/run"

say "5/7  Device: accuracy as trained, of the released model"
step after "$DEVICE" eval "$OUT/bundle" --run "$OUT/run" --data "$OUT/data/test.jsonl"

say "6/7  Device: a plain inference model for the application, and three predictions"
step merge "$DEVICE" merge "$OUT/bundle" --run "$OUT/run" --out "$OUT/model"
step predict "$DEVICE" predict "$OUT/bundle" --run "$OUT/run" \
  "it is far too bright in here" "wake me at half past six tomorow" "is the front door locked"

say "7/7  Workstation: the picture"
step report "$HOST" report "$OUT/run" --out "$OUT/training.png" --title "all-MiniLM-L6-v2, budget of $PROFILE"

say "Result"
.venv-device/bin/python scripts/demo_table.py "$OUT"
