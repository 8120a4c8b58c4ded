#!/bin/sh
# build-static.sh TARGET OUT: the agent and the executor as static programs for x86_64- or aarch64-unknown-linux-musl, into OUT.
# PROFILE is release if not said.
set -eu
target=${1:?which target} out=${2:?where to}
profile=${PROFILE:-release}
# Rust brings musl and a linker with it: no C compiler for the target is needed.
name=$(echo "$target" | tr a-z- A-Z_)
export "CARGO_TARGET_${name}_LINKER=rust-lld"
export "CARGO_TARGET_${name}_RUSTFLAGS=-Clink-self-contained=yes -Ctarget-feature=+crt-static"
cargo build --locked --profile "$profile" --target "$target" -p scheduler-worker -p command-executor
[ "$profile" = dev ] && directory=debug || directory=$profile
mkdir -p "$out"
for program in scheduler-worker command-executor; do
  cp "${CARGO_TARGET_DIR:-target}/$target/$directory/$program" "$out/"
done
