# Sourced by tools/build: installs what Debian 12 and Ubuntu 24.04 package for the build.

ddpo_packages=(
  build-essential cmake ninja-build ccache pkg-config git ca-certificates unzip python3 python3-pip
  libgrpc++-dev protobuf-compiler protobuf-compiler-grpc libprotobuf-dev libabsl-dev libgloo-dev
  prometheus-cpp-dev libjpeg-dev libpng-dev libyaml-cpp-dev nlohmann-json3-dev libcli11-dev
  libsqlite3-dev libspdlog-dev libssl-dev libcurl4-openssl-dev libicu-dev zlib1g-dev
  libgtest-dev libgmock-dev libbenchmark-dev python3-grpcio python3-protobuf
)

# Prints those of the packages that are not installed. A program or library that was installed some
# other way (a newer CMake, a pip of one's own) counts where the build only needs the command.
ddpo_missing_packages() {
  local package
  for package in "${ddpo_packages[@]}"; do
    case $package in
      cmake | ccache | git | unzip | python3) command -v "$package" >/dev/null && continue ;;
      ninja-build) command -v ninja >/dev/null && continue ;;
      python3-pip) python3 -m pip --version >/dev/null 2>&1 && continue ;;
      python3-grpcio) python3 -c 'import grpc' 2>/dev/null && continue ;;
      python3-protobuf) python3 -c 'import google.protobuf' 2>/dev/null && continue ;;
      build-essential) command -v g++ >/dev/null && command -v make >/dev/null && continue ;;
    esac
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' ||
      echo "$package"
  done
}

ddpo_install_packages() {
  local missing as_root=()
  mapfile -t missing < <(ddpo_missing_packages)
  [ ${#missing[@]} -gt 0 ] || return 0
  if [ "$(id -u)" -ne 0 ]; then
    if command -v sudo >/dev/null; then
      as_root=(sudo)
    else
      echo "These packages are missing, and installing them needs root:" >&2
      echo "  apt-get install ${missing[*]}" >&2
      return 1
    fi
  fi
  echo "== Installing ${#missing[@]} packages: ${missing[*]}"
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
    --no-install-recommends "${missing[@]}" >/dev/null
}
