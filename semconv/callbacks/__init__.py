"""Lightning callbacks for any LightningModule: record, cost, dynamics, divergence and pictures of a run.

The import needs neither Lightning nor W&B nor semconv's data and tasks. A plain loop can use the parts: `RunFolder`
(semconv.tracking.folder), `Throughput` and `count_flops` (semconv.cost), `contact_sheet` (semconv.pictures).
"""

from semconv.callbacks.cost import Cost
from semconv.callbacks.divergence import Diverged, Divergence
from semconv.callbacks.dynamics import Dynamics, measured
from semconv.callbacks.pictures import ErrorTable, Panels
from semconv.callbacks.record import Record

__all__ = ["Cost", "Diverged", "Divergence", "Dynamics", "ErrorTable", "Panels", "Record", "measured"]
