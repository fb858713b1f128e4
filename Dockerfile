# Debian, not Alpine: the Redis server that comes with the packages needs glibc.
FROM python:3.11-slim

RUN useradd --uid 10001 --user-group --no-create-home app \
    && install --directory --owner=app --group=app --mode=700 /data
WORKDIR /app

COPY requirements.lock ./
RUN pip install --no-cache-dir --disable-pip-version-check --require-hashes \
    --requirement requirements.lock

COPY webapp ./webapp
COPY templates ./templates
COPY static ./static
COPY lua ./lua
RUN python -m compileall -q webapp

USER 10001
# Not loopback, so a SECRET_KEY must be given at the start.
ENV HOST=0.0.0.0 \
    PORT=8000 \
    INSTANCE_PATH=/data \
    PYTHONUNBUFFERED=1
VOLUME /data
EXPOSE 8000

HEALTHCHECK --interval=10s --timeout=3s --start-period=60s CMD ["python", "-c", "\
import http.client, os, sys; \
web = http.client.HTTPConnection('127.0.0.1', int(os.environ['PORT']), timeout=2); \
web.request('GET', '/healthz'); \
sys.exit(web.getresponse().status >= 500)"]

CMD ["python", "-m", "webapp", "serve"]
