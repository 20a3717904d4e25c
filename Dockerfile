# syntax=docker/dockerfile:1
# One image a service: docker build --target watcher | worker | searchsvc | model_service .
# Only model_service carries torch. Every dependency is the one that requirements.lock names, checked by its hash.

ARG PYTHON_IMAGE=python:3.11-slim-bookworm

# --- what installs: stays out of the images that run ------------------------------------------------------------------

FROM ${PYTHON_IMAGE} AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy
RUN pip install --no-cache-dir uv==0.13.8 && python -m venv --without-pip /opt/venv
WORKDIR /build
COPY pyproject.toml requirements.lock README.md LICENSE ./
RUN --mount=type=cache,target=/root/.cache/uv \
    uv pip install --python /opt/venv -r pyproject.toml --constraint requirements.lock --require-hashes

# What speaks to PostgreSQL, to a broker and to a bucket, 40 MB in all. The images of three services share the layer.
FROM builder AS service_builder
RUN --mount=type=cache,target=/root/.cache/uv \
    uv pip install --python /opt/venv -r pyproject.toml --extra postgres --extra queue --extra s3 \
    --constraint requirements.lock --require-hashes

FROM builder AS model_builder
RUN --mount=type=cache,target=/root/.cache/uv \
    uv pip install --python /opt/venv -r pyproject.toml --extra model --constraint requirements.lock --require-hashes

FROM builder AS distribution
COPY core core
COPY watcher watcher
COPY searchsvc searchsvc
COPY model_service model_service
COPY standalone standalone
RUN --mount=type=cache,target=/root/.cache/uv \
    uv build --wheel --out-dir /dist .

FROM service_builder AS service_venv
RUN --mount=type=bind,from=distribution,source=/dist,target=/dist \
    uv pip install --python /opt/venv --no-deps --no-cache /dist/*.whl

FROM model_builder AS model_venv
RUN --mount=type=bind,from=distribution,source=/dist,target=/dist \
    uv pip install --python /opt/venv --no-deps --no-cache /dist/*.whl

# --- what runs --------------------------------------------------------------------------------------------------------

FROM ${PYTHON_IMAGE} AS runtime
# The id that owns the watched folder on most hosts with one user; build with another one where it is not yours.
ARG APP_UID=1000
ARG APP_GID=1000
RUN groupadd --gid ${APP_GID} app \
    && useradd --uid ${APP_UID} --gid ${APP_GID} --home-dir /home/app --create-home --shell /usr/sbin/nologin app \
    && install --directory --owner=app --group=app /data /images /models
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/home/app \
    HOST=0.0.0.0 \
    IMAGES_DIR=/images \
    DATA_DIR=/data \
    MODELS_DIR=/models
WORKDIR /home/app
STOPSIGNAL SIGTERM

FROM runtime AS watcher
COPY --from=service_venv /opt/venv /opt/venv
ENV PORT=8002
USER app
VOLUME /data
EXPOSE 8002
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import http.client as h, os, sys; c = h.HTTPConnection('127.0.0.1', int(os.environ['PORT']), timeout=4); c.request('GET', '/health/live'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["python", "-m", "watcher"]

# Needs BROKER_URL, DATABASE_URL and QDRANT_URL; DATA_DIR is a cache alone.
FROM runtime AS worker
COPY --from=service_venv /opt/venv /opt/venv
ENV PORT=8003
USER app
VOLUME /data
EXPOSE 8003
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import http.client as h, os, sys; c = h.HTTPConnection('127.0.0.1', int(os.environ['PORT']), timeout=4); c.request('GET', '/health/live'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["python", "-m", "watcher.queue"]

FROM runtime AS searchsvc
COPY --from=service_venv /opt/venv /opt/venv
ENV PORT=3000
USER app
VOLUME /data
EXPOSE 3000
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import http.client as h, os, sys; c = h.HTTPConnection('127.0.0.1', int(os.environ['PORT']), timeout=4); c.request('GET', '/health/live'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["python", "-m", "searchsvc"]

FROM runtime AS model_service
COPY --from=model_venv /opt/venv /opt/venv
ENV PORT=8001
USER app
VOLUME /models
EXPOSE 8001
# Alive is enough: while weights are loaded or missing it answers, and says so at /health/ready.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import http.client as h, os, sys; c = h.HTTPConnection('127.0.0.1', int(os.environ['PORT']), timeout=4); c.request('GET', '/health/live'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["python", "-m", "model_service"]
