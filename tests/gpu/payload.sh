#!/usr/bin/env bash
# Packs what a machine without vLLM lacks for tests/gpu/first_device.py into three archives, .payload/1 to .payload/3, each
# below 64 MiB. Run in the repository's root, with a package index at hand; the machine is one with Python 3.12,
# torch 2.11 for CUDA 13.0 and transformers 5.17 (others: TAGS and versions below). There, with the archives beside the code:
#
#   python -m tests.gpu.first_device 1      # with .payload/1
#   python -m tests.gpu.first_device 2      # with .payload/2
#   python -m tests.gpu.first_device 3      # with .payload/3
#
# The wheel's compiled parts use torch's stable ABI, so that a somewhat older torch loads them. Kernels that this project
# does not use stay out (quantised and mixture-of-experts layers, DeepGEMM, FlashAttention 2; 3 is in, for Hopper).
set -euo pipefail
cd "$(dirname "$0")/../.."

vllm=0.32.0
packages=(
    msgspec==0.22.0 pyzmq==27.3.0 cloudpickle==3.1.2 cachetools==8.0.1 pybase64==1.5.1 blake3==1.0.11
    prometheus-client==0.26.0 pydantic==2.14.3 pydantic-core==2.50.4 annotated-types==0.8.0 typing-inspection==0.4.5
    py-cpuinfo==9.0.0 depyf==0.20.0 astor==0.8.1 dill==0.4.1 compressed-tensors==0.17.0 loguru==0.7.3 einops==0.8.2
    setproctitle==1.3.8 protobuf==7.36.2 sentencepiece==0.2.3 tiktoken==0.14.0 cbor2 aiohttp multidict attrs yarl
    propcache aiohappyeyeballs aiosignal frozenlist openai_harmony openai httpx2 uvloop xgrammar==0.2.8
    apache-tvm-ffi==0.1.11 fastapi==0.136.3 starlette annotated_doc opentelemetry-api==1.45.2 opentelemetry-sdk==1.45.2
    opentelemetry-semantic-conventions==0.66b2 opentelemetry-semantic-conventions-ai wrapt partial-json-parser
    llguidance==1.7.6 math-verify==0.9.0 latex2sympy2_extended==1.11.0 urllib3 requests
    charset-normalizer psutil sniffio pytest pluggy iniconfig
)
tags=(--python-version 3.12 --implementation cp "--only-binary=:all:")
for platform in manylinux_2_34 manylinux_2_31 manylinux_2_28 manylinux_2_27 manylinux_2_17 manylinux2014 manylinux1; do
    tags+=(--platform "${platform}_x86_64")
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
pip="${PYTHON:-python3} -m pip --disable-pip-version-check"
$pip download -q --no-deps -d "$work" "${tags[@]}" "vllm==$vllm"
mkdir -p "$work/wheel" "$work/small"
"${PYTHON:-python3}" -m zipfile -e "$work"/vllm-*.whl "$work/wheel"
tar cf - -C "$work/wheel" --exclude='*_C*.abi3.so' --exclude=vllm-rs --exclude=third_party/deep_gemm \
    --exclude=third_party/fmha_sm100 --exclude=vllm/benchmarks . | tar xf - -C "$work/small"
$pip install -q --no-deps --target "$work/small" "${tags[@]}" "${packages[@]}"

rm -rf .payload
mkdir -p .payload/1 .payload/2 .payload/3
tar czf .payload/1/python.tgz -C "$work/small" .
tar czf .payload/2/kernels.tgz -C "$work/wheel" vllm/_C_stable_libtorch.abi3.so
tar czf .payload/3/attention.tgz -C "$work/wheel" vllm/vllm_flash_attn/_vllm_fa3_C.abi3.so
find .payload -name '*.tgz' -size +64M | grep . && { echo "larger than 64 MiB" >&2; exit 1; }
du -m .payload/*/*.tgz
