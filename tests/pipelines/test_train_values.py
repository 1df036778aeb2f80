"""Values keep in the bundle what training found of them: bins of the encoder, and what validation mends."""

import numpy as np
import pytest

from models.zoo import resolve
from pipelines.bundle import load_bundle
from pipelines.evaluate import evaluate_table, score
from pipelines.train import TrainConfig, train
from tests.pipelines.fabricate import fabricate
from tests.samples import full_schema

MODEL = {"system": "mmoe", "embedding_width": 4, "fusion": {"experts": 2, "hidden": [8], "towers": [4]}}


@pytest.mark.parametrize("weighting", ["fixed", "stage"])
def test_the_bundle_has_the_bins_of_the_encoder_and_adds_up(tmp_path, weighting):
    """What `log1p` and `zero_inflated` answer is mended on the validation split, so there it sums up to what was observed,
    in the metrics that training wrote and in what the bundle predicts."""
    prepared = fabricate(tmp_path / "data", schema=full_schema())
    model = resolve({**MODEL, "weighting": {"kind": weighting}})
    result = train(prepared, model, TrainConfig(epochs=1, batch_feeds=64), output=tmp_path / "run", say=lambda line: None)
    bundle = load_bundle(result.bundle_path)
    edges = bundle.ranker.losses.values["visit"].edges_E
    quantiles = prepared.encoder.label_quantiles["visit"]
    # three bins: cuts at a third and two thirds of the positive labels
    np.testing.assert_allclose(edges.numpy(), np.interp([1 / 3, 2 / 3], np.linspace(0, 1, 257), quantiles), rtol=1e-6)
    assert edges[0] == pytest.approx(-60 * np.log(2 / 3), rel=0.01)  # of exponential stays with a mean of a minute
    found = evaluate_table(score(bundle.ranker, bundle.schema, prepared.files("valid")), bundle.schema)
    for name in ("stay", "price"):
        written = bundle.metrics["targets"][name]
        assert found.value(f"{name}.calibration") == pytest.approx(written["calibration"], rel=1e-5)
        assert written["calibration"] == pytest.approx(1, abs=0.1)
        assert found.value(f"{name}.mse_transformed") == pytest.approx(written["mse_transformed"], rel=1e-5)
