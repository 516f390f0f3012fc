"""A stand-in of OpenDataArena's main program: what its contract says a host does with a scorer, and no more.

It imports the scorers of ``./scorers/scores_info.json``, gives two jobs a half of the rows each, continues when a job
fails, joins the records by id, and exits with code 0 whatever happened.
"""

from __future__ import annotations

import json
from pathlib import Path

_MAIN = """
import argparse, importlib, json, multiprocessing, os, signal
from pathlib import Path
import yaml
from scorers.scorer_factory import load


def job(part, params, data, out):
    try:
        if part == 1 and os.environ.get("ODA_KILL"):
            os.kill(os.getpid(), signal.SIGKILL)
        load()["DonodScorer"](params).evaluate_to_file(data, out, resume=False)
    except Exception as error:
        print("failed:", error)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--config")
    config = yaml.safe_load(open(parser.parse_args().config))
    load()
    out = Path(config["output_path"])
    out.mkdir(exist_ok=True)
    lines = open(config["input_path"]).readlines()
    half = len(lines) // 2
    context = multiprocessing.get_context("spawn")
    jobs = []
    for part, some in enumerate((lines[:half], lines[half:])):
        (out / f"part{part}").write_text("".join(some))
        jobs.append(context.Process(
            target=job, args=(part, config["scorers"][0], str(out / f"part{part}"), str(out / f"job{part}.jsonl"))))
        jobs[-1].start()
    for one in jobs:
        one.join()
    found = {}
    for file in sorted(out.glob("job*.jsonl")):
        for line in open(file):
            record = json.loads(line)
            found[record.pop("id")] = {"DonodScorer": record}
    with open(out / "pointwise_scores.jsonl", "w") as file:
        for key in sorted(found):
            file.write(json.dumps({"id": key, "scores": found[key]}) + "\\n")
"""

_FACTORY = """
import importlib, json


def load():
    scorers = json.load(open("./scorers/scores_info.json"))["scorers"]
    return {one["name"]: getattr(importlib.import_module(one["module"]), one["name"]) for one in scorers}
"""


def oda_stand_in(folder: Path) -> Path:
    """Write the stand-in into a folder; the result is its main program."""
    (folder / "scorers").mkdir(parents=True)
    (folder / "main.py").write_text(_MAIN, encoding="utf-8")
    (folder / "scorers" / "scorer_factory.py").write_text(_FACTORY, encoding="utf-8")
    return folder / "main.py"


def oda_config(folder: Path, model: Path, *, gpus: int = 0) -> Path:
    """The working folder of a run: ``scorers/scores_info.json`` and the configuration file, which is the result."""
    from host_cases import ROOT_OF_EXAMPLES

    example = ROOT_OF_EXAMPLES / "opendataarena"
    (folder / "scorers").mkdir(exist_ok=True)
    listed = (example / "scorers" / "scores_info.json").read_text(encoding="utf-8")
    assert [one["name"] for one in json.loads(listed)["scorers"]] == ["DonodScorer"]
    (folder / "scorers" / "scores_info.json").write_text(listed, encoding="utf-8")
    text = (example / "donod.yaml").read_text(encoding="utf-8").replace("MODEL", str(model))
    text = text.replace("num_gpu: 0", f"num_gpu: {gpus}").replace(
        "num_gpu_per_job: 0", f"num_gpu_per_job: {gpus and 1}"
    )
    (folder / "donod.yaml").write_text(text, encoding="utf-8")
    return folder / "donod.yaml"


__all__ = ["oda_config", "oda_stand_in"]
