# Asterisk with the configuration in asterisk/. Build from the top of the repository:
#   docker build -f deploy/asterisk.Dockerfile -t ari-gemini-asterisk .
# Debian's stable releases carry no Asterisk; testing does.

FROM debian:testing-slim
# The user exists before the package does, so that its number is known to compose.yaml.
RUN groupadd --system --gid 5060 asterisk \
 && useradd --system --uid 5060 --gid asterisk --home-dir /var/lib/asterisk --shell /usr/sbin/nologin asterisk \
 && apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends asterisk \
 && rm -rf /var/lib/apt/lists/* \
 && find /etc/asterisk -mindepth 1 ! -name indications.conf -delete \
 && chmod 0644 /etc/asterisk/indications.conf \
 && mkdir -p /etc/asterisk/site /run/asterisk \
 && ln -s /run/asterisk/local /etc/asterisk/local \
 && chown -R asterisk:asterisk /run/asterisk /var/lib/asterisk /var/spool/asterisk /var/log/asterisk

# Beside the package's tones, which callers hear while they wait.
COPY asterisk/*.conf /etc/asterisk/
COPY deploy/asterisk-entrypoint.sh /usr/local/bin/asterisk-entrypoint

USER asterisk
WORKDIR /var/lib/asterisk
# SIP, and the callers' sound. ARI (8088) is for the service alone.
EXPOSE 5060/udp 10000-10199/udp
# Asterisk takes it as "stop now": every channel hangs up.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 \
  CMD ["asterisk", "-rx", "core waitfullybooted"]
ENTRYPOINT ["asterisk-entrypoint"]
CMD ["asterisk", "-f", "-n"]
