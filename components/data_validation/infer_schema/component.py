"""The interface of infer_schema."""

from typing import Optional

from kfp import dsl

from kfp_hybrid import images


@dsl.component(base_image=images.VALIDATION, install_kfp_package=False)
def infer_schema(
    statistics: dsl.Input[dsl.Artifact],
    schema: dsl.Output[dsl.Artifact],
    curated_schema: Optional[dsl.Input[dsl.Artifact]] = None,  # noqa: UP045 - kfp knows no other spelling
    split: str = "train",
    constraints: dict = {},  # noqa: B006
    schema_overrides: str = "",
    curated_schema_text: str = "",
    max_domain_size: int = 100,
) -> None:
    """Infer the schema that data must agree with from the statistics of one split, refined by what the user demands.

    Args:
        statistics: Statistics as generate_statistics writes them.
        curated_schema: A schema to keep as it is; its differences from the inferred one are written to diff.txt
            and the log.
        split: The split to infer from.
        constraints: What the data must satisfy beyond what the split shows, for example {"drift_threshold": 0.1,
            "features": {"distance": {"required": true, "range": [0, 6000]}}, "environments": {"SERVING": {"without":
            ["label"]}}}. All keys are in the component's documentation.
        schema_overrides: A partial schema as text proto, merged feature by feature; it wins over the inferred
            schema and the constraints.
        curated_schema_text: As curated_schema, given as text proto or as the path of a schema.pbtxt.
        max_domain_size: A text feature with more distinct values than this may hold any text.

    Returns:
        schema: Directory with schema.pbtxt (tensorflow.metadata.v0.Schema as text proto), and diff.txt when a
            curated schema was given. Metadata: features, split, curated and, when curated, differences.
    """
    from pathlib import Path

    from kfp_hybrid.components.data_validation.infer_schema.infer import infer_schema as infer
    from kfp_hybrid.step import step

    with step():
        result = infer(
            Path(statistics.path),
            Path(schema.path),
            split=split,
            constraints=constraints,
            schema_overrides=schema_overrides,
            curated_schema=Path(curated_schema.path) if curated_schema else None,
            curated_schema_text=curated_schema_text,
            max_domain_size=max_domain_size,
        )
        schema.metadata.update(split=split, features=result.features, curated=result.differences is not None)
        if result.differences is not None:
            schema.metadata["differences"] = result.differences
