# Prometheus from Debian's package, called like the image of its makers.
ARG RUNTIME_BASE=debian:bookworm-slim
FROM ${RUNTIME_BASE}
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends prometheus >/dev/null \
 && rm -rf /var/lib/apt/lists/* \
 && install -d -o prometheus -g prometheus /prometheus /etc/prometheus/targets
USER prometheus
EXPOSE 9090
VOLUME /prometheus
ENTRYPOINT ["prometheus"]
