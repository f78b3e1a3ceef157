# One image for the five services and the MQTT bridge; docker-compose.yml says which one a container runs.
FROM python:3.13.9-slim-bookworm

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1

# A user of its own: nothing in here needs root, nothing is written but to /tmp.
RUN useradd --system --create-home --uid 10001 iot
WORKDIR /app

# Before the code: a change of code leaves the installed packages as they are.
COPY requirements.txt requirements-mqtt.txt ./
RUN pip install --no-cache-dir --disable-pip-version-check -r requirements.txt \
    -r requirements-mqtt.txt

COPY config.py producer.py consumer.py stream_processor.py ml_detector.py dashboard.py ./
COPY pipeline pipeline
COPY broker broker
COPY db db
COPY service service
COPY simulator simulator
COPY bridges bridges
COPY dashboard_tabs dashboard_tabs
COPY .streamlit .streamlit

USER iot
# Overridden for each service.
CMD ["python", "consumer.py", "--help"]
