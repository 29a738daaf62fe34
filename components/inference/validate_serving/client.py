"""Requests to a model server, in the V1 protocol and in the terms of its health."""

import http.client
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

NO_ANSWER = 0
LONGEST_MESSAGE = 300
JSON_HEADERS = {"Content-Type": "application/json"}


class RefusedError(Exception):
    """A request with good rows did not get its scores; the text says what came instead."""


@dataclass(frozen=True)
class Reply:
    """What came back.

    Attributes:
        status: The status of HTTP; `NO_ANSWER` when the connection broke or nothing came in time.
        body: The content; what went wrong, when there was no answer.
    """

    status: int
    body: bytes

    def describe(self) -> str:
        """The reply in a few words."""
        text = self.body.decode("utf-8", "replace")
        if not self.status:
            return f"no answer ({text})"
        try:
            error = json.loads(text)["error"]
        except (ValueError, KeyError, TypeError):
            error = text
        return f"status {self.status}: {' '.join(str(error).split())[:LONGEST_MESSAGE]}"


@dataclass(frozen=True)
class Client:
    """Where a server is.

    Attributes:
        host: Its address.
        port: Its port for HTTP.
        name: What it calls the model.
        timeout: Seconds that a reply may take.
    """

    host: str
    port: int
    name: str
    timeout: float

    @property
    def predict_path(self) -> str:
        """The path of V1's predict."""
        return f"/v1/models/{self.name}:predict"

    def is_ready(self) -> bool:
        """Whether the server says that it is ready to answer."""
        return self.send("GET", "/v2/health/ready").status == http.client.OK

    def send(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] = JSON_HEADERS) -> Reply:
        """One request on a connection of its own, so that it cannot suffer from what an earlier one did."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=self.timeout)
        try:
            connection.request(method, path, body, dict(headers))
            response = connection.getresponse()
            return Reply(response.status, response.read())
        except (OSError, http.client.HTTPException) as error:
            return Reply(NO_ANSWER, f"{type(error).__name__}: {error}".encode())
        finally:
            connection.close()

    def predict(self, rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """Scores of rows.

        Args:
            rows: JSON values by feature, None where there is none.

        Returns:
            float64 [N, outputs]; NaN where the server gives no finite score.

        Raises:
            RefusedError: what came back are no scores of so many rows.
        """
        reply = self.send("POST", self.predict_path, encode_rows(rows))
        if reply.status != http.client.OK:
            raise RefusedError(reply.describe())
        return read_scores(reply, len(rows))


def encode_rows(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """The body of a V1 request."""
    return json.dumps({"instances": rows}, ensure_ascii=False, allow_nan=False).encode()


def read_scores(reply: Reply, count: int) -> np.ndarray:
    """The scores in a V1 reply.

    Args:
        reply: A reply with status 200.
        count: How many rows were asked about.

    Raises:
        RefusedError: it does not hold that many rows of numbers.
    """
    try:
        predictions = json.loads(reply.body)["predictions"]
        # Models compute float32, of which JSON has the shortest text: only as float32 it is the number that was meant.
        scores = np.array([_row_of_scores(each) for each in predictions], np.float32).astype(np.float64)
    except (ValueError, KeyError, TypeError) as error:
        raise RefusedError(f"an answer without scores ({error}): {reply.describe()}") from None
    if scores.ndim != 2 or len(scores) != count:
        raise RefusedError(f"scores of shape {list(scores.shape)} for {count} rows")
    return scores


def _row_of_scores(prediction: Any) -> list[float]:
    """One prediction: a number, a list of numbers, or an object that has them as `scores`."""
    if isinstance(prediction, dict):
        prediction = prediction["scores"]
    values = prediction if isinstance(prediction, list) else [prediction]
    return [math.nan if value is None else float(value) for value in values]
