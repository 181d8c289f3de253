"""FOLDERS of photos -> seconds that the audit adds to a training of all of them, with features.

    python benchmarks/audit_time.py ../shared/data/birds6 [FOLDER ...]

Features are those of the installed network, cached by the first run. Added are: measurements, which
are taken while images are decoded; the search for near-duplicates among up to 5,000 images; and the
audit after training. All seconds are of CPU time.
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
from residua.config.schema import IMAGENET
from residua.config.validate import checked
from residua.data.measurements import measure, sample
from residua.data.near_duplicates import near_duplicates_of
from residua.data.prepare import prepare
from residua.inference.feature_layers import FeatureLayer
from residua.inference.features import FeatureExtractor
from residua.inference.logistic import single_blas_thread
from residua.runs.sources import initial_weights
from residua.system.console import Console
from residua.training.initial import initial_network


def measuring(prepared, samples):
    """Seconds of measuring all images, from every n-th of them."""
    spent = []
    for index in samples[:: max(1, len(samples) // 500)].tolist():
        content = prepared.dataset.content(index)
        header = prepared.dataset.header(index, content, 10**8)
        pixels = prepared.dataset.pixels(index, content, 3, 10**8)
        began = time.process_time()
        measure([sample(header, content, pixels)])
        spent.append(time.process_time() - began)
    return np.mean(spent) * len(samples)


def main(folders):
    print(conditions("scikit-learn"))
    single_blas_thread()  # imports scikit-learn, as a training with features has
    with tempfile.TemporaryDirectory() as target:
        for folder in map(Path, folders):
            for path in sorted(folder.iterdir()):
                if path.is_dir():
                    Path(target, f"{folder.name}-{path.name}").symlink_to(path.resolve())
        console = Console(quiet=True)
        settings = {"network.weights": IMAGENET, "transfer.strategy": "features"}
        config = checked(compose(target, None, settings))
        weights = initial_weights(config, console)
        prepared = prepare(config, console, weights.expects)
        samples = prepared.readable
        network = initial_network(prepared.config, weights, prepared.device)
        extractor = FeatureExtractor(network, prepared, weights.sha256())
        layer = FeatureLayer(extractor.stages.count, 1)
        features = extractor.rows([layer], samples).values[layer]
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        seconds = {"measuring": measuring(prepared, samples), "near-duplicates": 0.0}
        if prepared.config.data.duplicates == "near":
            began = time.process_time()
            near_duplicates_of(prepared.pixels, samples.tolist())
            seconds["near-duplicates"] = time.process_time() - began
        began = time.process_time()
        audit = check_training(prepared, samples, features)
        seconds["audit"] = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    steps = ", ".join(f"{name} {value:.1f}" for name, value in audit.seconds.items())
    added = ", ".join(f"{name} {value:.1f}" for name, value in seconds.items())
    print(audit.summary)
    print(f"  {sum(seconds.values()):.1f} s: {added}")
    print(f"  the audit by step, of elapsed time: {steps}")
    print(f"  peak {peak:.1f} GiB, {before:.1f} before the audit")


if __name__ == "__main__":
    main(sys.argv[1:])
