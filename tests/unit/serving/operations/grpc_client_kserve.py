"""Asks the server at a port of this machine by KServe's client; fails if an answer is wrong."""

import asyncio
import sys

import numpy as np
from kserve import InferenceGRPCClient, InferInput, InferRequest


def request(raw):
    x = InferInput("x", [2], "FP32")
    colour = InferInput("colour", [2], "BYTES")
    x.set_data_from_numpy(np.array([1, 2], np.float32), binary_data=raw)
    colour.set_data_from_numpy(np.array(["red", "green"], object), binary_data=raw)
    return InferRequest(model_name="sums", request_id="1", infer_inputs=[x, colour])


async def main():
    client = InferenceGRPCClient(f"127.0.0.1:{sys.argv[1]}")
    assert await client.is_server_ready()
    assert await client.is_server_live()
    assert await client.is_model_ready("sums")
    for raw in (True, False):
        answer = await client.infer(request(raw))
        assert answer.outputs[0].as_numpy().tolist() == [[7003], [7005]], answer
        assert answer.model_version == "7"
    await client.close()


asyncio.run(main())
