"""Hands the shards of a batch prediction to the workers of a Beam runner."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import apache_beam as beam
from apache_beam.ml.inference.base import RunInference
from apache_beam.options.pipeline_options import PipelineOptions, SetupOptions

from kfp_hybrid import storage
from kfp_hybrid.components.inference.predict_batch.predict import Work
from kfp_hybrid.components.inference.predict_batch.shards import Finished, Shard, earlier
from kfp_hybrid.components.inference.predict_batch_beam.handler import EdgeBundleHandler, Places
from kfp_hybrid.step import StepError


@dataclass(frozen=True)
class Runner:
    """Finishes shards with Beam; `predict` takes it as `finish`.

    Attributes:
        name: the runner, such as DirectRunner or DataflowRunner.
        pipeline_options: its options, as on a command line.
        exchange: a URI that this process and all workers can read and write; "" when they see the same folders.
    """

    name: str
    pipeline_options: Sequence[str]
    exchange: str

    def __call__(self, work: Work) -> list[Finished]:
        """Finish the shards that no earlier run has finished.

        Raises:
            StepError: the runner fails, or does not know an option.
        """
        places = self._places(work)
        todo = [shard for shard in work.shards if earlier(shard, work.folder) is None]
        logging.info("%s of %s shards are left for the %s", len(todo), len(work.shards), self.name)
        if todo:
            self._run(todo, EdgeBundleHandler(places, work.columns, work.batch_size))
        if self.exchange and todo:
            storage.download(f"{places.shards}/", work.folder)
        made = {shard.path for shard in todo}
        return [_finished(shard, work.folder, made) for shard in work.shards]

    def _places(self, work: Work) -> Places:
        bundle = work.source.bundle
        if bundle is None:
            raise StepError("Beam runs edge bundles alone; give bundle, which export_tflite makes of the model")
        if not self.exchange:
            return Places("", str(bundle.absolute()), str(work.folder.absolute()))
        root = f"{self.exchange.rstrip('/')}/{work.folder.name}"
        logging.info("workers find the examples and the model under %s", root)
        storage.upload(bundle, f"{root}/bundle/")
        files = {group.file for shard in work.shards for group in shard.row_groups}
        for file in sorted(files):
            storage.upload(file, f"{root}/examples/{_name(file)}")
        return Places(f"{root}/examples", f"{root}/bundle", f"{root}/shards")

    def _run(self, shards: list[Shard], handler: EdgeBundleHandler) -> None:
        try:
            options = PipelineOptions([f"--runner={self.name}", *self.pipeline_options])
            options.view_as(SetupOptions).save_main_session = False
            with beam.Pipeline(options=options) as pipeline:
                named = [self._named(shard) for shard in shards]
                _ = (
                    pipeline
                    | "shards" >> beam.Create(named, reshuffle=True)
                    | "predict" >> RunInference(handler)
                )  # fmt: skip
        except (Exception, SystemExit) as error:  # argparse exits
            raise StepError(f"the {self.name} failed: {_gist(error)}") from error

    def _named(self, shard: Shard) -> Shard:
        """The shard with the names under which workers find its files."""
        groups = [
            replace(group, file=Path(_name(group.file)) if self.exchange else group.file.absolute())
            for group in shard.row_groups
        ]
        return replace(shard, row_groups=tuple(groups))


def _name(file: Path) -> str:
    return f"{file.parent.name}/{file.name}"


def _finished(shard: Shard, folder: Path, made: set[str]) -> Finished:
    finished = earlier(shard, folder)
    if finished is None:
        raise StepError(f"the runner ended without {shard.path}; its workers do not see {folder}: give exchange, a URI "
                        "that all of them can read and write")  # fmt: skip
    return replace(finished, earlier=shard.path not in made)


def _gist(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
