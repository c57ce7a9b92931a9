# AZR-NeMo in three images; docs/containers.md says how to build and run each.
#   cpu        slim: runs what `make demo` runs                      docker build --target cpu .
#   megatron   on NVIDIA's TensorRT-LLM release image                docker build --target megatron .
#   aligner    NeMo-Aligner 0.7.0 and what it was released with      docker build --target aligner .
# Versions of Python packages stand in pyproject.toml and requirements/, nowhere here; what else is fetched is pinned by these arguments.
ARG PYTHON_IMAGE=docker.io/library/python:3.11.14-slim-bookworm

# What pip is told, read from pyproject.toml. A layer that copies these files is made anew only when they change, not with every pyproject.toml.
FROM ${PYTHON_IMAGE} AS requirements
WORKDIR /requirements
COPY pyproject.toml docker/requirements.py ./
RUN python3 requirements.py pyproject.toml torch > torch.txt \
 && python3 requirements.py pyproject.toml megatron-core > megatron-core.txt \
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
