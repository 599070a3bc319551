"""The device table: which device a driver's name means, rates by width and kind, and the user's file over it."""

import subprocess
import sys
import time

import pytest

from gradus.core.devices import DeviceEntry, Rate, device_called, known_devices
from gradus.core.errors import ConfigError
from gradus.core.machine import PeakMemory, ProcessTree

# As torch.cuda.get_device_name gives them, and half of what the data sheets state for sparse matrices where they do.
DRIVER_NAMES = {
    "NVIDIA H100 80GB HBM3": ("h100", 1979e12 / 2),
    "NVIDIA H100 PCIe": ("h100-pcie", 1513e12 / 2),
    "NVIDIA H100 NVL": ("h100-nvl", 1671e12 / 2),
    "NVIDIA H200": ("h200", 1979e12 / 2),
    "NVIDIA H200 NVL": ("h200-nvl", 1671e12 / 2),
    "NVIDIA B200": ("b200", 36e15 / 8 / 2),
    "NVIDIA A100-SXM4-80GB": ("a100", 312e12),
    "NVIDIA A100-PCIE-40GB": ("a100-40gb", 312e12),
    "NVIDIA L4": ("l4", 242e12 / 2),
    "NVIDIA L40S": ("l40s", 362e12),
    "NVIDIA GeForce RTX 4090": ("rtx4090", 165.2e12),
}


@pytest.mark.parametrize("driver_name", DRIVER_NAMES)
def test_a_driver_name_means_one_device_with_its_dense_peak(driver_name, tmp_path):
    devices = known_devices(tmp_path)
    name, peak = DRIVER_NAMES[driver_name]
    assert device_called(driver_name, devices) == name
    assert devices[name].peak_flops["bf16"] == pytest.approx(peak, rel=1e-3)


@pytest.mark.parametrize(
    "driver_name", ["NVIDIA H100 80GB HBM3 MIG 1g.10gb", "NVIDIA GeForce RTX 4090 D", "Radeon", ""]
)
def test_a_slice_or_an_unknown_device_has_no_peak(driver_name, tmp_path):
    assert device_called(driver_name, known_devices(tmp_path)) is None


def test_the_users_file_adds_devices_and_replaces_single_figures(tmp_path):
    (tmp_path / "devices.toml").write_text(
        '[h100]\nprice_per_hour = 1.25\n\n[mine]\nnames = ["Mine 9"]\nflops_per_second = 1e12\n\n'
        "[cpu.rates.corpus]\nper_second = 7.0\n"
    )
    built_in, devices = known_devices(tmp_path / "nowhere"), known_devices(tmp_path)
    assert devices["h100"] == built_in["h100"].model_copy(update={"price_per_hour": 1.25})
    assert device_called("Mine 9", devices) == "mine"
    assert devices["cpu"].rates == built_in["cpu"].rates | {"corpus": Rate(per_second=7.0)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[mine]\nmemory_gib = 8\n", r"devices.toml: \[mine\]: a device needs flops_per_second, or peak_flops"),
        ("[mine]\nflops_per_secnd = 1.0\n", 'unknown key "flops_per_secnd"; did you mean "flops_per_second"'),
        ("mine = 3\n", r"mine = 3: expected a table, \[mine\]"),
        ("[mine\n", "not valid TOML"),
        ("[mine]\nflops_by_width = { wide = 1.0 }\n", "keys are model widths"),
        ("[mine]\nflops_per_second = 1.0\nfp32_flops_by_width = { wide = 1.0 }\n", "fp32_flops_by_width: keys are"),
        ("[mine.peak_flops]\nbf8 = 1.0\n", "bf8"),
    ],
)
def test_a_wrong_table_is_explained(text, message, tmp_path):
    (tmp_path / "devices.toml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        known_devices(tmp_path)


def test_rates_between_two_widths_lie_on_a_power_law_and_end_flat():
    entry = DeviceEntry(flops_by_width={"64": 1e10, "256": 4e10})
    assert entry.sustained_flops(128) == pytest.approx(2e10)
    assert entry.sustained_flops(8) == pytest.approx(1e10)
    assert entry.sustained_flops(4096) == pytest.approx(4e10)
    measured = entry.model_copy(update={"rates": {"pretrain": Rate(per_second=6e10, width=256, overhead_seconds=2)}})
    assert measured.training_rate("pretrain", 256) == (6e10, 2)
    # Another width as the table has it, another kind as the one alike.
    assert measured.training_rate("sft", 64)[0] == pytest.approx(1.5e10)
    assert measured.training_rate("dpo", 64) == measured.training_rate("pretrain", 64)


def test_rates_in_fp32_are_their_own_unless_the_user_states_rates_by_width(tmp_path):
    entry = DeviceEntry(flops_by_width={"64": 1e10}, fp32_flops_by_width={"64": 2e9, "256": 8e9})
    assert entry.sustained_flops(128, in_fp32=True) == pytest.approx(4e9)
    assert entry.training_rate("pretrain", 64, in_fp32=True)[0] == pytest.approx(2e9)
    measured = entry.model_copy(update={"rates": {"pretrain": Rate(per_second=3e9, width=64)}})
    assert measured.training_rate("pretrain", 256, in_fp32=True)[0] == pytest.approx(12e9)
    (tmp_path / "devices.toml").write_text('[cpu]\nflops_by_width = { "256" = 7e9 }\n')
    assert known_devices(tmp_path)["cpu"].sustained_flops(256, in_fp32=True) == pytest.approx(7e9)


def test_without_a_rate_a_share_of_the_peak_is_assumed():
    entry = DeviceEntry(peak_flops={"bf16": 100.0, "fp32": 10.0}, mfu=0.4)
    assert entry.training_rate("pretrain", 512) == (40.0, 5.0)
    assert DeviceEntry(peak_flops={"fp32": 10.0}, mfu=0.5).sustained_flops(1) == 5.0


def test_memory_of_a_child_process_is_counted_and_its_peak_kept():
    alone, _ = ProcessTree().usage()
    code = "import sys; x = bytearray(150_000_000); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        peak = PeakMemory(every_seconds=0.05)
        with peak.watching():
            until = time.monotonic() + 120
            while peak.bytes < alone + 150e6 and time.monotonic() < until:
                time.sleep(0.01)
    assert alone + 150e6 < peak.bytes < alone + 400e6
