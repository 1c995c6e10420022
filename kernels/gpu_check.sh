#!/usr/bin/env bash
# Checks the CUDA kernels on a machine with a GPU, in under ten minutes, and writes one JSON.
#
#     kernels/gpu_check.sh [gpu_check.json]
#
# Needs: a GPU of compute capability 8.0 or newer, nvcc, cmake, ninja, compute-sanitizer, and a Python with
# onnxruntime-gpu, onnx, numpy, ml_dtypes (PYTHON names another than .venv/bin/python).
#
# Nobody of the project has run this on hardware yet; only `--dry-run`, which runs the correctness part on the
# emulator. A result is welcome: kernels/cuda/README.md says how to contribute it.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}

if [ "${1:-}" = "--dry-run" ]; then
  exec "$python" kernels/testing/gpu_check.py correctness
fi
output=${1:-gpu_check.json}
work=build/gpu_check
mkdir -p "$work"

missing=0
for tool in nvcc cmake ninja compute-sanitizer nvidia-smi; do
  command -v "$tool" > /dev/null || { echo "gpu_check: $tool not found" >&2; missing=1; }
done
[ "$missing" = 0 ] || exit 2

capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1 | tr -d .)
echo "gpu_check: building for sm_$capability"
timeout 30 cmake -S kernels -B "$work/build" -G Ninja -DONNXQ_CUDA=ON -DONNXQ_CUDA_ARCHITECTURES="$capability" > "$work/cmake.log"
timeout 90 cmake --build "$work/build" >> "$work/cmake.log"
export ONNXQ_TEST_LIBRARY=$PWD/$work/build/libonnxq_ops.so ONNXQ_TEST_ARCHITECTURE=$capability

# Each part keeps going when one fails: the JSON is to say what works and what does not. The limits add up to under ten
# minutes with the build above.
rm -f "$work"/*.status "$work"/*.json
part() {
  local name=$1 limit=$2
  shift 2
  echo "gpu_check: $name"
  if timeout "$limit" "$@" > "$work/$name.log" 2>&1; then echo passed > "$work/$name.status"; else echo failed > "$work/$name.status"; fi
}
check=kernels/testing/gpu_check.py
sanitizer=(compute-sanitizer --error-exitcode 1 --tool)
part build 110 "$python" $check build
part correctness 60 "$python" $check correctness "$work/correctness.json"
part memcheck 60 "${sanitizer[@]}" memcheck "$python" $check sanitizer
part racecheck 90 "${sanitizer[@]}" racecheck "$python" $check sanitizer
part session 150 "$python" $check session "$work/session.json" --seconds 110

"$python" - "$work" "$output" <<'PY'
import json, pathlib, sys
work, output = map(pathlib.Path, sys.argv[1:])
read = lambda name: json.loads((work / name).read_text()) if (work / name).exists() else None
status = {p.stem: p.read_text().strip() for p in sorted(work.glob("*.status"))}
output.write_text(json.dumps({"status": status, "correctness": read("correctness.json"), **(read("session.json") or {})}, indent=1) + "\n")
print(f"gpu_check: {status} -> {output}")
sys.exit(any(v != "passed" for v in status.values()))
PY
