"""What /metrics tells, in Prometheus' text format: requests, tokens, times, and what the engines are doing."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gradus.serve.models import ModelTable
from gradus.serve.tally import Tally

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)
_LABELS = ("path", "status")


class Metrics:
    """Counters of one server. Labels are its own paths, models and accounts, never words of a client."""

    def __init__(self, models: ModelTable) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Engines(models))
        self._requests = Counter("gradus_requests", "Requests by path and status.", _LABELS, registry=self._registry)
        self._tokens = Counter(
            "gradus_tokens", "Tokens of answers by account, model and kind.", ("account", "model", "kind"),
            registry=self._registry,
        )  # fmt: skip
        self._first = Histogram(
            "gradus_first_token_seconds", "From a request to the first of its answer.", ("model",), buckets=_SECONDS,
            registry=self._registry,
        )  # fmt: skip
        self._whole = Histogram(
            "gradus_answer_seconds", "From a request to the end of its answer.", ("model",), buckets=_SECONDS,
            registry=self._registry,
        )  # fmt: skip

    def responded(self, path: str, status: int) -> None:
        """A response has begun."""
        self._requests.labels(path, str(status)).inc()

    def answered(self, account: str, model: str, tally: Tally) -> None:
        """An answer is over, to its end or not."""
        timings = tally.timings()
        self._tokens.labels(account, model, "prompt").inc(tally.num_prompt_tokens)
        self._tokens.labels(account, model, "sampled").inc(tally.num_tokens)
        self._whole.labels(model).observe(timings["seconds"])
        if tally.first_at is not None:
            self._first.labels(model).observe(timings["first_token_seconds"])

    def text(self, account: str | None = None) -> bytes:
        """All of it, or, for an account, without what is told of others."""
        registry = self._registry if account is None else _OfAccount(self._registry, account)
        return generate_latest(registry)


class _OfAccount(CollectorRegistry):
    """A registry without the samples of other accounts."""

    def __init__(self, whole: CollectorRegistry, account: str) -> None:
        super().__init__()
        self._whole, self._account = whole, account

    def collect(self) -> Iterable[Metric]:
        for metric in self._whole.collect():
            metric.samples = [s for s in metric.samples if s.labels.get("account", self._account) == self._account]
            yield metric


class _Engines(Collector):
    """The engines' own figures, read when they are asked for."""

    def __init__(self, models: ModelTable) -> None:
        self._models = models

    def collect(self) -> Iterable[Metric]:
        gauges = {"num_slots": "slots", "num_live": "live_requests", "num_waiting": "waiting_requests"}
        counters = {
            "num_requests": "engine_requests", "num_finished": "engine_finished", "num_cancelled": "engine_cancelled",
            "num_failed": "engine_failed", "num_sampled_tokens": "engine_sampled_tokens",
            "num_prompt_tokens": "engine_prompt_tokens",
        }  # fmt: skip
        stats = {model.source.name: model.service.stats() for model in self._models}
        for field, name in gauges.items():
            gauge = GaugeMetricFamily(f"gradus_{name}", f"{name.replace('_', ' ')} of a model.", labels=["model"])
            for model, found in stats.items():
                gauge.add_metric([model], getattr(found, field))
            yield gauge
        for field, name in counters.items():
            text = f"{name.replace('_', ' ')} of a model since it was loaded."
            counter = CounterMetricFamily(f"gradus_{name}", text, labels=["model"])
            for model, found in stats.items():
                counter.add_metric([model], getattr(found, field))
            yield counter
