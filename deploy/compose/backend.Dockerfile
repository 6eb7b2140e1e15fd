# The backend of the demo, for compose.yaml.
FROM node:22-bookworm-slim AS phoenix
WORKDIR /src
COPY deploy/demo/package.json deploy/demo/package-lock.json deploy/demo/.npmrc ./
RUN npm ci

FROM python:3.11.14-slim-bookworm
WORKDIR /src
COPY requirements/dev.txt requirements/
RUN pip install --no-cache-dir --disable-pip-version-check -c requirements/dev.txt \
    aiohttp PyJWT standardwebhooks \
    && mkdir /data && chown 10001:10001 /data
COPY deploy/demo deploy/demo
COPY --from=phoenix /src/node_modules deploy/demo/node_modules
USER 10001:10001
EXPOSE 4080
CMD ["sh", "-c", "python -c 'from pathlib import Path; from deploy.demo.store import Store; Store(Path(\"/data/demo.sqlite3\")).create()' && exec python -m deploy.demo.backend"]
