"""Binned targets take their bins from the prepared labels, and keep them in the bundle."""

import numpy as np
import pytest

from models.zoo import resolve
from pipelines.bundle import load_bundle
from pipelines.train import TrainConfig, train
from tests.pipelines.fabricate import fabricate
from tests.samples import full_schema

MODEL = {"system": "mmoe", "embedding_width": 4, "fusion": {"experts": 2, "hidden": [8], "towers": [4]}}


@pytest.mark.parametrize("weighting", ["fixed", "stage"])
def test_the_bundle_has_the_bins_of_the_encoder(tmp_path, weighting):
    prepared = fabricate(tmp_path / "data", schema=full_schema())
    model = resolve({**MODEL, "weighting": {"kind": weighting}})
    result = train(prepared, model, TrainConfig(epochs=1, batch_feeds=64), output=tmp_path / "run", say=lambda line: None)
    edges = load_bundle(result.bundle_path).ranker.losses.binned["visit"].edges_E
    quantiles = prepared.encoder.label_quantiles["visit"]
    # three bins: cuts at a third and two thirds of the positive labels
    np.testing.assert_allclose(edges.numpy(), np.interp([1 / 3, 2 / 3], np.linspace(0, 1, 257), quantiles), rtol=1e-6)
    assert edges[0] == pytest.approx(-60 * np.log(2 / 3), rel=0.01)  # of exponential stays with a mean of a minute
