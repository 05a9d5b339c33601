#!/usr/bin/env bash
# The Kubernetes manifests build and are valid, and what is generated is up to date. Exit code 77:
# skipped, as something that it needs is missing.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${DDPO_CHECK_PYTHON:-python3}
command -v "$python" >/dev/null || { echo "SKIPPED: there is no $python"; exit 77; }
"$python" deploy/grafana/generate --check
exec "$python" deploy/check
