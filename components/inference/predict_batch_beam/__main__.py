"""Batch prediction by Beam: `predict_batch.command` with the options runner, pipeline_options and exchange."""

from kfp_hybrid.components.inference.predict_batch.command import arguments, run
from kfp_hybrid.components.inference.predict_batch_beam.job import Runner

if __name__ == "__main__":
    model, output, options = arguments()
    runner = Runner(*(options.pop(name) for name in ("runner", "pipeline_options", "exchange")))
    run(model, output, options, runner)
