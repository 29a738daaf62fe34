#!/usr/bin/env python3
"""A docker client whose images are files in $FAKE_DOCKER: `images.json` (reference -> content), `calls`, `pushed.json`.

What is in `images.json` under "registry" can be pulled. Archives are tar files as `docker save` writes them.
"""

import hashlib
import io
import json
import os
import sys
import tarfile
from pathlib import Path

STATE = Path(os.environ["FAKE_DOCKER"])


def read(name):
    file = STATE / name
    return json.loads(file.read_text()) if file.exists() else {}


def write(name, content):
    (STATE / name).write_text(json.dumps(content))


def fail(message):
    sys.exit(message)


def identity(content):
    return "sha256:" + hashlib.sha256(content.encode()).hexdigest()


def save(reference):
    images = read("images.json")
    if reference not in images:
        fail(f"Error response from daemon: reference does not exist: {reference}")
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        content = {"reference": reference, "content": images[reference]}
        files = {"layer.json": json.dumps(content), "manifest.json": json.dumps([{"RepoTags": [reference]}])}
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    whole = stream.getvalue()
    sys.stdout.buffer.write(whole[:600] if (STATE / "save-truncates").exists() else whole)


def main(command, *arguments):
    with (STATE / "calls").open("a") as calls:
        calls.write(" ".join([command, *arguments]) + "\n")
    images = read("images.json")
    if command == "image":  # inspect --format F REFERENCE
        _, _, form, reference = arguments
        if reference not in images:
            fail(f"Error: No such image: {reference}")
        name = reference.rpartition(":")[0].removeprefix("docker.io/")
        pulled = reference in read("registry.json")
        digests = [f"{name}@{identity(images[reference])}"] if pulled else []
        print(json.dumps(digests) if "RepoDigests" in form else identity(images[reference]))
    elif command == "pull":
        (reference,) = arguments
        name, _, digest = reference.partition("@")
        if (STATE / "registry-busy").exists():
            (STATE / "registry-busy").unlink()
            fail("Error response from daemon: 503 Service Unavailable")
        for known, content in read("registry.json").items():
            if known == reference or (digest == identity(content) and known.rpartition(":")[0] == name):
                write("images.json", {**images, reference: content})
                return
        fail(f"Error response from daemon: manifest for {reference} not found: manifest unknown")
    elif command == "tag":
        source, target = arguments
        write("images.json", {**images, target: images[source]})
    elif command == "save":
        save(*arguments)
    elif command == "load":
        with tarfile.open(arguments[1]) as archive:
            content = json.load(archive.extractfile("layer.json"))
        write("images.json", {**images, content["reference"]: content["content"]})
    elif command == "push":
        (reference,) = arguments
        if (STATE / "push-denied").exists():
            fail("denied: requested access to the resource is denied")
        write("pushed.json", {**read("pushed.json"), reference: images[reference]})
    elif command == "run":
        print(json.dumps({"bomFormat": "CycloneDX", "of": arguments[-1], "program": len(sys.stdin.read()) > 0}))
    elif command != "version":
        fail(f"unknown command: {command}")


main(*sys.argv[1:])
