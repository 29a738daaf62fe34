"""Write the digests of the images of others into their lists, as the registries give them today.

    .venv/bin/python scripts/resolve_digests.py [LIST...]    # manifests/images.yaml, manifests/kind/images.yaml
    .venv/bin/python scripts/resolve_digests.py --check      # write nothing; exit status 1 if something is to do

It asks with crane, skopeo or docker buildx, whichever is there first, signed in as these are. A digest in a list
stays: one that the registry no longer gives is reported, for somebody to look at and to take out.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from kfp_hybrid.bundle import third_party
from kfp_hybrid.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
LISTS = ("manifests/images.yaml", "manifests/kind/images.yaml")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
TOOLS = {
    "crane": ("digest",),
    "skopeo": ("inspect", "--no-tags", "--format", "{{.Digest}}"),
    "docker": ("buildx", "imagetools", "inspect", "--format", "{{.Manifest.Digest}}"),
}
"""Programs that know the digest of what a tag stands for, of all platforms together."""
SECONDS = 120


def digest_of(reference: str) -> str:
    """What a registry calls exactly the image that a reference stands for.

    Raises:
        UserError: there is no program to ask with, or no answer.
    """
    tool = next((name for name in TOOLS if shutil.which(name)), None)
    if tool is None:
        raise UserError(f"there is no {', no '.join(TOOLS)}; install one of them to ask registries")
    name = f"docker://{reference}" if tool == "skopeo" else reference
    try:
        done = subprocess.run([tool, *TOOLS[tool], name], capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise UserError(f"{tool} has no answer about {reference} within {SECONDS} s; try again") from None
    found = DIGEST.fullmatch(done.stdout.strip())
    if done.returncode or not found:
        said = " ".join((done.stderr or done.stdout).split())[-200:]
        raise UserError(f"cannot ask for the digest of {reference} with {tool}: {said}")
    return found[0]


def with_digest(text: str, image: third_party.ThirdParty, digest: str) -> str:
    """The text of a list with the digest of an image; comments and order stay.

    Raises:
        UserError: the entry is written in a way that is not known.
    """
    name, tag = re.escape(image.name), rf"[\"']?{re.escape(image.tag)}[\"']?"
    in_one_line = re.compile(rf"(\{{ *name: {name}, *tag: {tag})(?=[,}} ])")
    in_several = re.compile(rf"(^ *- name: {name} *\n( +)tag: {tag} *\n)", re.M)
    for pattern, addition in ((in_one_line, f", digest: {digest}"), (in_several, rf"\2digest: {digest}\n")):
        changed, count = pattern.subn(rf"\1{addition}", text)
        if count == 1:
            return changed
    raise UserError(
        f"{image.reference}: the entry is not `name` followed by `tag`; put the digest in by hand: {digest}"
    )


def resolve(file: Path, *, write: bool) -> int:
    """Complete a list, and say what was found.

    Returns:
        How many images are to be looked at: those without a digest when nothing is written, and those whose tag now
        stands for another image.
    """
    text = file.read_text("utf-8")
    problems = 0
    for image in third_party.read(file):
        digest = digest_of(image.reference)
        if image.digest == digest:
            continue
        if image.digest:
            print(f"{file}: {image.reference} is {digest} now, not {image.digest}; take that out if this is right")
            problems += 1
        elif write:
            text = with_digest(text, image, digest)
            print(f"{image.reference} {digest}")
        else:
            print(f"{file}: {image.reference} has no digest; it is {digest}")
            problems += 1
    if write and text != file.read_text("utf-8"):
        unfinished = file.with_suffix(".unfinished")
        unfinished.write_text(text, "utf-8")
        third_party.read(unfinished)
        os.replace(unfinished, file)
    return problems


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("lists", nargs="*", type=Path, default=[ROOT / name for name in LISTS], metavar="LIST")
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 if something is to do")
    arguments = parser.parse_args()
    try:
        problems = sum(resolve(file, write=not arguments.check) for file in arguments.lists)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
