import csv
import json

import torch

from experiments import gpu_check
from experiments.gpu_check import Options, main


def test_a_stage_that_fails_is_written_with_its_reason_and_the_next_one_runs(gpu, tmp_path, monkeypatch, capsys):
    def broken(device, small):
        yield "one", "gap", 0.5
        raise RuntimeError("no kernel for this card")

    stages = {name: gpu_check.STAGES[name] for name in ("matrix_products", "volumes", "dense_algebra", "fit_rate")}
    monkeypatch.setattr(gpu_check, "STAGES", {"broken": broken, **stages})
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Pretended 1")
    assert main(Options(device="cuda:0", small=True, output=tmp_path)) == 1
    lines = list(csv.DictReader((tmp_path / "gpu.csv").open()))
    assert json.loads((tmp_path / "gpu.json").read_text()) == lines
    assert {line["card"] for line in lines} == {"Pretended 1"}
    assert next(line["value"] for line in lines if line["stage"] == "broken") == "0.5"
    (fault,) = [line["value"] for line in lines if line["quantity"] == "FAILED"]
    assert fault.startswith("RuntimeError: no kernel for this card") and "test_gpu_check.py" in fault
    assert {line["stage"] for line in lines} == {"broken", *stages}
    gaps = [float(line["value"]) for line in lines if "gap" in line["quantity"] and line["stage"] != "broken"]
    assert len(gaps) > 9 and max(gaps) < 1e-5
    assert capsys.readouterr().out.endswith("Pretended 1: failed: broken\n")
