# Where no registry is: Redis as Docker's official image has it, from Debian's package.
ARG BASE
FROM ${BASE}
RUN groupadd -g 999 redis && useradd -u 999 -g 999 -d /data redis \
    && apt-get update && apt-get install -y --no-install-recommends redis-server \
    && rm -rf /var/lib/apt/lists/* && install -d -o redis -g redis /data
VOLUME /data
WORKDIR /data
EXPOSE 6379
CMD ["redis-server"]
