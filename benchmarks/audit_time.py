"""FOLDERS of photos -> seconds that the audit adds to a training of all of them, with features.

    python benchmarks/audit_time.py ../shared/data/birds6 [FOLDER ...]

Features are random numbers around a point of each class: their values hardly change the time.
Measuring happens while photos are decoded; its time is of one thread.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from conditions import conditions

from residua.audits.audit import check_training
from residua.config.recipes import compose
from residua.config.validate import checked
from residua.data.measurements import measure
from residua.data.prepare import prepare
from residua.system.console import Console
from residua.transfer.logistic import single_blas_thread


def main(folders):
    print(conditions("scikit-learn"))
    single_blas_thread()  # imports scikit-learn, as a training with features has
    with tempfile.TemporaryDirectory() as target:
        for folder in map(Path, folders):
            for path in sorted(folder.iterdir()):
                if path.is_dir():
                    Path(target, f"{folder.name}-{path.name}").symlink_to(path.resolve())
        settings = {"data.duplicates": "exact", "preprocessing.size": 128}
        prepared = prepare(checked(compose(target, None, settings)), Console(quiet=True))
        samples = prepared.readable
        generator = np.random.default_rng(0)
        centres = generator.normal(size=(len(prepared.dataset.classes), 1280))
        features = centres[prepared.labels[samples]] + 6 * generator.normal(
            size=(len(samples), 1280)
        )
        spent = []
        for index in samples[:: max(1, len(samples) // 200)].tolist():
            content = prepared.dataset.content(index)
            header = prepared.dataset.header(index, content, 10**8)
            pixels = prepared.dataset.pixels(index, content, 3, 10**8)
            began = time.process_time()
            measure(header, content, pixels)
            spent.append(time.process_time() - began)
        began = time.monotonic()
        audit = check_training(prepared, samples, features.astype(np.float32))
        total = time.monotonic() - began
    measured = np.mean(spent) * len(samples)
    steps = ", ".join(f"{name} {seconds:.1f}" for name, seconds in audit.seconds.items())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{audit.summary}")
    print(f"  {measured:.1f} s measuring, {total:.1f} s audit ({steps}); {peak:.1f} GiB")


if __name__ == "__main__":
    main(sys.argv[1:])
