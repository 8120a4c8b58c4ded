# What to compile for, of TARGETARCH as docker names it. To be sourced.
case "${TARGETARCH:?amd64 or arm64}" in
  amd64) machine=x86_64 ;;
  arm64) machine=aarch64 ;;
  *) echo "TARGETARCH is $TARGETARCH; there are images for amd64 and arm64" >&2; exit 1 ;;
esac
MUSL=$machine-unknown-linux-musl
GNU=$machine-unknown-linux-gnu
CROSS_PACKAGES=
if [ "$(uname -m)" != "$machine" ]; then
  CROSS_PACKAGES="gcc-$(echo $machine | tr _ -)-linux-gnu g++-$(echo $machine | tr _ -)-linux-gnu libc6-dev-$TARGETARCH-cross"
fi
