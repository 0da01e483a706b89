# Serves a Control LLM checkpoint, the demo by default. Two variants of one image, on CPUs and on NVIDIA GPUs:
#   docker build -t control-llm .
#   docker build -t control-llm:gpu --build-arg VARIANT=gpu .
# vLLM's processes share memory, more than the 64 MiB that engines give:
#   docker run --shm-size 1g -p 8000:8000 -p 7860:7860 control-llm

FROM python:3.11-slim-bookworm AS build
ARG VARIANT=cpu
# Where the CPU build of torch comes from if the configured package index does not have it.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/opt/venv/bin:$PATH
WORKDIR /src
RUN python3 -m venv /opt/venv
COPY requirements-cpu.lock requirements-gpu.lock ./
# The environment before the code: a change of the code does not install it again.
# The versions stand in the lock:
# hadolint ignore=DL3013
RUN case "$VARIANT" in cpu | gpu) ;; *) echo "VARIANT: '$VARIANT' is not one of cpu, gpu" >&2; exit 2 ;; esac \
 && lock="requirements-$VARIANT.lock" && torch=$(grep '^torch==' "$lock") \
 && { pip install -q --no-deps "$torch" || pip install -q --no-deps --index-url "$TORCH_INDEX" "$torch"; } \
 && pip install -q --no-deps -r "$lock"
COPY . .
RUN pip install -q --no-deps --no-build-isolation .

FROM python:3.11-slim-bookworm
# libnuma1: vLLM's CPU build. g++: what compiled mode calls.
# Debian keeps no old versions to pin:
# hadolint ignore=DL3008
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends g++ libnuma1 >/dev/null \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/venv /opt/venv

# Any uid may run it, as group 0: one without a passwd entry has no name and no home, and libraries ask for both.
RUN useradd --uid 1000 --gid 0 --create-home app \
 && mkdir -p /home/app/.cache /models \
 && chmod -R g=u /home/app /models
# The demo checkpoint under a short name, from which its model id is made.
RUN demo=$(/opt/venv/bin/python -c 'import demo; print(demo.__path__[0])') \
 && mv "$demo/model" /opt/demo && ln -s /opt/demo "$demo/model" && cp "$demo/report.json" /opt/demo/
ENV PATH=/opt/venv/bin:$PATH HOME=/home/app USER=app HF_HUB_OFFLINE=1 \
    CLLM_HOST=0.0.0.0 CLLM_UI_HOST=0.0.0.0 \
    VLLM_CACHE_ROOT=/home/app/.cache/vllm TORCHINDUCTOR_CACHE_DIR=/home/app/.cache/torchinductor \
    TRITON_CACHE_DIR=/home/app/.cache/triton
USER 1000
WORKDIR /home/app
VOLUME ["/models", "/home/app/.cache"]

EXPOSE 8000 7860
# Ready means that the engine has answered. Loading a large model takes minutes, in which failures do not count; a
# server that cannot start exits.
HEALTHCHECK --start-period=30m --interval=10s --timeout=6s \
  CMD ["python3", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ.get(\"CLLM_PORT\", 8000)}/ready', timeout=5)"]
ENTRYPOINT ["cllm"]
CMD ["demo"]
