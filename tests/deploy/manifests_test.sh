#!/usr/bin/env bash
# The Kubernetes manifests build and are valid, and what is generated is up to date. Exit code 77:
# skipped, as something that it needs is missing.
set -euo pipefail
cd "$(dirname "$0")/../.."
command -v python3 >/dev/null || { echo "SKIPPED: there is no python3"; exit 77; }
python3 deploy/grafana/generate --check
exec python3 deploy/check
