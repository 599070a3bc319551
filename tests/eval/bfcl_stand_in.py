"""A stand-in for the package bfcl-eval, so that conversations are tested where it is not installed.

Services of the same names and manners, a few lines each; the first two do something.
"""

from pathlib import Path

MODULES = {
    "gorilla_file_system": """
import os

class GorillaFileSystem:
    def _load_scenario(self, scenario, long_context=False):
        self.folders = scenario["folders"]
        self.long_context = long_context
        self.counted = 10
        self._log = []

    def ls(self):
        print("services may print")
        self._log.append("ls")
        return {"folders": self.folders * (3 if self.long_context else 1)}

    def mkdir(self, name):
        if name in self.folders:
            return {"error": f"{name} exists"}
        self.folders.append(name)
        return None

    def count(self, times):
        self.counted *= times

    def say(self, text):
        return text

    def end(self):
        os._exit(7)

    def _secret(self):
        return "secret"
""",
    "math_api": """
import time

class MathAPI:
    def power(self, base, exponent):
        return {"result": base ** exponent}

    def wait(self, seconds):
        time.sleep(seconds)

    def fill(self, gigabytes):
        return {"result": len(bytearray(gigabytes * 2**30))}
""",
    "message_api": "class MessageAPI: ...",
    "posting_api": "class TwitterAPI: ...",
    "ticket_api": "class TicketAPI: ...",
    "trading_bot": "class TradingBot: ...",
    "travel_booking": "class TravelAPI: ...",
    "vehicle_control": "class VehicleControlAPI: ...",
}


def write_stand_in(folder: Path, version: str = "0.stand.in") -> None:
    """The package and its metadata, in a folder for PYTHONPATH."""
    code = folder / "bfcl_eval/eval_checker/multi_turn_eval/func_source_code"
    code.mkdir(parents=True)
    for part in (code, *code.parents):
        if part == folder:
            break
        (part / "__init__.py").touch()
    for name, text in MODULES.items():
        (code / f"{name}.py").write_text(text)
    (folder / "bfcl_eval.dist-info").mkdir()
    (folder / "bfcl_eval.dist-info/METADATA").write_text(
        f"Metadata-Version: 2.1\nName: bfcl-eval\nVersion: {version}\n"
    )
