"""Bundles: what is saved is what is loaded, and what does not belong together is refused."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from models.config import ConfigError, to_dict
from models.ranker import Ranker
from models.zoo import resolve
from pipelines.bundle import FILES, DamagedBundle, load_bundle, provenance, save_bundle
from pipelines.tune.folder import note
from tests.pipelines.fabricate import fabricate
from tests.samples import TABLE_SIZES, random_batch

MODEL = resolve({"system": "esmm", "embedding_width": 4, "fusion": {"hidden": [8]}})


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return fabricate(tmp_path_factory.mktemp("prepared") / "data", train_files=(4,), valid_files=())


@pytest.fixture(scope="module")
def ranker(prepared):
    torch.manual_seed(0)
    return Ranker(prepared.schema, MODEL, prepared.encoder.table_sizes)


@pytest.fixture
def bundle(prepared, ranker, tmp_path):
    return save(tmp_path / "esmm-1", prepared, ranker)


def save(path, prepared, ranker, model=MODEL):
    return save_bundle(
        path,
        schema=prepared.schema,
        system=model,
        encoder=prepared.encoder,
        ranker=ranker,
        metrics={"mean": {"auc": 0.75}},
        provenance=provenance(seed=3),
    )


def test_what_is_saved_is_what_is_loaded(bundle, prepared, ranker):
    loaded = load_bundle(bundle)
    assert (loaded.schema, loaded.system, loaded.name) == (prepared.schema, MODEL, "esmm-1")
    assert loaded.encoder.fingerprint == prepared.encoder.fingerprint
    assert loaded.metrics == {"mean": {"auc": 0.75}}
    assert loaded.provenance["seed"] == 3
    assert not loaded.ranker.training
    batch = random_batch(prepared.schema, TABLE_SIZES, feeds=5, seed=1)
    with torch.no_grad():
        expected, found = ranker.eval().predict(batch), loaded.ranker.predict(batch)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert sorted(path.name for path in bundle.iterdir()) == sorted(FILES)


def test_a_bundle_is_replaced_as_a_whole(bundle, prepared, ranker):
    (bundle / "left-over").touch()
    save(bundle, prepared, ranker)
    assert sorted(path.name for path in bundle.iterdir()) == sorted(FILES)
    assert [path.name for path in bundle.parent.iterdir()] == ["esmm-1"]


def test_provenance_says_versions_and_time():
    known = provenance(seed=1)
    assert known["versions"]["torch"] == torch.__version__
    assert known["created"].startswith("20") and known["seed"] == 1
    assert known["git_commit"] is None or len(known["git_commit"].rstrip("+")) == 40


def test_no_bundle_there(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no bundle at .*nowhere"):
        load_bundle(tmp_path / "nowhere")


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(bundle, name):
    part = bundle / name
    shutil.rmtree(part) if part.is_dir() else part.unlink()
    with pytest.raises(ConfigError, match=f"not a whole bundle: {name} missing"):
        load_bundle(bundle)


def test_the_schema_of_another_bundle_is_refused(bundle, prepared):
    spelling = prepared.schema.to_dict()
    spelling["targets"][0]["fusion_weight"] = 0.9
    (bundle / "schema.json").write_text(json.dumps(spelling))
    with pytest.raises(ConfigError, match="the schema is not the one its weights were trained with"):
        load_bundle(bundle)


def test_the_config_of_another_bundle_is_refused(bundle):
    (bundle / "config.json").write_text(json.dumps(to_dict(replace(MODEL, embedding_width=5))))
    with pytest.raises(ConfigError, match="the config is not the one"):
        load_bundle(bundle)


def test_a_key_that_the_config_got_later_does_not_spoil_old_bundles(bundle, prepared, ranker, tmp_path):
    spelled = to_dict(MODEL)
    del spelled["hidden_ids"]  # as it was before the key was there
    (bundle / "config.json").write_text(json.dumps(spelled))
    sealed(bundle, prepared, ranker.state_dict())
    assert load_bundle(bundle).system == MODEL


def sealed(bundle, prepared, tensors):
    """Weights that belong to the files as they lie there now, as another version of this program would leave them."""
    from pipelines import bundle as module

    spelled = {part: json.loads((bundle / name).read_text()) for part, name in module._SPELLED.items()}
    digest = module._digest(tensors)
    metadata = module._parts(spelled, prepared.encoder) | {module._TENSORS: digest}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, bundle / "weights.safetensors", metadata)
    module._write_provenance(bundle, provenance(seed=3), digest)


def test_what_is_said_of_a_bundle_later_is_said_with_it(bundle):
    """As a search says which of its trials won."""
    note(bundle, "search", {"trials": 3})
    known = load_bundle(bundle).provenance
    assert known["search"] == {"trials": 3} and known["seed"] == 3 and "weights" not in known and "digest" not in known
    text = (bundle / "provenance.json").read_text()
    (bundle / "provenance.json").write_text(text.replace('"trials": 3', '"trials": 9'))
    for use in (load_bundle, lambda path: note(path, "search", {})):
        with pytest.raises(DamagedBundle, match=r"provenance.json is damaged \(it does not hold what was written to it\)"):
            use(bundle)


def test_the_encoder_of_another_bundle_is_refused(bundle, prepared):
    replace(prepared.encoder, entry_rate=0.25).save(bundle / "encoder")
    with pytest.raises(ConfigError, match="the encoder is not the one"):
        load_bundle(bundle)


def test_the_weights_of_another_ranker_are_refused(bundle, prepared, tmp_path):
    wider = replace(MODEL, embedding_width=6)
    other = save(tmp_path / "other", prepared, Ranker(prepared.schema, wider, prepared.encoder.table_sizes), wider)
    shutil.copy(other / "weights.safetensors", bundle / "weights.safetensors")
    with pytest.raises(ConfigError, match="the config is not the one its weights were trained with"):
        load_bundle(bundle)


def edited(bundle, prepared, edit):
    """The bundle with other tensors, as a change of the model's code would leave it."""
    tensors = load_file(bundle / "weights.safetensors")
    edit(tensors)
    sealed(bundle, prepared, tensors)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("metrics.json", "the file of metrics is not the one its weights were trained with"),
        ("provenance.json", "the provenance is that of other weights"),
    ],
)
def test_a_file_of_another_bundle_is_refused(bundle, prepared, tmp_path, name, message):
    torch.manual_seed(1)
    other = save_bundle(
        tmp_path / "other",
        schema=prepared.schema,
        system=MODEL,
        encoder=prepared.encoder,
        ranker=Ranker(prepared.schema, MODEL, prepared.encoder.table_sizes),
        metrics={"mean": {"auc": 0.99}},
        provenance=provenance(seed=4),
    )
    shutil.copy(other / name, bundle / name)
    with pytest.raises(DamagedBundle, match=message):
        load_bundle(bundle)


def test_weights_with_another_bit_are_refused(bundle):
    file = bundle / "weights.safetensors"
    held = bytearray(file.read_bytes())
    held[-2] ^= 1
    file.write_bytes(held)
    with pytest.raises(DamagedBundle, match=r"weights.safetensors does not hold what was written to it. Copy it again"):
        load_bundle(bundle)


def test_weights_of_a_wrong_shape_are_refused(bundle, prepared, ranker):
    name = next(name for name, tensor in ranker.state_dict().items() if tensor.ndim == 1)
    edited(bundle, prepared, lambda tensors: tensors.update({name: torch.zeros(99)}))
    with pytest.raises(ConfigError, match=rf"{name} has shape \[99\], the ranker needs \[32\].*train again"):
        load_bundle(bundle)


def test_missing_and_unknown_weights_are_refused(bundle, prepared, ranker):
    name = next(iter(ranker.state_dict()))
    edited(bundle, prepared, lambda tensors: tensors.update({"renamed": tensors.pop(name)}))
    with pytest.raises(ConfigError, match=f"{name} is missing; renamed is not known"):
        load_bundle(bundle)


@pytest.mark.parametrize("keep", [4, 100, -1])
def test_truncated_weights_are_refused(bundle, keep):
    file = bundle / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ConfigError, match=r"weights.safetensors is damaged or cut short"):
        load_bundle(bundle)


@pytest.mark.parametrize("name", ["schema.json", "config.json", "metrics.json", "encoder/encoder.json"])
def test_truncated_json_is_refused(bundle, name):
    (bundle / name).write_text((bundle / name).read_text()[:5])
    with pytest.raises(ConfigError, match=f"{name.split('/')[0]} is damaged"):
        load_bundle(bundle)


@pytest.mark.parametrize("name", ["schema.json", "config.json", "metrics.json", "provenance.json", "encoder/encoder.json"])
def test_json_of_another_kind_is_refused(bundle, name):
    (bundle / name).write_text("[3]")
    with pytest.raises(DamagedBundle, match=f"{name.split('/')[0]} is damaged .*Copy it again, or train again"):
        load_bundle(bundle)


def test_weights_that_may_not_be_read_are_not_taken_for_missing(bundle):
    (bundle / "weights.safetensors").unlink()
    (bundle / "weights.safetensors").mkdir()  # which no user can read, root included
    with pytest.raises(IsADirectoryError):
        load_bundle(bundle)


def test_an_unknown_key_is_named(bundle, prepared, ranker):
    spelling = {**json.loads((bundle / "config.json").read_text()), "dropuot": 0.1}
    (bundle / "config.json").write_text(json.dumps(spelling))
    sealed(bundle, prepared, ranker.state_dict())
    with pytest.raises(ConfigError, match=r"`model.dropuot` is not a known key"):
        load_bundle(bundle)
