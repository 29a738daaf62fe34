"""What must hold for every content and for every sequence of pushes."""

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from kfp_hybrid.components.deployment.push_model import content, publisher
from kfp_hybrid.components.deployment.push_model.content import Checksum

NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=12).filter(
    lambda name: name not in (".", "..")
)
FILES = st.dictionaries(NAMES, st.binary(max_size=40), min_size=1, max_size=6)
# Names and sizes that invite confusion when they are strung together.
TRICKY = st.text(st.sampled_from('ab,"[]\n1'), min_size=1, max_size=4)
CHECKSUMS = st.dictionaries(TRICKY, st.builds(Checksum, TRICKY, st.integers(0, 30)), max_size=4)


def write(folder, files, order, time):
    for name in order:
        path = Path(folder, "variables", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(files[name])
        os.utime(path, (time, time))


def digest_of(files, order, time):
    with tempfile.TemporaryDirectory() as folder:
        write(folder, files, order, time)
        return content.digest(content.checksums(Path(folder)))


@settings(deadline=None, max_examples=60)
@given(FILES, st.data())
def test_the_digest_depends_on_neither_times_nor_order_nor_place(files, data):
    order = data.draw(st.permutations(list(files)))
    assert digest_of(files, list(files), 1_000_000_000) == digest_of(files, order, 1_700_000_000)


@settings(deadline=None, max_examples=60)
@given(FILES, st.data())
def test_the_digest_depends_on_every_byte_and_every_name(files, data):
    name = data.draw(st.sampled_from(list(files)))
    changed = data.draw(
        st.one_of(
            st.binary(max_size=40).map(lambda other: files | {name: other}),
            NAMES.map(lambda other: {key: value for key, value in files.items() if key != name} | {other: files[name]}),
            st.just({key: value for key, value in files.items() if key != name} | {}),
        )
    )
    if changed:
        assert (digest_of(files, files, 0) == digest_of(changed, changed, 0)) == (files == changed)


@given(CHECKSUMS, CHECKSUMS)
def test_two_lists_of_files_have_one_digest_only_if_they_are_equal(one, other):
    assert (content.digest(one) == content.digest(other)) == (one == other)
    assert (content.difference(one, other) == "") == (one == other)


@given(CHECKSUMS, st.randoms())
def test_the_digest_does_not_depend_on_the_order_of_a_mapping(files, random):
    names = list(files)
    random.shuffle(names)
    assert content.digest(files) == content.digest({name: files[name] for name in names})


class Destination(RuleBasedStateMachine):
    """Any sequence of pushes and rollbacks against a model of it in plain dictionaries."""

    @initialize()
    def start(self):
        self.resources = contextlib.ExitStack()
        self.folder = Path(self.resources.enter_context(tempfile.TemporaryDirectory()))
        self.destination = self.folder / "served"
        self.destination.mkdir()
        self.expected = {}
        self.latest = None
        self.highest = 0

    def teardown(self):
        if hasattr(self, "resources"):
            self.resources.close()

    def source(self, what):
        folder = self.folder / f"model-{what}"
        folder.mkdir(exist_ok=True)
        (folder / "saved_model.pb").write_text(what)
        return str(folder)

    @rule(what=st.sampled_from("abcdef"), keep=st.integers(0, 4))
    def push(self, what, keep):
        publication = publisher.publish(str(self.destination), model=self.source(what), blessed=True, keep=keep)
        number = publication.version.number
        assert publication.copied == (what not in self.expected.values())
        if publication.copied:
            assert number == self.highest + 1, "a number came back or was left out"
            self.expected[number] = what
            self.highest = number
        assert self.expected[number] == what
        self.latest = number
        if keep:
            self.forget_oldest(keep)

    def forget_oldest(self, keep):
        for number in sorted(self.expected):
            if len(self.expected) > keep and number not in (self.latest, self.highest):
                del self.expected[number]

    @rule(data=st.data())
    def rollback(self, data):
        if self.expected:
            self.latest = data.draw(st.sampled_from(sorted(self.expected)))
            assert publisher.rollback(str(self.destination), self.latest).number == self.latest

    @invariant()
    def the_destination_is_as_expected(self):
        if hasattr(self, "destination"):
            there = {
                int(path.name): (path / "saved_model.pb").read_text()
                for path in self.destination.iterdir()
                if path.name.isdigit()
            }
            assert there == self.expected
            assert publisher.latest_version(str(self.destination)) == self.latest
            listed = publisher.list_versions(str(self.destination))
            assert [version.number for version in listed] == sorted(self.expected)
            for version in listed:
                sha256 = hashlib.sha256(self.expected[version.number].encode()).hexdigest()
                assert version.files == {"saved_model.pb": Checksum(sha256, 1)}


TestAnySequence = Destination.TestCase
TestAnySequence.settings = settings(deadline=None, max_examples=25, stateful_step_count=20)
