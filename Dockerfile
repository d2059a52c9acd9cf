# Sidekey in a container: one binary, no shell, no root.
#
#     docker build -t sidekey .
#     docker run --read-only --cap-drop ALL --stop-timeout 15 -p 8080:8080 -p 127.0.0.1:8081:8081 \
#         -v sidekey-data:/var/lib/sidekey/data \
#         -v "$PWD/sidekey.toml:/etc/sidekey/sidekey.toml:ro" sidekey
#
# --stop-timeout is longer than proxy.shutdown_notice_seconds (0) and proxy.shutdown_seconds (10)
# together, which a stop may take. deploy/ has more than one container.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
# Before the sources, so that the layer outlives their changes.
COPY tools/setup tools/setup
RUN ["bash", "tools/setup", "run"]
COPY . .
# The base below has some 26 MB, so a binary of this size keeps the image under 60 MB.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked \
    && install -D target/release/sidekey /image/sidekey \
    && test "$(stat -c %s /image/sidekey)" -le 33000000
# Loopback in here is the container's own, so the image's config listens on all
# its addresses. A config that is mounted over this one is taken as it is.
RUN sed 's/127\.0\.0\.1:\(8080\|8081\)/0.0.0.0:\1/' config/sidekey.toml > /image/sidekey.toml \
    && grep -q '^[^#]*0\.0\.0\.0:8080' /image/sidekey.toml \
    && grep -q '^[^#]*0\.0\.0\.0:8081' /image/sidekey.toml \
    && /image/sidekey check --config /image/sidekey.toml \
    && install -d -m 0700 /image/var/data

# glibc as in the build stage, CA certificates for https upstreams, user 65532.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /image/sidekey /usr/local/bin/sidekey
COPY --from=build /image/sidekey.toml /etc/sidekey/sidekey.toml
# data/ holds the store and the bootstrap key, and is all that is written to.
COPY --from=build --chown=65532:65532 /image/var /var/lib/sidekey
USER 65532:65532
# The sample config keeps its data in data/, relative to this.
WORKDIR /var/lib/sidekey
VOLUME ["/var/lib/sidekey/data"]
# SQLite sorts what is large in files, and there is no other place for them.
ENV SQLITE_TMPDIR=/var/lib/sidekey/data
EXPOSE 8080 8081
# Whether the process is alive, and no more: a store that is away is no reason to start Sidekey again.
# Of a config in another place say where: --health-cmd, or healthcheck in a compose file.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["/usr/local/bin/sidekey", "health", "--config", "/etc/sidekey/sidekey.toml"]
ENTRYPOINT ["/usr/local/bin/sidekey"]
CMD ["serve", "--config", "/etc/sidekey/sidekey.toml"]
