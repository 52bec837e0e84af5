from pathlib import Path

import pytest
import torch
from torch import nn

from medgraft.errors import ConfigError, RunError
from medgraft.evaluate.efficiency import file_bytes, latency_ms


class Recorder(nn.Module):
    def __init__(self, name: str, calls: list[tuple[str, bool, bool]], work: int = 0) -> None:
        super().__init__()
        self.name, self.calls = name, calls
        self.weight = nn.Parameter(torch.ones(work + 1, work + 1))
        self.inner = nn.BatchNorm1d(2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls.append((self.name, self.training or self.inner.training, torch.is_grad_enabled()))
        return images + (self.weight @ self.weight).sum()


def test_models_take_turns_in_eval_mode_without_gradients() -> None:
    calls: list[tuple[str, bool, bool]] = []
    models = {name: Recorder(name, calls) for name in ("a", "b")}
    latency_ms(models, torch.zeros(1, 2), repeats=3, warmup=1)
    assert calls == [("a", False, False), ("b", False, False)] * 4


def test_modes_are_as_before_afterwards() -> None:
    model = Recorder("a", [])
    model.train()
    model.inner.eval()
    latency_ms({"a": model}, torch.zeros(1, 2), repeats=1)
    assert (model.training, model.inner.training) == (True, False)


def test_more_work_takes_longer() -> None:
    calls: list[tuple[str, bool, bool]] = []
    models = {"small": Recorder("small", calls), "large": Recorder("large", calls, work=500)}
    times = latency_ms(models, torch.zeros(1, 2), repeats=5)
    assert 0 < times["small"] < times["large"] < 5000


def test_latency_is_the_median_in_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 9.0, 10.0, 10.002, 20.0, 20.001, 30.0, 30.5])
    monkeypatch.setattr("medgraft.evaluate.efficiency.time.perf_counter", lambda: next(clock))
    times = latency_ms({"a": Recorder("a", [])}, torch.zeros(1, 2), repeats=3, warmup=1)
    assert times["a"] == pytest.approx(2.0)


def test_slow_models_are_timed_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, bool, bool]] = []
    clock = iter(float(second) for second in range(100))
    monkeypatch.setattr("medgraft.evaluate.efficiency.time.perf_counter", lambda: next(clock))
    times = latency_ms({name: Recorder(name, calls) for name in ("a", "b")}, torch.zeros(1, 2), warmup=0)
    assert times == {"a": 1000.0, "b": 1000.0}
    assert len(calls) == 2 * 5
    # What else is timed beside takes none of its passes.
    calls.clear()
    clock = iter(number / 50 for number in range(1000))
    latency_ms({str(number): Recorder(str(number), calls) for number in range(5)}, torch.zeros(1, 2), warmup=0)
    assert len(calls) == 5 * 30


def test_bad_timing_requests_are_refused() -> None:
    model = Recorder("a", [])
    with pytest.raises(ConfigError, match=r"batch of one, .* got \(2, 2\)"):
        latency_ms({"a": model}, torch.zeros(2, 2))
    with pytest.raises(ConfigError, match=r"repeats must be at least 1 .* got 0 and 3"):
        latency_ms({"a": model}, torch.zeros(1, 2), repeats=0)
    with pytest.raises(ConfigError, match="a must be on the CPU, got it on meta"):
        latency_ms({"a": Recorder("a", []).to("meta")}, torch.zeros(1, 2))


def test_bytes_of_a_folder_are_those_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a").write_bytes(b"12345")
    (tmp_path / "b").write_bytes(b"12")
    assert file_bytes(tmp_path / "b") == 2
    assert file_bytes(tmp_path) == 7
    with pytest.raises(RunError, match="got nothing at"):
        file_bytes(tmp_path / "c")
