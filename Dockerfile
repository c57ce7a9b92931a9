# AZR-NeMo in three images; docs/containers.md says how to build and run each.
#   cpu        slim: runs what `make demo` runs                      docker build --target cpu .
#   megatron   on NVIDIA's TensorRT-LLM release image                docker build --target megatron .
#   aligner    NeMo-Aligner 0.7.0 and what it was released with      docker build --target aligner .
# Versions of Python packages stand in pyproject.toml and requirements/, nowhere here; what else is fetched, and the GPU packages that must go with
# NVIDIA's images, is pinned by arguments.
ARG PYTHON_IMAGE=docker.io/library/python:3.11.14-slim-bookworm
ARG TENSORRT_LLM_IMAGE=nvcr.io/nvidia/tensorrt-llm/release:1.3.0rc22
ARG PYTORCH_IMAGE=nvcr.io/nvidia/pytorch:24.07-py3

# What pip is told, read from pyproject.toml. A layer that copies these files is made anew only when they change, not with every pyproject.toml.
FROM ${PYTHON_IMAGE} AS requirements
WORKDIR /requirements
COPY pyproject.toml docker/requirements.py ./
RUN python3 requirements.py pyproject.toml torch > torch.txt \
 && python3 requirements.py --without pyproject.toml torch > without-torch.txt \
 && python3 requirements.py --without pyproject.toml torch megatron-core > without-torch-and-megatron-core.txt \
 && rm pyproject.toml requirements.py

# This package as a wheel: the only stage that sees the source.
FROM ${PYTHON_IMAGE} AS wheel
RUN python3 -m venv /opt/build
COPY requirements/container-cpu.lock /opt/build/lock.txt
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY conf conf
COPY recipes recipes
COPY launcher_scripts launcher_scripts
COPY azr_nemo azr_nemo
RUN --mount=type=cache,target=/root/.cache/pip \
    PIP_CONSTRAINT=/opt/build/lock.txt /opt/build/bin/pip wheel --quiet --no-deps --wheel-dir /dist .

FROM ${PYTHON_IMAGE} AS cpu-dependencies
# The jail's libraries and a process 1 that reaps and passes signals on; their versions are those of the base image's Debian release.
# hadolint ignore=DL3008
RUN apt-get update -q \
 && apt-get install -y -q --no-install-recommends bubblewrap libseccomp2 tini \
 && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    PIP_DISABLE_PIP_VERSION_CHECK=1
# torch first, in a layer of its own. TORCH_INDEX: PyTorch's index of CPU builds; without it pip's own index decides, where that is the CUDA
# build (the image runs as well and is 3 GB larger).
ARG TORCH_INDEX=
COPY --from=requirements /requirements/torch.txt /opt/requirements/
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --quiet --no-compile ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} -r /opt/requirements/torch.txt
COPY --from=requirements /requirements/without-torch.txt /opt/requirements/
COPY requirements/container-cpu.lock /opt/requirements/
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --quiet --no-compile -c /opt/requirements/container-cpu.lock -r /opt/requirements/without-torch.txt

FROM cpu-dependencies AS cpu
# Only the modules that a run imports are compiled: most never are.
# hadolint ignore=DL3042
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist \
    pip install --quiet --no-compile --no-deps --no-index /dist/*.whl \
 && python -W ignore -c 'import azr_nemo.trainer.loop, azr_nemo.observe.summary, transformers.models.llama.modeling_llama'
COPY docker/healthcheck.py /usr/local/lib/azr-nemo/
COPY --chmod=755 docker/demo.sh /usr/local/bin/azr-nemo-demo
# Writable by any user, so that `--user $(id -u)` works with a mounted directory of one's own.
RUN useradd --uid 1000 --user-group --create-home azr && install -d -m 1777 /runs /cache
ENV AZR_NEMO_CACHE=/cache \
    HF_HOME=/cache/huggingface \
    MPLCONFIGDIR=/cache/matplotlib \
    PYTHONUNBUFFERED=1 \
    USER=azr
USER 1000:1000
WORKDIR /runs
VOLUME ["/runs", "/cache"]
HEALTHCHECK --interval=60s --timeout=10s --start-period=30s --retries=3 \
  CMD ["python3", "-I", "-S", "/usr/local/lib/azr-nemo/healthcheck.py"]
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG PYTHON_IMAGE
LABEL org.opencontainers.image.title="AZR-NeMo (cpu)" \
      org.opencontainers.image.description="Absolute Zero self-play on the CPU: model, trainer and jailed executor" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="${PYTHON_IMAGE}"
ENTRYPOINT ["tini", "--"]
CMD ["azr-nemo-demo"]

# Not built or run on hardware yet. NVIDIA's image brings CUDA, torch, TensorRT-LLM and transformers: none of them is replaced.
FROM ${TENSORRT_LLM_IMAGE} AS megatron-dependencies
# The stage that is run ends with an ordinary user.
# hadolint ignore=DL3002
USER 0
# hadolint ignore=DL3008
RUN apt-get update -q \
 && apt-get install -y -q --no-install-recommends bubblewrap git libseccomp2 tini \
 && rm -rf /var/lib/apt/lists/*
# PIP_CONSTRAINT= : the image's own constraints are for its own build and would also hold what may be newer here, such as tensorboard.
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_BREAK_SYSTEM_PACKAGES=1 \
    PIP_CONSTRAINT=
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# What the image's GPU packages are binds every installation below: pip refuses to go on where a requirement would replace one.
RUN pip list --format=freeze \
  | grep -iE '^(torch|pytorch|triton|tensorrt|transformer|tokenizers|safetensors|numpy|nvidia|cuda|cupy|flash|onnx|ray|mpi4py|protobuf)' > /opt/image.txt
# NVIDIA's apex, of 2026-07-08 (the apex on the package index is another project), for the GPUs named here: it is compiled where there is none.
ARG APEX_COMMIT=6424da3b4faa6c8f062da4a48c424fff3f02d42d
ARG CUDA_ARCHITECTURES="8.0 9.0 10.0"
ARG MAX_JOBS=8
# hadolint ignore=DL3042
RUN --mount=type=cache,target=/root/.cache/pip \
    APEX_CPP_EXT=1 APEX_CUDA_EXT=1 TORCH_CUDA_ARCH_LIST="${CUDA_ARCHITECTURES}" MAX_JOBS="${MAX_JOBS}" \
    pip install --quiet --no-deps --no-build-isolation "apex @ git+https://github.com/NVIDIA/apex@${APEX_COMMIT}"
# TransformerEngine, where the image has none: the release that the PyTorch image under it has.
ARG TRANSFORMER_ENGINE_VERSION=2.15.0
# hadolint ignore=DL3042
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("transformer_engine") is None)' \
 || MAX_JOBS="${MAX_JOBS}" pip install --quiet --no-build-isolation -c /opt/image.txt "transformer_engine[pytorch]==${TRANSFORMER_ENGINE_VERSION}"
COPY --from=requirements /requirements/without-torch-and-megatron-core.txt /opt/requirements/
# The newest megatron-core that is supported, and not the one for Python 3.11 that pyproject.toml names: that wants TransformerEngine below 2.12.
ARG MEGATRON_CORE_VERSION=0.19.2
# hadolint ignore=DL3042
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --quiet --no-deps "megatron-core==${MEGATRON_CORE_VERSION}" \
 && pip install --quiet -c /opt/image.txt -r /opt/requirements/without-torch-and-megatron-core.txt \
 && pip list --format=freeze | grep -qxF "$(grep '^torch==' /opt/image.txt)"

FROM megatron-dependencies AS megatron
# hadolint ignore=DL3042
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist \
    pip install --quiet --no-deps --no-index /dist/*.whl
COPY docker/healthcheck.py /usr/local/lib/azr-nemo/
# An image of NVIDIA's may have a user 1000 already.
RUN (id -u 1000 >/dev/null 2>&1 || useradd --uid 1000 --user-group --create-home azr) && install -d -m 1777 /runs /cache
ENV AZR_NEMO_CACHE=/cache \
    HF_HOME=/cache/huggingface \
    MPLCONFIGDIR=/cache/matplotlib \
    TRITON_CACHE_DIR=/cache/triton \
    TORCHINDUCTOR_CACHE_DIR=/cache/inductor \
    PYTHONUNBUFFERED=1 \
    USER=azr
USER 1000:1000
WORKDIR /runs
VOLUME ["/runs", "/cache"]
HEALTHCHECK --interval=60s --timeout=10s --start-period=30s --retries=3 \
  CMD ["python3", "-I", "-S", "/usr/local/lib/azr-nemo/healthcheck.py"]
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG TENSORRT_LLM_IMAGE
LABEL org.opencontainers.image.title="AZR-NeMo (megatron)" \
      org.opencontainers.image.description="Absolute Zero self-play with megatron-core and TensorRT-LLM rollouts" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="${TENSORRT_LLM_IMAGE}"
ENTRYPOINT ["tini", "--"]
CMD ["azr-nemo", "doctor"]

# Not built or run on hardware yet. The pins of NeMo-Aligner 0.7.0's own image, with one difference: that image has Python 3.10, this package
# needs 3.11. So Python 3.11 and the torch release of that time are put beside the image's own, and NVIDIA's toolchain compiles against them.
FROM ${PYTORCH_IMAGE} AS aligner-dependencies
# The stage that is run ends with an ordinary user.
# hadolint ignore=DL3002
USER 0
# hadolint ignore=DL3008
RUN apt-get update -q \
 && apt-get install -y -q --no-install-recommends bubblewrap git git-lfs libseccomp2 patch tini \
 && rm -rf /var/lib/apt/lists/*
# PIP_CONSTRAINT= : the image's own constraints are for its own Python.
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_CONSTRAINT= \
    UV_PYTHON_INSTALL_DIR=/opt/python \
    PATH=/opt/venv/bin:$PATH
ARG UV_VERSION=0.11.28
ARG PYTHON_VERSION=3.11.14
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --quiet "uv==${UV_VERSION}" \
 && uv venv --seed --python "${PYTHON_VERSION}" --python-preference only-managed /opt/venv
ARG TORCH_VERSION=2.4.1
# hadolint ignore=DL3042
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --quiet "torch==${TORCH_VERSION}" setuptools==80.9.0 wheel==0.45.1 ninja==1.13.0 pybind11==2.13.6 cmake==3.31.6
# TensorRT-LLM from source, with the patch by which NeMo-Aligner refits engines: an hour on 32 cores.
ARG TENSORRT_LLM_TAG=v0.13.0
ARG NEMO_ALIGNER_TAG=v0.7.0
WORKDIR /opt
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
RUN git clone --depth 1 --branch "${NEMO_ALIGNER_TAG}" https://github.com/NVIDIA/NeMo-Aligner.git \
 && git clone --depth 1 --branch "${TENSORRT_LLM_TAG}" --recurse-submodules --shallow-submodules https://github.com/NVIDIA/TensorRT-LLM.git
WORKDIR /opt/TensorRT-LLM
# hadolint ignore=DL3042,SC1091
RUN --mount=type=cache,target=/root/.cache/pip \
    git lfs pull \
 && . docker/common/install_tensorrt.sh \
 && python3 scripts/build_wheel.py --job_count "$(nproc)" --trt_root /usr/local/tensorrt --python_bindings --clean \
 && patch -p1 < ../NeMo-Aligner/setup/trtllm.patch \
 && pip install --quiet --no-deps -e .
ENV LD_LIBRARY_PATH=$LD_LIBRARY_PATH:/usr/local/cuda-12/compat/lib.real/
# TransformerEngine of the image's recipe.
ARG TRANSFORMER_ENGINE_COMMIT=7d576ed25266a17a7b651f2c12e8498f67e0baea
ARG MAX_JOBS=8
# hadolint ignore=DL3042
RUN --mount=type=cache,target=/root/.cache/pip \
    NVTE_FRAMEWORK=pytorch NVTE_WITH_USERBUFFERS=1 MPI_HOME=/usr/local/mpi MAX_JOBS="${MAX_JOBS}" \
    pip install --quiet --no-build-isolation "transformer_engine @ git+https://github.com/NVIDIA/TransformerEngine@${TRANSFORMER_ENGINE_COMMIT}"
# NeMo 2.1.0, megatron-core 0.10.0, nemo-aligner 0.7.0 and all else in the versions that the tests of this engine run with.
COPY requirements/aligner-cpu.lock /opt/requirements/
ARG PYTRITON_VERSION=0.5.10
ARG PROTOBUF_VERSION=4.24.4
ARG PYNVML_VERSION=11.5.3
# hadolint ignore=DL3042
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --quiet --no-deps -r /opt/requirements/aligner-cpu.lock \
 && pip uninstall --yes nvidia-ml-py \
 && pip install --quiet --no-deps "nvidia-pytriton==${PYTRITON_VERSION}" "protobuf==${PROTOBUF_VERSION}" "pynvml==${PYNVML_VERSION}"
# The one change to NeMo that the recipe takes from a pull request (11497): names of weights in an export of a NeMo model.
ARG NEMO_COMMIT=633cb602777bffefbe12066b0c915c87e7b469e9
ARG NEMO_CHANGE=d27dd28b4186f6ecd9f46f1c5679a5eef9bad14e
WORKDIR /opt/NeMo
# hadolint ignore=DL3042
RUN --mount=type=cache,target=/root/.cache/pip \
    git clone --filter=blob:none https://github.com/NVIDIA/NeMo.git . \
 && git config user.email azr@localhost && git config user.name azr \
 && git checkout --quiet "${NEMO_COMMIT}" \
 && git fetch --quiet origin "${NEMO_CHANGE}" \
 && git cherry-pick --allow-empty "$(git merge-base origin/main FETCH_HEAD)..FETCH_HEAD" \
 && pip install --quiet --no-deps --force-reinstall .

FROM aligner-dependencies AS aligner
# hadolint ignore=DL3042
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist \
    pip install --quiet --no-deps --no-index /dist/*.whl
COPY docker/healthcheck.py /usr/local/lib/azr-nemo/
RUN (id -u 1000 >/dev/null 2>&1 || useradd --uid 1000 --user-group --create-home azr) && install -d -m 1777 /runs /cache
ENV AZR_NEMO_CACHE=/cache \
    HF_HOME=/cache/huggingface \
    MPLCONFIGDIR=/cache/matplotlib \
    TRITON_CACHE_DIR=/cache/triton \
    TORCHINDUCTOR_CACHE_DIR=/cache/inductor \
    PYTHONUNBUFFERED=1 \
    USER=azr
USER 1000:1000
WORKDIR /runs
VOLUME ["/runs", "/cache"]
HEALTHCHECK --interval=60s --timeout=10s --start-period=30s --retries=3 \
  CMD ["python3", "-I", "-S", "/usr/local/lib/azr-nemo/healthcheck.py"]
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG PYTORCH_IMAGE
LABEL org.opencontainers.image.title="AZR-NeMo (aligner)" \
      org.opencontainers.image.description="Absolute Zero self-play with NeMo-Aligner 0.7.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="${PYTORCH_IMAGE}"
ENTRYPOINT ["tini", "--"]
CMD ["azr-nemo", "--help"]
