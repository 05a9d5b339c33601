# Sourced by tools/build: LibTorch from its PyPI wheel, unpacked once into the user's cache folder.
# LIBTORCH_DIR, if set, is used as it is.

ddpo_torch_version=2.15.0

# Wheel and SHA-256 of each file that is fetched. The CUDA runtime and CUPTI are loaded by
# libtorch_cpu.so itself; nothing else of CUDA is needed without a GPU.
ddpo_torch_wheels=(
  "torch==2.15.0 manylinux_2_28_x86_64 48c2d861134c0b5697c7602cb5ffa68f62a2989fdcd1717e593356f67996ca1e"
  "nvidia-cuda-runtime==13.2.86 manylinux2014_x86_64 3498247680dfddce31bad102af7e3e26fc795342a3cac64722bb0fa95e7f60f0"
  "nvidia-cuda-cupti==13.2.86 manylinux_2_25_x86_64 8fa29f15dd8336181f961764d9d95236fc6b931dd0c8fcf8cd70aab0c310b586"
)
# What libtorch_cuda.so loads beyond a CUDA 13 toolkit with cuDNN and NCCL.
ddpo_torch_cuda_wheels=(
  "nvidia-cufile==1.17.1.22 manylinux_2_27_x86_64 87feaf8c3ad20d3d03a01933181801ff6892bace5c8f0b1e4b48f319d3e62d36"
  "nvidia-cusparselt-cu13==0.8.1 manylinux2014_x86_64 786ce87568c303fadb5afcc7102d454cd3040d75f6f8626f5db460d1871f4dd0"
  "nvidia-nvshmem-cu13==3.7.2 manylinux2014_x86_64 b9a4f843c62b5dded8ad33fd6d220e007dcd39f06cee549292f5ba14ce4c235c"
)

# Downloads one wheel into a folder and checks it. Arguments: requirement, platform, SHA-256, folder.
ddpo_fetch_wheel() {
  local requirement=$1 platform=$2 sha256=$3 folder=$4 wheel
  mkdir -p "$folder"
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
    --python-version 3.11 --implementation cp --platform "$platform" --dest "$folder" "$requirement"
  wheel=$(ls "$folder"/*.whl)
  if ! echo "$sha256  $wheel" | sha256sum --check --quiet; then
    echo "$requirement: the downloaded wheel does not have the pinned checksum $sha256" >&2
    rm -f "$wheel"
    return 1
  fi
}

# Sets LIBTORCH_DIR. Argument: cpu, or cuda for torch_cuda as well.
ddpo_install_libtorch() {
  local flavour=$1 root work entry requirement platform sha256
  local wheels=("${ddpo_torch_wheels[@]}")
  [ "$flavour" = cuda ] && wheels+=("${ddpo_torch_cuda_wheels[@]}")
  if [ -n "${LIBTORCH_DIR:-}" ]; then
    if [ ! -f "$LIBTORCH_DIR/include/ATen/ATen.h" ] || [ ! -f "$LIBTORCH_DIR/lib/libtorch_cpu.so" ]; then
      echo "LIBTORCH_DIR=$LIBTORCH_DIR holds no include/ATen/ATen.h and lib/libtorch_cpu.so" >&2
      return 1
    fi
    return 0
  fi
  if [ "$(uname -m)" != x86_64 ]; then
    echo "No LibTorch wheel is pinned for $(uname -m): set LIBTORCH_DIR to a LibTorch 2.x" >&2
    return 1
  fi
  root=${XDG_CACHE_HOME:-$HOME/.cache}/ddpo/libtorch-$ddpo_torch_version
  export LIBTORCH_DIR=$root/torch
  [ -f "$root/.complete-$flavour" ] && return 0
  echo "== Fetching LibTorch $ddpo_torch_version (about 540 MB) into $root"
  mkdir -p "$root"
  work=$(mktemp -d "$root/download.XXXXXX")
  for entry in "${wheels[@]}"; do
    read -r requirement platform sha256 <<<"$entry"
    echo "   $requirement"
    if ! ddpo_fetch_wheel "$requirement" "$platform" "$sha256" "$work/wheel"; then
      rm -rf "$work"
      return 1
    fi
    case $requirement in
      torch==*)
        local excluded=('*libtorch_python*')
        [ "$flavour" = cuda ] || excluded+=('*_cuda*.so' '*nvshmem*')
        unzip -q -o "$work/wheel/"*.whl 'torch/lib/*' 'torch/include/*' -x "${excluded[@]}" -d "$work"
        ;;
      *)
        # One of the names is in each wheel; unzip says 11 about the others.
        unzip -q -o -j "$work/wheel/"*.whl '*/libcudart.so.13' '*/libcupti.so.13' '*/libcufile.so.0' \
          '*/libcusparseLt.so.0' '*/libnvshmem_host.so.3' -d "$work/torch/lib" 2>/dev/null || [ $? -eq 11 ]
        ;;
    esac
    rm -rf "$work/wheel"
  done
  rm -rf "$root/torch"
  mv "$work/torch" "$root/torch"
  rmdir "$work"
  touch "$root/.complete-cpu" "$root/.complete-$flavour"
}
