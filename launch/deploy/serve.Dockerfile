# The server of a re-ranker, on CPUs. For GPUs add `cuda` to the extras.
#   docker build -f launch/deploy/serve.Dockerfile -t gr2-serve .
#   docker run -p 8080:8080 -v "$PWD/runs/quickstart:/run/model:ro" gr2-serve
FROM python:3.12-slim

RUN useradd --create-home --uid 10001 gr2
WORKDIR /src
COPY pyproject.toml requirements.txt README.md LICENSE ./
COPY launch launch
COPY configs configs
COPY tests/requirements.txt tests/requirements.txt
COPY gr2_jax gr2_jax
# Versions are in the requirement files.
# hadolint ignore=DL3013
RUN pip install --no-cache-dir ".[serve]"

# Compiled programs are kept in the cache.
ENV GR2_CACHE=/var/cache/gr2
RUN mkdir -p /var/cache/gr2 && chown 10001 /var/cache/gr2
USER 10001
WORKDIR /home/gr2
EXPOSE 8080
ENTRYPOINT ["gr2", "serve", "--host=0.0.0.0", "--port=8080"]
CMD ["--workdir=/run/model"]
