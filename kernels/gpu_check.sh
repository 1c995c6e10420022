#!/usr/bin/env bash
# Checks the CUDA kernels on a machine with a GPU, in under ten minutes, and writes one JSON.
#
#     kernels/gpu_check.sh [gpu_check.json]
#
# Needs: a GPU of compute capability 8.0 or newer, nvcc, cmake, ninja, compute-sanitizer, and a Python with
# onnxruntime-gpu, onnx, numpy, ml_dtypes (PYTHON names another than .venv/bin/python).
#
# Nobody of the project has run this on hardware yet; only `--dry-run`, which runs the correctness part on the
# emulator. A result is welcome: open an issue or a pull request that adds the JSON under benchmarks/gpu_results/.
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
cmake -S kernels -B "$work/build" -G Ninja -DONNXQ_CUDA=ON -DONNXQ_CUDA_ARCHITECTURES="$capability" > "$work/cmake.log"
cmake --build "$work/build" >> "$work/cmake.log"
export ONNXQ_TEST_LIBRARY=$PWD/$work/build/libonnxq_ops.so ONNXQ_TEST_ARCHITECTURE=$capability

# Each part keeps going when one fails: the JSON is to say what works and what does not.
part() {
  local name=$1
  shift
  echo "gpu_check: $name"
  if timeout 240 "$@" > "$work/$name.log" 2>&1; then echo passed > "$work/$name.status"; else echo failed > "$work/$name.status"; fi
}
part correctness "$python" kernels/testing/gpu_check.py correctness "$work/correctness.json"
part memcheck compute-sanitizer --tool memcheck --error-exitcode 1 "$python" kernels/testing/gpu_check.py correctness
part racecheck compute-sanitizer --tool racecheck --error-exitcode 1 "$python" kernels/testing/gpu_check.py correctness
part session "$python" kernels/testing/gpu_check.py session "$work/session.json" --seconds 180

"$python" - "$work" "$output" <<'PY'
import json, pathlib, sys
work, output = map(pathlib.Path, sys.argv[1:])
read = lambda name: json.loads((work / name).read_text()) if (work / name).exists() else None
status = {p.stem: p.read_text().strip() for p in sorted(work.glob("*.status"))}
output.write_text(json.dumps({"status": status, "correctness": read("correctness.json"), **(read("session.json") or {})}, indent=1) + "\n")
print(f"gpu_check: {status} -> {output}")
sys.exit(any(v != "passed" for v in status.values()))
PY
