# Another base or its digest: --build-arg BASE=python:3.11-slim-bookworm@sha256:…
ARG BASE=python:3.11.14-slim-bookworm

FROM ${BASE} AS build
WORKDIR /src
# pip stays outside of what is copied into the image
RUN python -m venv --without-pip /venv
COPY requirements/runtime.txt requirements/
RUN pip --python /venv/bin/python install --no-cache-dir --disable-pip-version-check -r requirements/runtime.txt
COPY pyproject.toml README.md LICENSE ./
COPY gateway gateway
RUN pip --python /venv/bin/python install --no-cache-dir --disable-pip-version-check --no-deps .

FROM ${BASE}
# An init takes signals from the first moment on; Python, as process 1, would miss those before its handlers are set.
# Its version is Debian's of the base: one written here would be gone from the mirrors with the next update.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/*
COPY deploy/image/healthcheck /usr/local/bin/healthcheck
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    GATEWAY_SERVER__INTERNAL=0.0.0.0:4001
# A number, so that Kubernetes can see that it is not root; no entry in /etc/passwd is needed for it.
USER 10001:10001
# The internal listener (4001) is for backends and Prometheus: never publish it.
EXPOSE 4000
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["healthcheck"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["tini", "--", "gateway"]
CMD ["serve"]
