#!/usr/bin/env bash
# promtool's own checks of deploy/prometheus and the tests of its rules. Exit code 77: skipped.
set -euo pipefail
cd "$(dirname "$0")/../../deploy/prometheus"
if ! command -v promtool >/dev/null; then
  echo "SKIPPED: there is no promtool (Debian and Ubuntu package it as prometheus)"
  exit 77
fi
promtool check config --syntax-only prometheus.yml
promtool check rules rules/*.yml
promtool test rules tests/*.yml
