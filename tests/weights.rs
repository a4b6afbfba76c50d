//! Weights of families whose files differ from what is computed with: transposed matrices, names in
//! another spelling, parts of a model that are kept as they are.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use candle_core::{DType, Device};
use expo::checkpoint::{SaveDtype, save};
use expo::data::pack::Packed;
use expo::loss::Role;
use expo::model::weights::ModelFolder;
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};

use crate::support::{fixture, json, pairs};

const WEIGHTS: &str = "model.safetensors";

type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

/// The tensors of a directory.
fn tensors(folder: &Path) -> Tensors {
    let bytes = fs::read(folder.join(WEIGHTS)).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let owned = |(name, tensor): (String, TensorView)| {
        let (shape, data) = (tensor.shape().to_vec(), tensor.data().to_vec());
        (name, (tensor.dtype(), shape, data))
    };
    tensors.tensors().into_iter().map(owned).collect()
}

/// A copy of a fixture with other tensors.
fn with_tensors(name: &str, folder: &Path, tensors: &Tensors) {
    for entry in fs::read_dir(fixture(name)).unwrap() {
        let from = entry.unwrap().path();
        fs::copy(&from, folder.join(from.file_name().unwrap())).unwrap();
    }
    let views = tensors.iter().map(|(name, (dtype, shape, data))| {
        (name, TensorView::new(*dtype, shape.clone(), data).unwrap())
    });
    fs::write(folder.join(WEIGHTS), serialize(views, None).unwrap()).unwrap();
}

/// The log-probs of an oracle's pairs.
fn log_probs(folder: &ModelFolder, name: &str) -> Vec<f64> {
    let (model, _) = folder.load(DType::F32, &Device::Cpu).unwrap();
    let examples = pairs(&json(&fixture(&format!("oracle/{name}.json"))));
    let batch = Packed::new(&examples, &[Role::Chosen, Role::Rejected]);
    let scores = model.score(&batch).unwrap();
    let all = scores.iter().flatten().map(|score| score.log_prob);
    all.collect()
}

/// Loads a directory and saves it again: what is saved has the tensors that were loaded.
fn saved_again(folder: &Path) -> Tensors {
    let opened = ModelFolder::open(folder).unwrap();
    let (model, hash) = opened.load(DType::F32, &Device::Cpu).unwrap();
    assert_eq!(opened.content_hash().unwrap(), hash);
    let target = folder.join("saved");
    save(&model, &opened.files, &target, SaveDtype::F32).unwrap();
    let again = ModelFolder::open(&target).unwrap();
    assert_eq!(again.content_hash().unwrap(), hash);
    assert_eq!(again.layout().saved_beside, opened.layout().saved_beside);
    tensors(&target)
}

#[test]
fn gpt2_is_saved_transposed_under_the_names_it_had() {
    let with_prefix = tensors(&fixture("gpt2"));
    assert_eq!(
        with_prefix["transformer.h.0.attn.c_attn.weight"].1,
        [20, 60]
    );
    let want = log_probs(&ModelFolder::open(&fixture("gpt2")).unwrap(), "gpt2");
    let bare = |name: &str| name.trim_start_matches("transformer.").to_owned();
    let without: Tensors = with_prefix
        .iter()
        .map(|(name, tensor)| (bare(name), tensor.clone()))
        .collect();
    for plain in [with_prefix, without] {
        let folder = tempfile::tempdir().unwrap();
        let block = plain.keys().find(|name| name.contains("h.1.")).unwrap();
        let block = block.split("1.").next().unwrap();
        let mut more = plain.clone();
        for (part, dtype, bytes) in [("bias", Dtype::BOOL, 9), ("masked_bias", Dtype::F32, 4)] {
            let shape = if bytes == 9 { vec![1, 1, 3, 3] } else { vec![] };
            let name = format!("{block}1.attn.{part}");
            more.insert(name, (dtype, shape, vec![0; bytes]));
        }
        with_tensors("gpt2", folder.path(), &more);
        let opened = ModelFolder::open(folder.path()).unwrap();
        assert_eq!(log_probs(&opened, "gpt2"), want);
        assert!(saved_again(folder.path()) == plain, "{:?}", plain.keys());
    }
}

#[test]
fn the_parts_of_a_multimodal_model_that_read_images_are_kept() {
    let name = "gemma3-multimodal";
    let mut older = tensors(&fixture(name));
    let vision = "vision_tower.";
    let vision: Vec<_> = older
        .keys()
        .filter(|name| name.starts_with(vision))
        .collect();
    let first = vision[0].clone();
    // In a dtype and of values that only a copy keeps.
    older.insert(first.clone(), (Dtype::I64, vec![2], vec![255; 16]));
    let want = log_probs(&ModelFolder::open(&fixture(name)).unwrap(), name);
    let newer: Tensors = older
        .iter()
        .map(|(name, tensor)| {
            let text = name.replace("language_model.model.", "model.language_model.");
            let name = match text == *name {
                true => format!("model.{name}"),
                false => text,
            };
            (name, tensor.clone())
        })
        .collect();
    for all in [older, newer] {
        let folder = tempfile::tempdir().unwrap();
        with_tensors(name, folder.path(), &all);
        let opened = ModelFolder::open(folder.path()).unwrap();
        assert!(opened.layout().saved_beside > 16);
        assert_eq!(log_probs(&opened, name), want);
        assert!(saved_again(folder.path()) == all, "{:?}", all.keys());
    }
}

#[test]
fn parts_that_have_changed_are_not_saved() {
    let folder = tempfile::tempdir().unwrap();
    let name = "gemma3-multimodal";
    with_tensors(name, folder.path(), &tensors(&fixture(name)));
    let opened = ModelFolder::open(folder.path()).unwrap();
    let (model, _) = opened.load(DType::F32, &Device::Cpu).unwrap();
    let save = |name: &str| {
        let target = folder.path().join(name);
        save(&model, &opened.files, &target, SaveDtype::BF16)
    };
    let file = folder.path().join(WEIGHTS);
    let bytes = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    // The file is still open.
    save("removed").unwrap();
    fs::write(&file, bytes).unwrap();
    let opened = ModelFolder::open(folder.path()).unwrap();
    fs::write(&file, "other").unwrap();
    let target = folder.path().join("changed");
    let error = expo::checkpoint::save(&model, &opened.files, &target, SaveDtype::F32);
    let message = error.unwrap_err().to_string();
    assert!(message.contains("has changed since"), "{message}");
    assert!(!target.exists());
}
