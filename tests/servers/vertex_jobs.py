"""The jobs of Vertex AI, held as its own messages: each has succeeded when it is first looked at.

What the server is sent must be what the real messages can hold, to the last field.
"""

import re

from google.cloud.aiplatform_v1 import types
from google.protobuf import json_format

PARENT = "projects/ml-production/locations/europe-west4"
KINDS = {
    "customJobs": types.CustomJob,
    "batchPredictionJobs": types.BatchPredictionJob,
    "datasets": types.Dataset,
    "trainingPipelines": types.TrainingPipeline,
    "models": types.Model,
}


class FakeJobs:
    """Everything that was asked for, by kind."""

    def __init__(self):
        self.made = {kind: [] for kind in KINDS}

    def __call__(self, request):
        path = request.path.partition(f"/{PARENT}/")[2]  # below /v1, and for the client's operations below /ui
        kind, _, number = path.partition("/")
        if request.method == "POST" and kind in KINDS and not number:
            return 200, self._make(kind, request)
        if request.method == "GET" and kind == "operations":
            dataset = self.made["datasets"][int(number)]
            answer = json_format.MessageToDict(dataset._pb)
            answer["@type"] = "type.googleapis.com/google.cloud.aiplatform.v1.Dataset"
            return 200, {"name": f"{PARENT}/operations/{number}", "done": True, "response": answer}
        if request.method == "GET" and kind in KINDS and re.fullmatch("[0-9]+", number):
            return 200, json_format.MessageToDict(self.made[kind][int(number)]._pb)
        return 404, {"error": {"code": 404, "message": f"There is no {request.method} {request.path}."}}

    def _make(self, kind, request):
        job = KINDS[kind]()
        json_format.ParseDict(request.json(), job._pb)
        number = len(self.made[kind])
        job.name = f"{PARENT}/{kind}/{number}"
        self.made[kind].append(job)
        if kind == "datasets":
            return {"name": f"{PARENT}/operations/{number}"}
        if kind == "trainingPipelines":
            job.state = types.PipelineState.PIPELINE_STATE_SUCCEEDED
            job.model_to_upload.name = f"{PARENT}/models/{len(self.made['models'])}"
            self.made["models"].append(types.Model(name=job.model_to_upload.name))
        else:
            job.state = types.JobState.JOB_STATE_SUCCEEDED
        if kind == "batchPredictionJobs":
            job.output_info.gcs_output_directory = job.output_config.gcs_destination.output_uri_prefix + "/prediction-1"
        return json_format.MessageToDict(job._pb)
