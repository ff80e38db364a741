# The program on a small image: no shell's worth of extras, no root.
FROM rust:1.95-bookworm AS build
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY src src
COPY migrations migrations
COPY config config
RUN cargo build --release --locked && strip target/release/headroom

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates curl \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home headroom
COPY --from=build /build/target/release/headroom /usr/local/bin/headroom
USER 10001
EXPOSE 8080 9464
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s CMD curl -fsS http://127.0.0.1:9464/health/live
ENTRYPOINT ["headroom"]
CMD ["run"]
