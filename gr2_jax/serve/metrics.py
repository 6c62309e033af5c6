"""What the server counts, for Prometheus."""

import os

import prometheus_client as prometheus
from prometheus_client import multiprocess

_SECONDS = (
  *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0),
  *(10.0, 30.0),
)


class Metrics:
  """Counters of one server.

  Attributes:
    requests: by route and status.
    latency: seconds from the request to its answer, by route.
    queued: seconds that lists waited, by kind.
    computed: seconds that batches took, by kind.
    sizes: lists of batches, by kind.
    fallbacks: lists that got their incoming order, by reason.
    rejected: requests that found the queue full.
    compilations: programs compiled for requests after the warm-up: should be 0.
    waiting: lists in the queue.
  """

  def __init__(self):
    """Sets all to 0, in a registry of their own."""
    self._registry = prometheus.CollectorRegistry()
    histogram = lambda name, text, label, buckets=_SECONDS: (
      prometheus.Histogram(
        name, text, [label], registry=self._registry, buckets=buckets
      )
    )
    count = lambda name, text, labels=(): prometheus.Counter(
      name, text, labels, registry=self._registry
    )
    self.requests = count('gr2_requests', 'Requests.', ['route', 'status'])
    self.latency = histogram(
      'gr2_request_seconds', 'From the request to its answer.', 'route'
    )
    self.queued = histogram('gr2_queue_seconds', 'Lists in the queue.', 'kind')
    self.computed = histogram(
      'gr2_batch_seconds', 'Batches on the devices.', 'kind'
    )
    self.sizes = histogram(
      'gr2_batch_lists', 'Lists of batches.', 'kind', [1 << n for n in range(9)]
    )
    self.fallbacks = count(
      'gr2_fallbacks', 'Lists answered by their incoming order.', ['reason']
    )
    self.rejected = count('gr2_rejected', 'Requests that found no room.')
    self.compilations = count(
      'gr2_compilations_after_warm_up', 'Programs compiled for requests.'
    )
    self.waiting = prometheus.Gauge(
      'gr2_queue_lists',
      'Lists in the queue.',
      registry=self._registry,
      multiprocess_mode='livesum',
    )

  def heard(self, kind: str, found: list) -> None:
    """Books a batch.

    Args:
      kind: 'direct' or 'explained'.
      found: one `batcher.Answered` a list.
    """
    self.computed.labels(kind).observe(found[0].seconds)
    self.sizes.labels(kind).observe(found[0].size)
    for each in found:
      self.queued.labels(kind).observe(each.queued)

  def text(self) -> bytes:
    """Returns all numbers as Prometheus reads them, of workers their sums."""
    registry = self._registry
    if 'PROMETHEUS_MULTIPROC_DIR' in os.environ:
      registry = prometheus.CollectorRegistry()
      multiprocess.MultiProcessCollector(registry)
    return prometheus.generate_latest(registry)

  @property
  def content_type(self) -> str:
    """What `text` is."""
    return prometheus.CONTENT_TYPE_PLAIN_0_0_4
