"""The pipelines: one per file, each a function of a target that returns a KFP pipeline."""
