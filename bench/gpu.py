"""Claim: speed on one GPU, of training beside a plain PyTorch loop, transformers' Trainer and TRL, and of decoding
beside transformers' generate; and the GPU tests pass.

    python bench/gpu.py                        everything that fits into --budget-seconds, in the order of PARTS
    python bench/gpu.py --only d24 experts     these parts alone
    python bench/gpu.py --device cpu --smoke   the same code at toy size, on any machine, in a minute or two

For a rented machine: results are written after every measurement, and what is in the file is not measured again, so
a run that was cut off, or ran out of its budget, goes on by the same command. Needs torch and what gradus itself needs,
no network; bench/README.md says how to bring it along. What is not installed of the peers is left out and named.

Models are measured at --context tokens a row (one document each), --rows rows a step, on each side as many at a time as
memory takes. MFU is of the table of peaks in gradus; FLOPs are those of causal attention, and beside it those of
6 N + 12 L d T, as others count. `documents` is ours with rows of four documents, which others do not keep apart.
Decoding is of d12, for 1, 8 and 64 rows: ours step by step, ours with compiled steps, and transformers.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench_record import machine, write_result

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
NEEDED = ("torch", "numpy", "safetensors", "pydantic", "psutil")  # by the training core
NEEDED_BY_PART = {
    "tests": ("pytest", "hypothesis", "tokenizers", "jinja2", "jsonschema", "tiktoken", "pyarrow"),
    "sft": ("trl", "transformers", "datasets", "tokenizers", "jinja2", "jsonschema", "tiktoken", "pyarrow"),
}
NEEDED_BY_SIDE = {
    "plain": ("transformers",), "trainer": ("transformers", "accelerate"), "transformers": ("transformers",),
}  # fmt: skip
EXPERTS = {"preset": "d12", "num_experts": 16, "experts_per_token": 2}
MODELS: dict[str, str | dict[str, Any]] = {"d12": "d12", "d20": "d20", "d24": "d24", "experts": EXPERTS}
SIDES = ("gradus", "gradus without compile", "gradus documents", "plain", "trainer")
DECODE_SIDES = ("gradus", "compiled", "transformers")
PARTS = ("tests", *MODELS, "decode", "sft")
# Of one measurement, its compilation included; of all tests, of both sides of fine-tuning.
MOST_SECONDS, TESTS_SECONDS, SFT_SECONDS = 120.0, 240.0, 240.0
LEAST_SECONDS = 20.0  # with less left there is no point in starting
TOY: dict[str, Any] = {"depth": 2, "width": 64, "head_dim": 32}


class Session:
    """What has been measured, on the disk after each measurement, and the time that is left."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.ends = time.monotonic() + args.budget_seconds
        self.result: dict[str, Any] = {"parts": {}}
        keys = ("context", "rows", "vocab_size", "steps", "smoke", "device")
        self.measured = {"shape": {key: getattr(args, key) for key in keys}, "device": device_facts(args)}
        if args.out.exists():
            self.result = json.loads(args.out.read_text())
            before = {key: self.result.get(key) for key in self.measured}
            others = [f"{key}, {value}" for key, value in before.items() if value != self.measured[key]]
            if others:
                sys.exit(f"{args.out}: was measured at another {' and '.join(others)}; name another file with --out")
        # The latest words on what could not be measured are this run's.
        self.result["left_out"] = {}

    @property
    def seconds_left(self) -> float:
        return float(self.ends - time.monotonic())

    def has(self, part: str, side: str) -> bool:
        return side in self.result["parts"].get(part, {})

    def record(self, part: str, side: str, figures: dict[str, Any]) -> None:
        self.result["parts"].setdefault(part, {})[side] = figures
        self.write()
        print(f"{part}, {side}: {summary(figures)}", flush=True)

    def leave_out(self, part: str, side: str, reason: str) -> None:
        self.result["left_out"][f"{part}, {side}"] = reason
        self.write()
        print(f"{part}, {side}: left out, {reason}", flush=True)

    def write(self) -> None:
        facts = {"claim": "speed on one GPU", **machine(), **self.measured}
        write_result(self.args.out, self.result | facts)


def device_facts(args: argparse.Namespace) -> dict[str, Any]:
    """The GPU, its driver's CUDA and the peak that MFU is a share of."""
    import torch

    if args.device == "cpu":
        return {"name": platform.processor() or "cpu", "peak_flops": None}
    properties = torch.cuda.get_device_properties(0)
    return {
        "name": properties.name,
        "memory_bytes": properties.total_memory,
        "capability": list(torch.cuda.get_device_capability(0)),
        "cuda": torch.version.cuda,
        "peak_flops": peak_flops(properties.name),
    }


def peak_flops(name: str) -> float | None:
    """bf16 FLOPs a second of a device that the driver calls so; None where the table has none."""
    from gradus.core.devices import device_called, known_devices

    devices = known_devices(Path(tempfile.gettempdir()) / "no-home")
    known = device_called(name, devices)
    return devices[known].peak_flops.get("bf16") if known is not None else None


def summary(figures: dict[str, Any]) -> str:
    """One line of what was measured."""
    if "tokens_per_second" not in figures:
        return ", ".join(f"{name} {value}" for name, value in figures.items() if isinstance(value, int | float))
    words = [f"{figures['tokens_per_second']:,.0f} tok/s"]
    if figures.get("mfu") is not None:
        words.append(f"MFU {figures['mfu']:.1%} ({figures['mfu_whole_rows']:.1%} as 6N + 12LdT)")
    if figures.get("optimizer_fraction") is not None:
        words.append(f"optimizer {figures['optimizer_fraction']:.1%}")
    if figures.get("compile_seconds") is not None:
        words.append(f"compiled in {figures['compile_seconds']:.0f} s")
    if figures.get("peak_allocated_bytes"):
        words.append(f"{figures['peak_allocated_bytes'] / 2**30:.1f} GiB")
    return ", ".join(words)


def missing(names: tuple[str, ...]) -> list[str]:
    """Packages of these that cannot be imported here."""
    return [name for name in names if importlib.util.find_spec(name) is None]


def environment() -> dict[str, str]:
    """For processes that this one starts: gradus is taken from beside this file."""
    return os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(HERE)]),
        "TOKENIZERS_PARALLELISM": "false",
    }


def run(command: list[str], seconds: float) -> tuple[int | None, str]:
    """(exit status, None where it ran out of time; what it printed, errors behind it)."""
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment(), cwd=ROOT, start_new_session=True, **pipes) as process:
        try:
            out, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            # With all that it started, which would go on using the GPU.
            os.killpg(process.pid, signal.SIGKILL)
            out, errors = process.communicate()
            return None, out + errors
    return process.returncode, out + errors


def last_json(text: str) -> dict[str, Any] | None:
    """The last line that is a JSON object."""
    for line in reversed(text.splitlines()):
        if line.startswith("{"):
            found: dict[str, Any] = json.loads(line)
            return found
    return None


def tests(session: Session) -> None:
    """`pytest -m gpu`, again until all pass; on a CPU the same tests are collected and skipped."""
    if session.result["parts"].get("tests", {}).get("pytest -m gpu", {}).get("exit_status") == 0:
        return
    files = (
        ["tests/train", "tests/model", "tests/engine"] if not session.args.smoke else ["tests/train/test_on_cuda.py"]
    )
    options = ["-m", "gpu", "-q", "-p", "no:cacheprovider", "--no-header"]
    command = [sys.executable, "-m", "pytest", *options, *files]
    began = time.monotonic()
    status, said = run(command, min(TESTS_SECONDS, session.seconds_left))
    tail = said.strip().splitlines()[-40:]
    figures = {"exit_status": status, "seconds": time.monotonic() - began, "last_lines": tail}
    session.record("tests", "pytest -m gpu", figures)
    print("\n".join(tail[-15:]), flush=True)


def job(session: Session, part: str, side: str) -> dict[str, Any]:
    """What gpu_sides.py is asked to measure."""
    args = session.args
    model: Any = MODELS[part]
    if args.smoke:
        model = TOY | ({k: v for k, v in EXPERTS.items() if k != "preset"} if part == "experts" else {})
    return {
        "model": model,
        "vocab_size": args.vocab_size,
        "context": args.context,
        "rows": args.rows,
        "micro_rows": args.micro_rows,
        "steps": args.steps,
        "windows": args.windows,
        "device": args.device,
        "compile": side != "gradus without compile" and not args.smoke,
        "document_tokens": args.context // 4 if side == "gradus documents" else None,
    }


def decode_job(session: Session) -> dict[str, Any]:
    """What gpu_decode.py is asked to measure."""
    args = session.args
    shape = {"batches": [1, 2], "prompt": 8, "generate": 12, "runs": 1} if args.smoke else {
        "batches": [1, 8, 64], "prompt": 64, "generate": 256, "runs": 3,
    }  # fmt: skip
    model: Any = TOY if args.smoke else MODELS["d12"]
    return shape | {
        "model": model,
        "vocab_size": args.vocab_size,
        "context": args.context,
        "device": args.device,
    }


def sides_of(session: Session, part: str, script: str, jobs: dict[str, dict[str, Any]]) -> None:
    """Measure every side of a part that is not in the file, each by a script in a process of its own."""
    for side, asked in jobs.items():
        if session.has(part, side):
            continue
        lacking = missing(NEEDED_BY_SIDE.get(side, ()))
        if lacking:
            session.leave_out(part, side, f"not installed: {', '.join(lacking)}")
            continue
        if session.seconds_left < LEAST_SECONDS:
            session.leave_out(part, side, "out of time; run the same command again")
            continue
        command = [sys.executable, str(HERE / script), side.split()[0], json.dumps(asked)]
        status, said = run(command, min(MOST_SECONDS, session.seconds_left))
        figures = last_json(said) if status == 0 else None
        if figures is None:
            reason = "out of time" if status is None else f"exit status {status}"
            session.leave_out(part, side, f"{reason}: {' | '.join(said.strip().splitlines()[-6:])}")
            continue
        peak = session.measured["device"]["peak_flops"]
        if "flops_per_second" in figures:
            figures["mfu"] = figures["flops_per_second"] / peak if peak else None
            figures["mfu_whole_rows"] = figures["flops_per_second_whole_rows"] / peak if peak else None
        session.record(part, side, figures)


def model_part(session: Session, part: str) -> None:
    """Every side of one model's training."""
    sides_of(session, part, "gpu_sides.py", {side: job(session, part, side) for side in SIDES})


def decode(session: Session) -> None:
    """Every side of decoding."""
    sides_of(session, "decode", "gpu_decode.py", dict.fromkeys(DECODE_SIDES, decode_job(session)))


def sft(session: Session) -> None:
    """Fine-tuning beside TRL, by bench/trl_sft.py."""
    if session.has("sft", "gradus and trl"):
        return
    args = session.args
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.conversations or made_conversations(Path(scratch), 300 if args.smoke else 4000)
        out = Path(scratch) / "sft.json"
        shape = {"depth": 1, "vocab-size": 512, "context": 128, "batch-tokens": 1024, "steps": 5}
        if not args.smoke:
            shape = {"depth": 12, "vocab-size": 16384, "context": 2048, "batch-tokens": 65536, "steps": 15}
        words = [word for name, value in shape.items() for word in (f"--{name}", str(value))]
        command = [
            sys.executable, str(HERE / "trl_sft.py"), "--peer-python", sys.executable, "--conversations", str(folder),
            "--device", args.device, "--rounds", "1", "--wait-quiet", "0", "--out", str(out), *words,
        ]  # fmt: skip
        status, said = run(command, min(SFT_SECONDS, session.seconds_left))
        if status != 0:
            reason = "out of time" if status is None else f"exit status {status}"
            session.leave_out("sft", "gradus and trl", f"{reason}: {' | '.join(said.strip().splitlines()[-6:])}")
            return
        found = json.loads(out.read_text())
    kept = ("ratio", "data", "shape", "peer_versions")
    figures = {name: found[name] for name in kept} | {"by_side": found["tokens_per_second"]}
    session.record("sft", "gradus and trl", figures)


def made_conversations(folder: Path, number: int) -> Path:
    """Questions and answers of random words, of the lengths that short chats have, where none are at hand."""
    generator = random.Random(0)
    syllables = [a + b for a in "bdfgklmnprst" for b in "aeiou"]
    words = ["".join(generator.choices(syllables, k=generator.randint(1, 3))) for _ in range(3000)]

    def text(mean: float) -> str:
        return " ".join(generator.choices(words, k=max(3, round(generator.lognormvariate(0, 0.7) * mean))))

    lines = [json.dumps({"instruction": text(25), "output": text(120)}) for _ in range(number)]
    target = folder / "made"
    target.mkdir()
    (target / "made.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return target


def problems(args: argparse.Namespace) -> Iterator[str]:
    """What stands against measuring anything at all."""
    lacking = missing(NEEDED)
    if lacking:
        yield (
            f"not installed: {', '.join(lacking)}. Where there is a network: pip install -e . ; where there is none, "
            "bring a folder of wheels from a machine that has one (bench/README.md): pip download -d wheelhouse "
            "-r bench/gpu.txt, and here: pip install --no-index --find-links wheelhouse -r bench/gpu.txt"
        )
        return
    import torch

    if args.device == "cuda" and not torch.cuda.is_available():
        yield f"torch {torch.__version__} sees no CUDA device; --device cpu --smoke tries the script without one"


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--smoke", action="store_true", help="toy size, trained uncompiled")
    parser.add_argument("--budget-seconds", type=float, default=520)
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--rows", type=int, default=32, help="rows a step")
    parser.add_argument("--micro-rows", type=int, default=32, help="rows at a time, to begin with")
    parser.add_argument("--vocab-size", type=int, default=32768)
    parser.add_argument("--steps", type=int, default=5, help="steps in a timed window")
    parser.add_argument("--windows", type=int, default=3)
    parser.add_argument("--conversations", type=Path, help="folder of records for fine-tuning; made up if left out")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.smoke:
        args.context, args.rows, args.micro_rows, args.vocab_size, args.steps, args.windows = 64, 4, 2, 512, 1, 1
    # At toy size d20 and d24 would be d12 again.
    args.only = args.only or (["tests", "d12", "experts", "decode", "sft"] if args.smoke else list(PARTS))
    args.out = args.out or HERE / "results" / ("gpu-smoke.json" if args.smoke else "gpu.json")
    if found := list(problems(args)):
        sys.exit("\n".join(found))
    session = Session(args)
    for part in args.only:
        lacking = missing(NEEDED_BY_PART.get(part, ()))
        if lacking:
            session.leave_out(part, "all", f"not installed: {', '.join(lacking)}")
        elif session.seconds_left < LEAST_SECONDS:
            session.leave_out(part, "all", "out of time; run the same command again")
        elif part in MODELS:
            model_part(session, part)
        else:
            {"tests": tests, "decode": decode, "sft": sft}[part](session)
    print(f"{args.out}: {len(session.result['left_out'])} measurements left out")


if __name__ == "__main__":
    main()
