"""Asks the server at a URL by KServe's REST client, in both protocols; fails if an answer is wrong."""

import asyncio
import sys

import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig


def request(binary):
    x = InferInput("x", [2], "FP32")
    colour = InferInput("colour", [2], "BYTES")
    x.set_data_from_numpy(np.array([1, 2], np.float32), binary_data=binary)
    colour.set_data_from_numpy(np.array(["red", "green"], object), binary_data=binary)
    return InferRequest(model_name="sums", request_id="1", infer_inputs=[x, colour])


async def main(url):
    v1, v2 = (InferenceRESTClient(RESTConfig(protocol=protocol)) for protocol in ("v1", "v2"))
    assert await v1.is_server_live(url)
    assert await v1.is_model_ready(url, "sums")
    rows = [{"x": 1, "colour": "red"}, {"x": None, "colour": None}]
    assert await v1.infer(url, {"instances": rows}, model_name="sums") == {"predictions": [7003, 7000]}
    assert await v2.is_server_live(url)
    assert await v2.is_server_ready(url)
    assert await v2.is_model_ready(url, "sums")
    for binary in (True, False):
        answer = await v2.infer(url, request(binary), model_name="sums")
        assert answer.outputs[0].as_numpy().tolist() == [[7003], [7005]], answer
        assert answer.id == "1"
    await v1.close()
    await v2.close()


asyncio.run(main(sys.argv[1]))
