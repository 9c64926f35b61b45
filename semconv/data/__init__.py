"""Images in batches, whose order and augmentation depend on (seed, epoch, index) only."""

from semconv.data.batch import Batch as Batch
from semconv.data.module import ImageData as ImageData
