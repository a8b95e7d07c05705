"""What a model takes, on which device: the arithmetic, the data files, this machine."""

import dataclasses
import subprocess
from pathlib import Path

import pytest
import torch

from polyvec.engine.budget import needs
from polyvec.engine.holding import Holding
from polyvec.engine.quality import shipped
from polyvec.errors import InputError, ModelNotFoundError
from polyvec.fit import machine, rates, speed
from polyvec.fit.corpus import count_tokens
from polyvec.fit.devices import Device, devices, find_device
from polyvec.fit.elsewhere import elsewhere
from polyvec.fit.facts import BITS_PER_WEIGHT, ModelFacts, facts_of, facts_of_path
from polyvec.fit.memory import cpu_memory, gpu_memory
from polyvec.fit.offers import Offer
from polyvec.fit.plan import Work, assess, ways
from polyvec.fit.quality import quality
from polyvec.fit.ranking import best_way, every_way, ranked
from polyvec.fit.speed import cpu_speed, device_speed, operations_per_token
from polyvec.model.files import open_model

NEMOTRON = "llama-embed-nemotron-8b"
RESIDENT, STREAMED = Holding("resident"), Holding("streamed")


@pytest.fixture(autouse=True)
def _no_old_rates(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("POLYVEC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(rates, "_measure", lambda *_: 1e-3)


@pytest.fixture
def nemotron() -> ModelFacts:
    return facts_of(NEMOTRON)


def test_a_model_of_the_catalogue_needs_no_files(nemotron: ModelFacts) -> None:
    assert nemotron.parameters == 7_504_924_672  # what the model's card says
    assert "card" in nemotron.source


def test_a_folder_gives_the_same_facts_as_the_engine_sees(tiny_folder: Path) -> None:
    facts, files = facts_of(str(tiny_folder)), open_model(tiny_folder)
    assert facts.architecture == files.architecture
    assert facts.size_bytes == files.size_bytes


def test_a_folder_without_weights_will_do(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((tiny_folder / "config.json").read_bytes())
    facts = facts_of_path("x", tmp_path)
    assert facts.size_bytes == 2 * facts.parameters


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(ModelNotFoundError, match="nosuch"):
        facts_of("nosuch-model")


def test_a_model_whose_shape_nobody_states_is_refused() -> None:
    with pytest.raises(InputError, match="shape"):
        facts_of("gemini-embedding-001")


def test_a_network_that_is_not_run_is_refused() -> None:
    with pytest.raises(InputError, match="does not run"):
        facts_of("embeddinggemma-300m")


def test_expected_memory_is_below_what_the_engine_promises(tiny_folder: Path) -> None:
    """Both from the same parts: the promise has a margin, and room for malloc, on top."""
    files, facts = open_model(tiny_folder), facts_of(str(tiny_folder))
    for holding in (RESIDENT, STREAMED):
        expected = cpu_memory(facts, holding, "fp32", torch.float32, cores=2)
        promised = needs(files, holding, "fp32", torch.float32)
        in_step = 0 if holding.place == "resident" else 32_768
        assert expected.weights + expected.table + expected.expanded < promised.fixed
        assert expected.in_step == in_step * promised.of_super_token


def test_streaming_does_not_grow_with_layers(nemotron: ModelFacts) -> None:
    shape = nemotron.architecture
    double = dataclasses.replace(shape, num_layers=2 * shape.num_layers)
    deeper = dataclasses.replace(nemotron, architecture=double)
    for holding, grows in ((RESIDENT, True), (STREAMED, False)):
        small = cpu_memory(nemotron, holding, "bf16", torch.bfloat16, 2).total
        large = cpu_memory(deeper, holding, "bf16", torch.bfloat16, 2).total
        assert (large > small) is grows


def test_8b_resident_takes_its_weights_and_streamed_a_fraction(nemotron: ModelFacts) -> None:
    resident = gpu_memory(nemotron, RESIDENT, torch.bfloat16)
    assert resident.weights + resident.table == pytest.approx(15.0e9, rel=0.01)
    assert gpu_memory(nemotron, STREAMED, torch.bfloat16).total < 6e9


@pytest.mark.parametrize(
    ("device", "color"), [("H100", "green"), ("RTX 4090", "green"), ("RTX 4060", "red")]
)
def test_colours_of_8b_in_bf16(nemotron: ModelFacts, device: str, color: str) -> None:
    assert assess(nemotron, find_device(device)).color == color


def test_streamed_is_yellow_where_resident_is_red(nemotron: ModelFacts) -> None:
    found = assess(nemotron, find_device("RTX 4060"), "bf16", "streamed")
    assert found.color == "yellow"
    assert "slow for one query" in found.why


def test_a_gguf_type_takes_its_bits(nemotron: ModelFacts) -> None:
    assert nemotron.as_gguf("Q8_0").size_bytes == pytest.approx(
        nemotron.parameters * BITS_PER_WEIGHT["Q8_0"] / 8, abs=1
    )
    q4 = assess(nemotron, find_device("RTX 4060"), "Q4_K_M", "packed")
    assert 4e9 < q4.memory.host < 6e9  # blocks lie in the machine's memory
    assert q4.color == "yellow"


def test_bf16_is_refused_by_a_card_without_it(nemotron: ModelFacts) -> None:
    found = assess(nemotron, find_device("V100 32GB"))
    assert (found.color, found.why) == ("red", "has no bf16")
    assert found.speed is None


@pytest.mark.parametrize(
    ("precision", "source", "said"),
    [("int3", "resident", "int3"), ("bf16", "packed", "no blocks"), ("packed", "resident", "pack")],
)
def test_what_does_not_go_together_is_refused(
    nemotron: ModelFacts, precision: str, source: str, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        assess(nemotron, find_device("L4"), precision, source)  # type: ignore[arg-type]


def test_twice_the_arithmetic_is_twice_as_fast(nemotron: ModelFacts) -> None:
    card = Device("x", "nvidia", 80, 1e9, 100, None, "here")  # bandwidth without end
    fast = dataclasses.replace(card, bf16_tflops=200.0)
    slow_rate, fast_rate = (
        device_speed(nemotron.architecture, d, "resident", 128) for d in (card, fast)
    )
    assert slow_rate is not None
    assert fast_rate is not None
    assert fast_rate.tokens_per_s == pytest.approx(2 * slow_rate.tokens_per_s, rel=1e-3)
    attention = 4 * 128 * 4096 * 32
    expected = 100e12 * 0.4 / (operations_per_token(nemotron.architecture) + attention)
    assert slow_rate.tokens_per_s == pytest.approx(expected, rel=1e-3)


def test_queries_keys_and_values_cost_more_in_int8_unless_weights_have_4_bits(
    nemotron: ModelFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = {"bf16": 1e9, "fp32": 1e9}
    monkeypatch.setattr(speed, "product_rate", lambda *given: slow.get(given[2], 1e12))
    shape = nemotron.architecture
    int8 = cpu_speed(shape, "int8", RESIDENT, 2, 128, 0)
    packed = cpu_speed(shape, "packed", Holding("packed", four_bits=True), 2, 128, 0)
    assert int8 is not None
    assert packed is not None
    assert packed.tokens_per_s > 2 * int8.tokens_per_s


def test_longer_texts_are_slower_a_token(nemotron: ModelFacts) -> None:
    short, long = (
        device_speed(nemotron.architecture, find_device("L4"), "resident", n) for n in (128, 8192)
    )
    assert short is not None
    assert long is not None
    assert long.tokens_per_s < short.tokens_per_s


def test_hours_follow_from_the_work(nemotron: ModelFacts) -> None:
    found = assess(nemotron, find_device("H100"), work=Work(200_000, 300))
    assert found.speed is not None
    assert found.hours == pytest.approx(60e6 / found.speed.tokens_per_s / 3600)
    assert found.texts_per_s == pytest.approx(found.speed.tokens_per_s / 300)


def test_every_device_has_a_source_and_sane_figures() -> None:
    assert len(devices()) >= 60
    assert len({d.name for d in devices()}) == len(devices())
    for device in devices():
        assert " " in device.source.partition(", https://")[0]  # a document's title, then its place
        assert "https://" in device.source
        assert device.has_bf16 or device.bf16_tflops is None
        figures = (
            device.memory_gb, device.bandwidth_gb_per_s, device.bf16_tflops, device.int8_tops,
        )  # fmt: skip
        assert all(figure is None or figure > 0 for figure in figures)
        if device.bf16_tflops and device.int8_tops:
            assert device.int8_tops >= device.bf16_tflops


def test_a_device_is_found_by_any_name() -> None:
    for name in ("NVIDIA H100 80GB HBM3", "h100 sxm", "H100_SXM", "NVIDIA GeForce RTX 4090"):
        assert find_device(name) in devices()
    with pytest.raises(InputError, match="RTX 4090"):
        find_device("RTX 4091")


def test_quality_is_the_models_own_or_the_nearest_and_says_which(nemotron: ModelFacts) -> None:
    own = quality(facts_of("all-MiniLM-L6-v2"), "int8")
    assert own.is_own
    assert own.measured is not None
    assert own.measured.cosine_mean == 0.99966
    other = quality(nemotron, "int8")
    assert not other.is_own
    assert other.measured is not None
    assert other.measured.trained  # an untrained model exaggerates; of two, the same network
    assert "of default" in other.words
    assert quality(nemotron, "F16").words == "not measured"
    assert quality(nemotron, "fp32").words == "exact"


def test_measurements_name_their_documents() -> None:
    root = Path(__file__).parents[1]
    for found in shipped():
        document = root / found.source.partition(":")[0]
        figure = f"{found.cosine_mean:.5f}".lstrip("0")
        assert figure in document.read_text()


def test_devices_come_green_first_and_cheapest_first(nemotron: ModelFacts) -> None:
    listed = tuple(find_device(n) for n in ("RTX 4060", "H100 SXM", "RTX 4090", "L40S", "A40"))
    offers = [
        Offer("vast", "H100_SXM", 1, 80, None, 2.5, is_spot=False),
        Offer("vast", "A40", 2, 48, None, 0.8, is_spot=True),
    ]
    rows = ranked(nemotron, listed, offers, "bf16", "resident")
    assert [r.best.device.name for r in rows] == [
        "A40", "H100 SXM", "RTX 4090", "L40S", "RTX 4060",
    ]  # fmt: skip
    assert [r.price_per_gpu_h for r in rows] == [0.4, 2.5, None, None, None]


def test_a_long_run_elsewhere_costs_its_hours_at_the_cheapest_price(nemotron: ModelFacts) -> None:
    offers = [
        Offer("vast", "H100_SXM", 1, 80, None, 2.5, is_spot=False),
        Offer("runpod", "H100 SXM", 2, 80, None, 3.0, is_spot=True),
    ]
    found = {e.device.name: e for e in elsewhere(nemotron.architecture, 1e9, 300.0, offers)}
    fast = device_speed(nemotron.architecture, find_device("H100 SXM"), "resident", 300)
    assert fast is not None
    h100, l4 = found["H100 SXM"], found["L4"]
    assert h100.hours == pytest.approx(1e9 / fast.tokens_per_s / 3600)
    assert (h100.price_per_h, h100.is_assumed) == (1.5, False)
    assert h100.dollars == pytest.approx(h100.hours * 1.5)
    assert l4.is_assumed
    assert l4.hours > h100.hours


def test_the_best_way_is_bf16_in_memory_then_streamed(nemotron: ModelFacts) -> None:
    large = best_way(every_way(nemotron, find_device("H100")))
    small = best_way(every_way(nemotron, find_device("RTX 4060")))
    assert (large.precision, large.source) == ("bf16", "resident")
    assert (small.precision, small.source) == ("bf16", "streamed")


def test_int8_is_for_processors(nemotron: ModelFacts) -> None:
    assert ("int8", "resident") not in ways(nemotron, find_device("H100"))
    assert assess(nemotron, find_device("H100"), "int8").color == "red"


def test_this_machine_has_a_processor_and_memory() -> None:
    cpu = machine.this_cpu()
    assert cpu.cores == torch.get_num_threads()
    assert cpu.memory_gb is not None
    assert cpu.memory_gb > 0.1


def test_a_containers_limit_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1073741824\n")
    monkeypatch.setattr(machine, "_CGROUP", tmp_path / "memory.max")
    assert machine.memory_bytes() == 2**30


SMI = "NVIDIA H100 80GB HBM3, 81559\nNVIDIA Unheard 9, 24576\nbroken line\n"


def test_gpus_are_read_from_nvidia_smi(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(*_: object, **__: object) -> "subprocess.CompletedProcess[str]":
        return subprocess.CompletedProcess([], 0, SMI, "")

    monkeypatch.setattr("shutil.which", lambda _: "/usr/bin/nvidia-smi")
    monkeypatch.setattr("subprocess.run", answer)
    first, second, cpu = machine.this_machine()
    assert (first.name, first.bf16_tflops) == ("H100 SXM", 989.4)
    assert first.memory_gb == pytest.approx(79.6, abs=0.1)
    assert (second.name, second.bf16_tflops, second.memory_gb) == ("NVIDIA Unheard 9", None, 24)
    assert cpu.kind == "cpu"


def test_a_driver_that_hangs_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_: object, **__: object) -> None:
        raise subprocess.TimeoutExpired("nvidia-smi", 10)

    monkeypatch.setattr("shutil.which", lambda _: "/usr/bin/nvidia-smi")
    monkeypatch.setattr("subprocess.run", hang)
    assert [d.kind for d in machine.this_machine()] == ["cpu"]


def test_rates_are_measured_once_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[tuple[object, ...]] = []

    def measure(*given: object) -> float:
        measured.append(given)
        return 5e-4

    monkeypatch.setattr(rates, "_measure", measure)
    monkeypatch.setattr(rates, "_is_busy", lambda: False)
    monkeypatch.setattr(rates, "_this_process", {})
    expected = 2 * 2048 * 64 * 32 / 5e-4
    assert rates.product_rate(64, 32, "fp32") == pytest.approx(expected)
    monkeypatch.setattr(rates, "_this_process", {})  # as another process finds it
    assert rates.product_rate(64, 32, "fp32") == pytest.approx(expected)
    assert len(measured) == 1
    rates.product_rate(64, 32, "fp32", again=True)
    assert len(measured) == 2


def test_a_rate_taken_on_a_busy_machine_is_not_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(rates, "_is_busy", lambda: True)
    monkeypatch.setattr(rates, "_this_process", {})
    rates.product_rate(64, 32, "fp32")
    assert not (tmp_path / "cache" / rates.FILE).exists()


def test_a_product_is_really_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(rates, "_SECONDS", 0.0)
    monkeypatch.setattr(rates, "_this_process", {})
    monkeypatch.setattr(rates, "_is_busy", lambda: True)
    for precision in ("fp32", "bf16", "int8"):
        if rates._has(precision):
            rate = rates.product_rate(64, 64, precision, again=True)
            assert rate is not None
            assert rate > 1e6
    assert rates.attention_rate(32, 16, torch.float32, again=True) > 1e6
    assert rates.row_rate(torch.float32, again=True) > 1e5


def test_tokens_are_counted_as_the_model_reads_them(tiny_folder: Path) -> None:
    files = open_model(tiny_folder)
    texts = ["the fox", " ", "the quick brown fox"]
    counts = files.tokenizer.encode([texts[0], texts[2]], files.spec, "document").counts
    found = count_tokens(files, iter(texts))
    assert (found.texts, found.tokens, found.longest) == (2, sum(counts), max(counts))
    with pytest.raises(InputError, match="no text"):
        count_tokens(files, [" "])
