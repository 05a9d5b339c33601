#!/usr/bin/env bash
# The same comparison as tools/parity-all for a UNet of Stable Diffusion 1.5's full size (860 million
# random parameters; about 8 GB of memory and 4 GB of disk, some minutes).
#
#   tools/python/parity/full_size.sh [PRESET]
set -euo pipefail
case ${1:-} in -h | --help) sed -n 2,5p "$0"; exit ;; esac
preset=${1:-release}
cd "$(dirname "$0")/../../.."
python=${DDPO_PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" tools/python/parity/make_random_pipelines.py --full-size "$work"
"$python" tools/python/parity/make_fixtures.py --model "$work/sd15_full" --out "$work/fixtures" --kind unet
"${DDPO_BIN:-build/$preset/bin/ddpo}" parity --model "$work/sd15_full" \
  --fixture "$work/fixtures/unet.safetensors" --fixture "$work/fixtures/unet_lora.safetensors"
