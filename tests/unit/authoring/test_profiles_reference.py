"""`docs/profiles.md` says what the models say, and nothing in it is wrong."""

from pathlib import Path
from typing import Annotated

import pydantic
import pytest

from kfp_hybrid.accelerators import ACCELERATORS
from kfp_hybrid.profiles import models
from kfp_hybrid.profiles.loading import tomllib
from kfp_hybrid.profiles.reference import TABLES, reference, toml

PAGE = Path(__file__).parents[3] / "docs/profiles.md"
FIELDS = [(table, key) for table in TABLES.values() for key in table.model_fields]


def test_the_page_is_up_to_date():
    assert PAGE.read_text("utf-8") == reference(), (
        "write it anew: python -m kfp_hybrid.profiles.reference > docs/profiles.md"
    )


def test_every_table_and_every_accelerator_is_described():
    tables, unseen = set(), [models.Table]
    while unseen:
        unseen += (subclasses := unseen.pop().__subclasses__())
        tables.update(subclasses)
    common = {models.ProfileFile, models._Cluster}  # the page as a whole, and keys that its subclasses have
    assert set(TABLES.values()) == tables - common
    assert all(f"| `{name}` |" in reference() for name in ACCELERATORS)


@pytest.mark.parametrize(("table", "key"), FIELDS, ids=lambda value: getattr(value, "__name__", value))
def test_every_key_has_a_meaning_and_an_example_that_is_taken(table, key):
    field = table.model_fields[key]
    assert field.description and field.description.endswith(".")
    example = tomllib.loads(f"example = {toml(field.examples[0])}")["example"]
    assert example == field.examples[0]
    kind = Annotated.__class_getitem__((field.annotation, *field.metadata)) if field.metadata else field.annotation
    if field.discriminator:
        kind = Annotated[kind, pydantic.Field(discriminator=field.discriminator)]
    pydantic.TypeAdapter(kind, config=None).validate_python(example)
