"""Runs the simulated Spotify until SIGTERM, SIGINT, or (with --until-eof) the end of stdin."""

import argparse
import asyncio
import os
import signal
import ssl
import sys

from .server import Server


def parse_arguments():
    parser = argparse.ArgumentParser(prog="spotify", description="Simulated Spotify for tests")
    parser.add_argument("--listen", default="127.0.0.1:0", metavar="HOST:PORT",
                        help="port 0 takes a free one")
    parser.add_argument("--tls-cert", metavar="FILE", help="certificate chain: serve HTTPS")
    parser.add_argument("--tls-key", metavar="FILE")
    parser.add_argument("--ready-fd", type=int, metavar="N",
                        help='write "ready URL" there instead of to stdout')
    parser.add_argument("--label", default="Simulated Spotify", help="heading of the pages")
    parser.add_argument("--log-limit", type=int, default=10000, help="requests kept in the log")
    parser.add_argument("--secrets-limit", type=int, default=50000, help="secrets kept")
    parser.add_argument("--keep", type=int, default=100000,
                        help="codes and access tokens kept; refresh tokens ten times that")
    parser.add_argument("--until-eof", action="store_true",
                        help="end when stdin ends, so that a killed test leaves nothing behind")
    arguments = parser.parse_args()
    if bool(arguments.tls_cert) != bool(arguments.tls_key):
        parser.error("--tls-cert and --tls-key go together")
    return arguments


def tls_context(arguments):
    if not arguments.tls_cert:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(arguments.tls_cert, arguments.tls_key)
    return context


def announce(url, ready_fd):
    line = f"ready {url}\n"
    if ready_fd is None:
        print(line, end="", flush=True)
    else:
        os.write(ready_fd, line.encode())
        os.close(ready_fd)


async def run(arguments):
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = Server(
        arguments.label, arguments.keep, arguments.log_limit, arguments.secrets_limit
    )
    host, _, port = arguments.listen.rpartition(":")
    context = tls_context(arguments)
    listener = await loop.create_server(
        server.web, host.strip("[]"), int(port), ssl=context, backlog=1024
    )
    port = listener.sockets[0].getsockname()[1]
    server.origin = f"{'https' if context else 'http'}://{host}:{port}"
    if arguments.until_eof:
        loop.add_reader(sys.stdin.fileno(), stop.set)
    announce(server.origin, arguments.ready_fd)
    await stop.wait()
    listener.close()
    server.hanging.release()
    await server.web.shutdown(timeout=1)


if __name__ == "__main__":
    asyncio.run(run(parse_arguments()))
