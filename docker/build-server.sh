#!/bin/sh
# build-server.sh TARGET OUT: the server for x86_64- or aarch64-unknown-linux-gnu, into OUT. PROFILE is release if not said.
# For another machine than this one it needs Debian's compilers for it: gcc-aarch64-linux-gnu and g++-aarch64-linux-gnu.
set -eu
target=${1:?which target} out=${2:?where to}
profile=${PROFILE:-release}
machine=${target%%-*}
if [ "$(uname -m)" != "$machine" ]; then
  tools=$machine-linux-gnu
  name=$(echo "$target" | tr a-z- A-Z_)
  export "CARGO_TARGET_${name}_LINKER=$tools-gcc"
  # Kafka's client asks for these by their plain names; what runs on this machine while it builds asks cargo.
  export "CC_$(echo "$target" | tr - _)=$tools-gcc" "CXX_$(echo "$target" | tr - _)=$tools-g++" CC=$tools-gcc CXX=$tools-g++ AR=$tools-ar
  host=$(rustc -vV | sed -n 's/^host: //p' | tr - _)
  export "CC_$host=gcc" "CXX_$host=g++" "AR_$host=ar"
fi
cargo build --locked --profile "$profile" --target "$target" -p scheduler-server
[ "$profile" = dev ] && directory=debug || directory=$profile
mkdir -p "$out"
cp "${CARGO_TARGET_DIR:-target}/$target/$directory/scheduler-server" "$out/"
