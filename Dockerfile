# Milena in an image of nothing but one static binary.
#
#   docker build -t milena .
#   docker run -p 9092:9092 milena
#
# Settings are given as in Kafka's own images: KAFKA_NUM_PARTITIONS=6, KAFKA_ADVERTISED_LISTENERS=…,
# or a server.properties mounted in /mnt/shared/config.

FROM rust:1.95-slim-trixie AS build
WORKDIR /src
COPY . .
# Naming the target keeps the flags away from build scripts and macros, which cannot be static.
RUN TARGET="$(rustc -vV | sed -n 's/^host: //p')" \
    && RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked -p milena --target "$TARGET" \
    && mkdir -p /image/milena-data /image/tmp \
    && chmod 1777 /image/tmp \
    && cp "target/$TARGET/release/milena" /image/milena

FROM scratch
COPY --from=build --chown=1000:1000 /image/ /
# A server.properties that is mounted where Kafka's image expects it.
ENV MILENA_CONFIG_IF_PRESENT=/mnt/shared/config/server.properties
USER 1000:1000
WORKDIR /
VOLUME /milena-data
EXPOSE 9092
STOPSIGNAL SIGTERM
ENTRYPOINT ["/milena"]
CMD ["serve"]
