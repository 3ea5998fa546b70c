#!/usr/bin/env bash
# Run edge-far's device side on the processor cores of the Raspberry Pis, emulated by QEMU, and compare with x86.
#
#   scripts/test_aarch64.sh [--rebuild] [--operators | --gradients | --doctor | --packages]
#
#   --rebuild    fetch the Debian roots and the wheels again
#   --operators  only the operator probe, no training
#   --gradients  only a whole training step of every tiny bundle
#   --doctor     only edge-far doctor
#   --packages   only edge-far's wheel with pip's packages for aarch64, on the user lands of Debian 12 and 13
#
# Needs root (chroot, mounts), .venv and .venv-device (make env-host env-device). Exit codes: 0 all equal, 1 something differs or
# failed, 64 usage, 77 skipped because this machine cannot run it. docs/lab/aarch64.md says how it works.
#
# Nothing is registered with the kernel and nothing stays mounted: the whole script runs in a mount namespace of its
# own, which ends with it, and every emulated program is started through the QEMU binary by name (no binfmt_misc).
set -euo pipefail

# Raspberry Pi OS is made from these; cores are compared on the first.
readonly SUITES=(bookworm trixie)
declare -rA PYTHON_VERSIONS=([bookworm]=3.11 [trixie]=3.13)
readonly CORES=(cortex-a53 cortex-a72 cortex-a76)
declare -rA BOARDS=([cortex-a53]="Zero 2 W, 3B+" [cortex-a72]="4B" [cortex-a76]="5")
# What the boards' own /proc/cpuinfo says; ONNX Runtime chooses kernels by it.
declare -rA PARTS=([cortex-a53]=0xd03 [cortex-a72]=0xd08 [cortex-a76]=0xd0b)
declare -rA FEATURES=(
  [cortex-a53]="fp asimd evtstrm crc32 cpuid"
  [cortex-a72]="fp asimd evtstrm crc32 cpuid"
  [cortex-a76]="fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
)

REPOSITORY=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly REPOSITORY
readonly CACHE=$REPOSITORY/.cache/aarch64 WORK=$REPOSITORY/build/aarch64 BUNDLES=$REPOSITORY/build/test-bundles
readonly SCRIPTS=$REPOSITORY/tests/aarch64
readonly HOST_PYTHON=$REPOSITORY/.venv/bin/python DEVICE_PYTHON=$REPOSITORY/.venv-device/bin/python

say() { printf 'test-aarch64: %s\n' "$*" >&2; }
fail() { say "error: $*"; exit 1; }
skip() { say "skipped: $*"; exit 77; }

# --- the emulated root -------------------------------------------------------------------------------------------

install_tools() {
  local packages=()
  command -v debootstrap >/dev/null || packages+=(debootstrap)
  command -v qemu-aarch64-static >/dev/null || packages+=(qemu-user-static)
  [[ -e /usr/share/keyrings/debian-archive-keyring.gpg ]] || packages+=(debian-archive-keyring)
  [[ ${#packages[@]} -eq 0 ]] && return
  command -v apt-get >/dev/null || skip "install ${packages[*]} first: this system has no apt-get"
  say "installing ${packages[*]}"
  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${packages[@]}" \
    >"$CACHE/apt.log" 2>&1 || fail "apt-get install failed, see $CACHE/apt.log (apt-get update may help)"
}

# take SUITE: the functions below work on this one.
take() {
  SUITE=$1 PYTHON_VERSION=${PYTHON_VERSIONS[$1]} ROOT=$CACHE/$1-arm64
}

# Debootstrap's first stage downloads and verifies the packages; here they are all merely unpacked. No package
# script runs, so nothing has to be emulated to build the root.
build_root() {
  [[ -e $ROOT/debian-packages.txt ]] && return
  local partial=$ROOT.partial archive
  say "building the Debian $SUITE arm64 root (once)"
  rm -rf "$partial"
  debootstrap --arch=arm64 --foreign --force-check-gpg --variant=minbase --include=python3 \
    "$SUITE" "$partial" ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"} >"$CACHE/debootstrap.log" 2>&1 ||
    { tail -n 5 "$CACHE/debootstrap.log" >&2; fail "debootstrap failed, see $CACHE/debootstrap.log"; }
  for archive in "$partial"/var/cache/apt/archives/*.deb; do
    dpkg-deb --fsys-tarfile "$archive" | tar -C "$partial" -xf - --keep-directory-symlink \
      --exclude='./usr/share/doc/*' --exclude='./usr/share/man/*' --exclude='./usr/share/locale/*'
    dpkg-deb --show "$archive"
  done >"$partial.txt"
  rm -rf "$partial"/var/cache/apt/archives "$partial"/debootstrap
  local directory
  for directory in proc sys dev tmp work opt/edge-far opt/site; do
    [[ ! -L $partial/$directory ]] || rm "$partial/$directory" # debootstrap may link /proc to the host's
    mkdir -p "$partial/$directory"
  done
  mv "$partial.txt" "$partial/debian-packages.txt"
  mv "$partial" "$ROOT"
}

# pip's options for wheels that run in the root.
pip_platform() {
  local minor
  echo --only-binary=:all: --implementation cp --python-version "$PYTHON_VERSION" --platform manylinux2014_aarch64
  for minor in $(seq 17 36); do echo --platform "manylinux_2_${minor}_aarch64"; done # 36: bookworm's glibc
}

# The device environment's own versions, as aarch64 wheels; unpacked, because an emulated pip is slow.
build_site() {
  local pins key wheel
  pins=$("$DEVICE_PYTHON" "$SCRIPTS/device_wheels.py")
  key=$(printf '%s\n' "$SUITE" "$PYTHON_VERSION" "$pins" | sha256sum | cut -c 1-12)
  SITE=$CACHE/site-$key
  [[ -d $SITE ]] && return
  say "downloading the device extra's aarch64 wheels (once for these versions)"
  rm -rf "$CACHE"/site-* "$CACHE/wheels"
  # shellcheck disable=SC2046
  "$DEVICE_PYTHON" -m pip download --quiet --no-deps $(pip_platform) \
    --dest "$CACHE/wheels" --requirement <(printf '%s\n' "$pins") >"$CACHE/pip.log" 2>&1 ||
    { tail -n 3 "$CACHE/pip.log" >&2; fail "no aarch64 wheels for $DEVICE_PYTHON's versions, see $CACHE/pip.log"; }
  for wheel in "$CACHE"/wheels/*.whl; do "$DEVICE_PYTHON" -m zipfile -e "$wheel" "$SITE.partial"; done
  # Python 3.11's byte code is the same on every processor; another version's is merely not used.
  "$DEVICE_PYTHON" -m compileall -q "$SITE.partial" >/dev/null || true
  rm -rf "$CACHE/wheels"
  mv "$SITE.partial" "$SITE"
}

# What a user of this Debian gets: our wheel, installed by pip for aarch64 in two ways. `full` holds what pip finds for
# edge-far[device]: it fails where one package has no wheel. `small` is what deploy/install.sh leaves, and what is run.
build_installation() {
  local wheels=$CACHE/installed-$SUITE-wheels wheel pip
  INSTALLED=$WORK/installed-$SUITE
  rm -rf "$INSTALLED" "$wheels"
  mkdir -p "$INSTALLED"
  wheel=$(echo "$WORK"/dist/edge_far-*.whl)
  pip="$DEVICE_PYTHON -m pip --quiet --disable-pip-version-check"
  say "pip for Debian $SUITE, Python $PYTHON_VERSION, aarch64"
  # What was chosen for another Python is refused by this one's version unless it is told not to look.
  local from="install --no-compile --ignore-requires-python --no-index --find-links $wheels $(pip_platform)"
  # shellcheck disable=SC2046,SC2086
  {
    $pip download $(pip_platform) --dest "$wheels" "${wheel}[device]" &&
      $pip $from --target "$INSTALLED/full" "${wheel}[device]" &&
      $pip $from --target "$INSTALLED/small" --no-deps --requirement "$REPOSITORY/deploy/device-packages.txt" "$wheel"
  } >"$CACHE/pip.log" 2>&1 || { tail -n 3 "$CACHE/pip.log" >&2; return 1; }
  (. "$REPOSITORY/deploy/environment.sh" && leave_out "$INSTALLED/small")
  say "$(find "$wheels" -name '*.whl' | wc -l) wheels, $(du -sm "$wheels" | cut -f 1) MiB;" \
    "installed $(du -sm "$INSTALLED/full" | cut -f 1) MiB, as install.sh does it" \
    "$(du -sm "$INSTALLED/small" | cut -f 1) MiB (without byte code)"
  rm -rf "$wheels" "$INSTALLED/full"
}

mount_root() {
  mkdir -p "$ROOT/opt/edge-far" "$ROOT/opt/site"
  cp --update "$(command -v qemu-aarch64-static)" "$ROOT/usr/bin/qemu-aarch64-static"
  mount -t proc proc "$ROOT/proc"
  mount --bind /sys "$ROOT/sys"
  mount --bind /dev "$ROOT/dev"
  mount -t tmpfs tmpfs "$ROOT/tmp"
  mount --bind "$SITE" "$ROOT/opt/site"
  mount --bind "$REPOSITORY" "$ROOT/opt/edge-far"
  mount -o remount,bind,ro "$ROOT/opt/edge-far"
  mount --bind "$WORK" "$ROOT/work"
}

# in_root CORE ARGUMENT...: the root's python3 on that core. The checkout is /opt/edge-far, build/aarch64 is /work, the
# modules are those of MODULES.
in_root() {
  local core=$1 cpuinfo=$WORK/cpuinfo processor
  shift
  for processor in $(seq 0 $(($(nproc --all) - 1))); do
    printf '%s\t: %s\n' processor "$processor" BogoMIPS 38.40 Features "${FEATURES[$core]}" \
      "CPU implementer" 0x41 "CPU architecture" 8 "CPU variant" 0x0 "CPU part" "${PARTS[$core]}" "CPU revision" 4
    echo
  done >"$cpuinfo"
  ! mountpoint -q "$ROOT/proc/cpuinfo" || umount "$ROOT/proc/cpuinfo"
  mount --bind "$cpuinfo" "$ROOT/proc/cpuinfo" # the host's own makes ONNX Runtime's start fail
  env -i HOME=/tmp LANG=C.UTF-8 PATH=/usr/sbin:/usr/bin OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1 \
    PYTHONPATH="${MODULES-/opt/edge-far:/opt/site}" QEMU_CPU="$core" \
    chroot "$ROOT" /usr/bin/qemu-aarch64-static /usr/bin/python3 "$@"
}

# --- what runs there ---------------------------------------------------------------------------------------------

# Does the doctor know each core, and does it find nothing that keeps edge-far from running there?
examine_cores() {
  local core told=()
  for core in "${CORES[@]}"; do
    say "doctor on $core (${BOARDS[$core]})"
    told+=("$core=$WORK/doctor-$core.json")
    in_root "$core" -m edge_far.cli doctor --json --quiet >"$WORK/doctor-$core.json" || true # its exit code is a finding's
  done
  "$DEVICE_PYTHON" "$SCRIPTS/doctor_report.py" "${told[@]}"
}

# The operators of a training step, one by one: which run on each core, and how far each is from x86.
probe_operators() {
  local core results=() before status=0
  rm -rf "$WORK/cases" "$WORK"/operators-*
  (cd "$REPOSITORY" && "$HOST_PYTHON" -m tests.aarch64.operator_cases "$WORK/cases") || return 1
  OMP_NUM_THREADS=1 "$DEVICE_PYTHON" "$SCRIPTS/operator_run.py" "$WORK/cases" "$WORK/operators-x86" >&2 || return 1
  for core in "${CORES[@]}"; do
    say "operators on $core (${BOARDS[$core]})"
    results+=("$core=$WORK/operators-$core")
    mkdir "$WORK/operators-$core"
    # A crash ends the process; the next one goes on behind it, as long as each got further.
    for ((before = -1; $(count_lines "$WORK/operators-$core/status.jsonl") > before; )); do
      before=$(count_lines "$WORK/operators-$core/status.jsonl")
      in_root "$core" /opt/edge-far/tests/aarch64/operator_run.py /work/cases "/work/operators-$core" >&2 && break
    done
  done
  "$DEVICE_PYTHON" "$SCRIPTS/operator_report.py" "$WORK/cases" "$WORK/operators-x86" "${results[@]}" || status=1
  return $status
}

count_lines() { [[ -e $1 ]] && wc -l <"$1" || echo 0; }

# Leaves tiny-fp32 and tiny-int8 (bundles) and tiny.jsonl (three batches of examples) in $BUNDLES, as the tests do.
make_tiny_bundles() {
  local status=0
  say "making the tiny bundles"
  OMP_NUM_THREADS=1 "$HOST_PYTHON" "$REPOSITORY/scripts/make_tiny_bundles.py" >&2 || status=1
  # Under sudo, the user's own tests must be able to replace them.
  chown -R --reference="$REPOSITORY" "$BUNDLES" "$BUNDLES.lock" || status=1
  return $status
}

# train_arguments BUNDLES WORK NAME RUN: the very same command on every processor, but for the folders.
train_arguments() {
  echo -m edge_far.cli train "$1/$3" --train "$1/tiny.jsonl" --out "$2/$4" --profile workstation --epochs 1 --quiet
}

train_bundles() {
  local bundle core results=("x86=$WORK/runs-x86")
  make_tiny_bundles || { say "error: no tiny bundles to train"; return 1; }
  rm -rf "$WORK"/runs-*
  for bundle in tiny-fp32 tiny-int8; do
    # shellcheck disable=SC2046 # the arguments hold no spaces but between them
    (cd "$REPOSITORY" && OMP_NUM_THREADS=1 "$DEVICE_PYTHON" \
      $(train_arguments build/test-bundles build/aarch64 "$bundle" "runs-x86/$bundle") >&2)
    for core in "${CORES[@]}"; do
      say "training $bundle on $core (${BOARDS[$core]})"
      # shellcheck disable=SC2046
      in_root "$core" $(train_arguments /opt/edge-far/build/test-bundles /work "$bundle" "runs-$core/$bundle") >&2
    done
  done
  for core in "${CORES[@]}"; do results+=("$core=$WORK/runs-$core"); done
  "$DEVICE_PYTHON" "$SCRIPTS/loss_report.py" "${results[@]}"
}

# A whole training step of every tiny bundle (every architecture, method, task and precision): its gradients against torch's.
step_bundles() {
  local core results=("x86=$WORK/gradients-x86") before status
  make_tiny_bundles || { say "error: no tiny bundles"; return 1; }
  rm -rf "$WORK"/gradients-*
  (cd "$REPOSITORY" && OMP_NUM_THREADS=1 "$DEVICE_PYTHON" -m tests.aarch64.gradient_run "$WORK/gradients-x86" >&2) || return 1
  for core in "${CORES[@]}"; do
    say "training steps on $core (${BOARDS[$core]})"
    results+=("$core=$WORK/gradients-$core")
    mkdir "$WORK/gradients-$core"
    status=$WORK/gradients-$core/status.jsonl
    # A crash ends the process; the next one goes on behind it, as long as each got further.
    for ((before = -1; $(count_lines "$status") > before; )); do
      before=$(count_lines "$status")
      in_root "$core" -m tests.aarch64.gradient_run "/work/gradients-$core" >&2 && break
    done
  done
  (cd "$REPOSITORY" && "$DEVICE_PYTHON" -m tests.aarch64.gradient_report "${results[@]}")
}

# The installed command, on each Debian: nothing of the checkout but a bundle and its data.
try_packages() {
  local suite status=0
  [[ -d $BUNDLES/tiny-fp32 ]] || make_tiny_bundles || return 1
  "$HOST_PYTHON" "$REPOSITORY/scripts/packages.py" --build "$WORK/dist" >&2 || return 1
  for suite in "${SUITES[@]}"; do
    take "$suite"
    build_root
    build_installation || { say "error: pip for Debian $suite failed, see $CACHE/pip.log"; status=1; continue; }
    SITE=$INSTALLED/small
    mount_root
    say "$(versions)"
    use_command || { say "error: the command failed on Debian $suite"; status=1; }
  done
  return $status
}

use_command() {
  local MODULES=/opt/site core=cortex-a53 program=/opt/site/bin/edge-far bundles=/opt/edge-far/build/test-bundles
  rm -rf "$WORK/run-$SUITE"
  in_root $core $program --version &&
    in_root $core $program verify $bundles/tiny-fp32 &&
    in_root $core $program train $bundles/tiny-fp32 --train $bundles/tiny.jsonl --out "/work/run-$SUITE" \
      --profile workstation --epochs 1 --quiet &&
    in_root $core $program predict $bundles/tiny-fp32 --run "/work/run-$SUITE" "turn the lights on"
}

versions() {
  echo "Debian $SUITE, $(awk '$1 ~ /^(python3\.[0-9]+|libc6)$/ { printf "%s %s, ", $1, $2 }' "$ROOT/debian-packages.txt")$(
    "$ROOT/usr/bin/qemu-aarch64-static" --version | head -n 1)"
}

# Mounts need no undoing here: they are gone with the namespace. Under sudo, the user keeps his own folders.
clean_up() {
  rm -rf "$CACHE"/*.partial "$CACHE"/*.partial.txt
  chown --reference="$REPOSITORY" "$REPOSITORY/.cache" "$REPOSITORY/build"
  chown -R --reference="$REPOSITORY" "$WORK"
}

main() {
  local rebuild=false operators_only=false gradients_only=false doctor_only=false packages_only=false status=0
  local option
  for option in "$@"; do
    case $option in
      --rebuild) rebuild=true ;;
      --operators) operators_only=true ;;
      --gradients) gradients_only=true ;;
      --doctor) doctor_only=true ;;
      --packages) packages_only=true ;;
      *) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2; exit 64 ;;
    esac
  done
  [[ $(uname -sm) == "Linux x86_64" ]] || skip "compares Linux on x86_64 with arm64; this is $(uname -sm)"
  [[ $EUID -eq 0 ]] || skip "needs root, for chroot and mounts: sudo make test-aarch64"
  [[ -x $HOST_PYTHON && -x $DEVICE_PYTHON ]] || fail "no .venv or .venv-device in the checkout: make setup"
  local namespace
  namespace=$(readlink /proc/self/ns/mnt)
  if [[ ${EDGE_FAR_OUTER_NAMESPACE:-$namespace} == "$namespace" ]]; then
    unshare --mount --propagation private true 2>/dev/null ||
      skip "may not make a mount namespace (in a container: --cap-add SYS_ADMIN)"
    EDGE_FAR_OUTER_NAMESPACE=$namespace exec unshare --mount --propagation private -- "${BASH_SOURCE[0]}" "$@"
  fi
  export PYTHONDONTWRITEBYTECODE=1
  ulimit -c 0
  mkdir -p "$CACHE" "$WORK"
  exec 9>"$CACHE/lock"
  flock --nonblock 9 || fail "another run of this script holds $CACHE/lock"
  trap clean_up EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  install_tools
  ! $rebuild || rm -rf "$CACHE"/*-arm64 "$CACHE"/site-*
  if ! $packages_only; then
    take "${SUITES[0]}"
    build_root
    build_site
    mount_root
    say "$(versions)"
    if $gradients_only; then step_bundles; return; fi
    $operators_only || examine_cores || status=1
    ! $doctor_only || return $status
    probe_operators || status=1
    ! $operators_only || return $status
    step_bundles || status=1
    train_bundles || status=1
  fi
  try_packages || status=1
  return $status
}

main "$@"
