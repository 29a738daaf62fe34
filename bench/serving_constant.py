"""The model server's HTTP with a constant reply and nothing behind it: `python serving_constant.py PORT`."""

import asyncio
import sys

import uvloop

from kfp_hybrid.serving.http import Exchange, HttpServer

BODY = b'{"predictions":[0.5]}'


def reply(exchange: Exchange) -> None:
    exchange.respond(200, BODY)


async def serve(port: int) -> None:
    server = HttpServer(reply, str.encode, 1 << 20, 1 << 28, 4096, 30.0, 75.0, 30.0)
    await server.listen("127.0.0.1", port)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
