#!/usr/bin/env bash
# The main job on real data, on this machine: 327,346 flights, trained on January to August, judged on September.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash scripts/setup.sh demo
data=.cache/demo/flights.csv
[ -f "$data" ] || .venv/bin/kfp-hybrid demo-data "$data"
.venv/bin/kfp-hybrid run train_and_publish --parameters scripts/demo.json "$@"
.venv/bin/kfp-hybrid versions .cache/demo/models
