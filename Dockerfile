FROM python:3.11-slim AS build
WORKDIR /src
RUN python -m venv /venv
COPY requirements/runtime.txt requirements/
RUN /venv/bin/pip install --no-cache-dir --disable-pip-version-check -r requirements/runtime.txt
COPY pyproject.toml README.md LICENSE ./
COPY gateway gateway
RUN /venv/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps .

FROM python:3.11-slim
# An init takes signals from the first moment on; Python, as process 1, would miss those before its handlers are set.
RUN apt-get update && apt-get install -y --no-install-recommends tini && rm -rf /var/lib/apt/lists/*
RUN useradd --system --uid 10001 --no-create-home gateway
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    GATEWAY_SERVER__INTERNAL=0.0.0.0:4001
USER gateway
# The internal listener (4001) is for backends and Prometheus: never publish it.
EXPOSE 4000
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD \
    ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:4001/livez', timeout=2)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["tini", "--", "gateway"]
CMD ["serve"]
