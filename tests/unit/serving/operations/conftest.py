"""A model of which one number tells the version that answered, published in any number of versions."""

import base64
import json
import os
import zlib
from types import SimpleNamespace

import numpy as np
import pytest

from kfp_hybrid.edge.bundle import write_bundle
from kfp_hybrid.preprocessing import Categorical, Label, Numeric, Preprocessing
from kfp_hybrid.serving.batching import Batcher
from kfp_hybrid.serving.routing import Deployed, Served
from kfp_hybrid.serving.rows import Reader
from kfp_hybrid.serving.servable import LiteRTServable

# A TFLite model of two inputs: scores = numeric + categorical.
MODEL = (
    r"c-nPSJx?1!5FPA`v24pBi4|GGg$oLb$TB2u(pe6XEcpXDR+P@1;FO$XpQH1UDnEe&MHCbiDJUr^DBRIfq)3@61^fx{=FQ&haXQFJ"
    r"PqQ~WZ@#xeM8o%;*Cnb_h00W-6)HfNB@1VQj_4G)1?EdcSAb;^rSXp=toh4n7ISj=V?J~108D9j>N_O%{Qq4km6me`n6bf(C?)Y&"
    r"f4xwO<uc&yPaNOfrE~C%k39Re1LyM;H}+U_-^kq`*k$DW0%-MnAGZb{+Wp?ByESaSYYv;pHOx1Q`zJBmiR+F0eJ^k)&gh%t&)lh}"
    r"bC?6?z?t;pgzFIA4;ALR6ZM1pSB(6#ZcS@5T4!=2-7C{`OZTlX|9$lL=IbTbnTqvjv$nZWt3UL?zBg)(@JhbJJEe|*W8eh%2|R_q"
    r"+i4G~t*M8)0%xzL=TXv(Vw45@E{dLKalrn7V~IDhU5_NU;UoNfjL&0Qku%3yUxf2Z3!fsHi*_!jWw=A82TL);xn>vEakzl|B>xM<"
    r";cHWa*{N5;RkBAHuzLo%ZTo>6VA9TB%N~#4))R4i>Y+c*qnhxSl|5+Lvw#vlh+gU!wi>-Ku5%gMu#~d+tKQd_O6L0o^0~aHQEd4+"
    r";bbg+%k-aE@jCQe5^;V(7EK&^e90K*t!8y^E#2ROo<C^~M{R`h8vg*G`JN&"
)
COLOURS = ("red", "green")
OF_A_VERSION = 1000  # what a version adds to every score, times its number


def make_bundle(folder, version):
    """An edge bundle whose score is x + 1000 * version + (0 without a colour, 1 for an unknown one, else 2 or 3)."""
    preprocessing = Preprocessing(
        "regression",
        Label("y"),
        (Numeric("x", mean=-OF_A_VERSION * int(version), std=1.0, missing=0.0, boundaries=(0.0,)),),
        (Categorical("colour", "string", COLOURS),),
    )
    rows = {"x": [1.0, None], "colour": ["red", None]}
    samples = {"rows": rows, "scores": [[3 + OF_A_VERSION * int(version)], [OF_A_VERSION * int(version)]]}
    files = {
        "model.tflite": zlib.decompress(base64.b85decode("".join(MODEL))),
        "preprocessing.json": json.dumps(preprocessing.to_dict()).encode(),
        "labels.json": json.dumps({"task": "regression", "label": "y", "classes": []}).encode(),
        "samples.json": json.dumps(samples).encode(),
    }
    write_bundle(folder, files, quantization="float32")
    return folder


def publish(destination, version, latest=True):
    """What push_model does with an edge bundle: the version appears whole, then LATEST names it."""
    destination.mkdir(exist_ok=True)
    make_bundle(destination / f".{version}" / "edge", version)
    (destination / f".{version}").rename(destination / str(version))
    if latest:
        point_latest(destination, version)


def point_latest(destination, version):
    (destination / ".latest").write_text(f"{version}\n")
    os.replace(destination / ".latest", destination / "LATEST")


def load(folder, version):
    return LiteRTServable(make_bundle(folder / str(version), version), "sums", str(version))


def deploy(folder, version, **options):
    servable = load(folder, version)
    return Deployed(servable, Batcher(servable, **options))


def rows_of(servable, x, colour=None):
    return Reader(servable.features).columns({"x": list(x), "colour": list(colour or [None] * len(x))})


def served(servable, x, colour=None, seconds=0.001, protocol="v1", key=""):
    rows = rows_of(servable, x, colour)
    return Served(servable, rows, servable.predict(rows.columns), seconds, protocol, key)


def version_of(score):
    return int(score // OF_A_VERSION)


@pytest.fixture
def sums():
    """What the tests of this folder share."""
    return SimpleNamespace(
        make_bundle=make_bundle, publish=publish, point_latest=point_latest, load=load, deploy=deploy, rows_of=rows_of,
        served=served, version_of=version_of, zeros=np.zeros((1, 1), np.float32),
    )  # fmt: skip
