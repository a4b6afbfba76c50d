//! Model folders.

use std::fs;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};
use serde_json::{Value, json};

use super::{Case, LFS, PAGE, path, pipe, refused, train, words};
use crate::cli::Place;
use crate::support::fixture;

/// A run on a copy of `neox` after `change`.
fn model(place: &Place, change: impl FnOnce(&Path)) -> Option<Vec<String>> {
    let folder = place.model("neox");
    change(&folder);
    train(
        place,
        "dpo",
        &[&format!("model.model_name_or_path={}", folder.display())],
    )
}

/// As [`model`], where a file of the folder is other bytes.
fn file(place: &Place, name: &str, bytes: impl AsRef<[u8]>) -> Option<Vec<String>> {
    model(place, |folder| fs::write(folder.join(name), bytes).unwrap())
}

/// As [`model`], where a key of a JSON file has another value.
fn key(place: &Place, name: &str, key: &str, value: Value) -> Option<Vec<String>> {
    model(place, |folder| {
        edit(&folder.join(name), |json| json[key] = value)
    })
}

fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut json = crate::support::json(path);
    change(&mut json);
    fs::write(path, json.to_string()).unwrap();
}

type Tensors = Vec<(String, Dtype, Vec<usize>, Vec<u8>)>;

fn read(path: &Path) -> Tensors {
    let bytes = fs::read(path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = tensors.tensors().into_iter().map(|(name, view)| {
        (
            name,
            view.dtype(),
            view.shape().to_vec(),
            view.data().to_vec(),
        )
    });
    tensors.collect()
}

fn write(path: &Path, tensors: &Tensors) {
    let views = tensors.iter().map(|(name, dtype, shape, data)| {
        (name, TensorView::new(*dtype, shape.clone(), data).unwrap())
    });
    fs::write(path, serialize(views, None).unwrap()).unwrap();
}

/// As [`model`], with other tensors.
fn tensors(place: &Place, change: impl FnOnce(&mut Tensors)) -> Option<Vec<String>> {
    model(place, |folder| {
        let path = folder.join("model.safetensors");
        let mut tensors = read(&path);
        change(&mut tensors);
        write(&path, &tensors);
    })
}

/// Drawing from a model with `dynamic` rope.
fn dynamic(place: &Place) -> Option<Vec<String>> {
    let folder = place.model("llama");
    edit(&folder.join("config.json"), |json| {
        json["rope_parameters"] = json!({"rope_type": "dynamic", "factor": 4.0});
        json["max_position_embeddings"] = json!(16);
    });
    let folder = folder.display().to_string();
    words(&[
        "sample",
        "--model",
        &folder,
        "--prompt",
        "a",
        "--max-new-tokens",
        "20",
    ])
}

const NORM: &str = "gpt_neox.final_layer_norm.weight";

fn norm(tensors: &mut Tensors) -> &mut (String, Dtype, Vec<usize>, Vec<u8>) {
    tensors.iter_mut().find(|tensor| tensor.0 == NORM).unwrap()
}

/// The bytes of a safetensors file with this header and no data.
fn header(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

/// As [`model`], its weights in two shards, the norm alone in the second; `map` is given the name of
/// a tensor's shard.
fn shards(place: &Place, map: fn(&str, &str) -> Value) -> Option<Vec<String>> {
    model(place, |folder| {
        let single = folder.join("model.safetensors");
        let (last, first): (Tensors, Tensors) = read(&single)
            .into_iter()
            .partition(|tensor| tensor.0 == NORM);
        fs::remove_file(single).unwrap();
        let mut names = serde_json::Map::new();
        for (shard, tensors) in [("a.safetensors", first), ("b.safetensors", last)] {
            write(&folder.join(shard), &tensors);
            names.extend(
                tensors
                    .iter()
                    .map(|(name, ..)| (name.clone(), map(name, shard))),
            );
        }
        let index = json!({"metadata": {}, "weight_map": names}).to_string();
        fs::write(folder.join("model.safetensors.index.json"), index).unwrap();
    })
}

fn init(place: &Place, config: Value) -> Option<Vec<String>> {
    let mut json = crate::support::json(&fixture("neox").join("config.json"));
    for (key, value) in config.as_object().unwrap() {
        json[key] = value.clone();
    }
    place.write("shape.json", json.to_string());
    words(&[
        "init",
        "--config-json",
        "shape.json",
        "--tokenizer",
        &path("neox"),
        "--out",
        "out",
    ])
}

#[rustfmt::skip]
pub const CASES: &[Case] = &[
    refused("no config.json", |p| { model(p, |folder| { fs::remove_file(folder.join("config.json")).unwrap() }) },
        &["config.json", "no such file"]),
    refused("an empty config.json", |p| file(p, "config.json", ""),
        &["config.json"]),
    refused("a list as config.json", |p| file(p, "config.json", "[]"),
        &["config.json", "not a JSON object"]),
    refused("UTF-16 as config.json", |p| file(p, "config.json", b"\xff\xfe{\0}\0"),
        &["config.json", "UTF-8"]),
    refused("a config.json 200 deep", |p| file(p, "config.json", "[".repeat(200)),
        &["config.json", "recursion limit"]),
    refused("a model that is not there", |p| train(p, "dpo", &["model.model_name_or_path=./nowhere"]),
        &["--set model.model_name_or_path=./nowhere: "]),
    refused("no model type", |p| { model(p, |folder| { edit(&folder.join("config.json"), |json| { json.as_object_mut().unwrap().remove("model_type"); }) }) },
        &["config.json", "model_type"]),
    refused("an unknown model type", |p| key(p, "config.json", "model_type", json!("mamba")),
        &["config.json", "\"mamba\"", "gpt_neox"]),
    refused("a size that is a string", |p| key(p, "config.json", "hidden_size", json!("32")),
        &["config.json", "hidden_size"]),
    refused("a size below 0", |p| key(p, "config.json", "hidden_size", json!(-32)),
        &["config.json", "hidden_size", "-32"]),
    refused("no layers", |p| key(p, "config.json", "num_hidden_layers", json!(0)),
        &["config.json", "num_hidden_layers"]),
    refused("heads that do not divide", |p| key(p, "config.json", "num_attention_heads", json!(5)),
        &["config.json", "hidden_size 32", "5 heads"]),
    refused("no heads", |p| key(p, "config.json", "num_attention_heads", json!(0)),
        &["config.json", "num_attention_heads"]),
    refused("an unknown activation", |p| key(p, "config.json", "hidden_act", json!("snake")),
        &["config.json", "snake"]),
    refused("an unknown rotation", |p| { key(p, "config.json", "rope_parameters", json!({"rope_type": "spiral"})) },
        &["config.json", "spiral"]),
    refused("no positions", |p| key(p, "config.json", "max_position_embeddings", json!(0)),
        &["max_position_embeddings"]),
    refused("an epsilon that is a string", |p| key(p, "config.json", "layer_norm_eps", json!("small")),
        &["config.json", "layer_norm_eps"]),
    refused("more layers than weights", |p| key(p, "config.json", "num_hidden_layers", json!(3)),
        &["tensor gpt_neox.layers.2", "missing", "one model"]),
    refused("a vocabulary beyond the embedding", |p| { model(p, |folder| { edit(&folder.join("tokenizer.json"), |json| { json["model"]["vocab"]["zebra"] = 304.into(); }) }) },
        &["ids up to 304", "304 rows"]),
    refused("an added token beyond the embedding", |p| { model(p, |folder| { edit(&folder.join("tokenizer.json"), |json| { let mut token = json["added_tokens"][0].clone(); (token["id"], token["content"]) = (999.into(), "<|zebra|>".into()); json["added_tokens"].as_array_mut().unwrap().push(token); }) }) },
        &["tokenizer.json", "304 rows"]),
    refused("a tokenizer that was cut", |p| { let bytes = fs::read(fixture("neox").join("tokenizer.json")).unwrap(); file(p, "tokenizer.json", &bytes[..bytes.len() / 2]) },
        &["tokenizer.json", "not JSON", "fetch the file again"]),
    refused("a tokenizer of nothing", |p| file(p, "tokenizer.json", "{}"),
        &["tokenizer.json", "not a tokenizer"]),
    refused("a tokenizer 200 deep", |p| file(p, "tokenizer.json", "[".repeat(200)),
        &["tokenizer.json", "recursion limit"]),
    refused("a merge of no token", |p| { model(p, |folder| { edit(&folder.join("tokenizer.json"), |json| { json["model"]["merges"] = json!([["zebra", "crossing"]]); }) }) },
        &["tokenizer.json"]),
    refused("a folder as tokenizer", |p| { model(p, |folder| { fs::remove_file(folder.join("tokenizer.json")).unwrap(); fs::create_dir(folder.join("tokenizer.json")).unwrap(); }) },
        &["tokenizer.json"]),
    refused("an end token that is not there", |p| model(p, |folder| {
        fs::remove_file(folder.join("generation_config.json")).unwrap();
        edit(&folder.join("config.json"), |json| { json.as_object_mut().unwrap().remove("eos_token_id"); });
        edit(&folder.join("tokenizer_config.json"), |json| json["eos_token"] = json!("<zebra>"));
    }),
        &["<zebra>", "generation_config.json"]),
    refused("an end token that is a string", |p| key(p, "generation_config.json", "eos_token_id", json!("last")),
        &["generation_config.json", "eos_token_id"]),
    refused("a generation_config.json that was cut", |p| file(p, "generation_config.json", "{\"eos"),
        &["generation_config.json", "not JSON"]),
    refused("a missing tensor", |p| tensors(p, |all| all.retain(|tensor| tensor.0 != NORM)),
        &["tensor gpt_neox.final_layer_norm.weight is missing", "one model"]),
    refused("a tensor too many", |p| { tensors(p, |all| { all.push(("zebra.weight".into(), Dtype::F32, vec![1], vec![0; 4])) }) },
        &["model.safetensors", "unexpected tensor zebra.weight", "one model"]),
    refused("a tensor of another shape", |p| tensors(p, |all| norm(all).2 = vec![4, 8]),
        &["model.safetensors", NORM, "[4, 8]", "[32]"]),
    refused("a tensor of integers", |p| tensors(p, |all| norm(all).1 = Dtype::I32),
        &["model.safetensors", NORM, "I32", "BF16"]),
    refused("an infinite weight", |p| { tensors(p, |all| { norm(all).3[..4].copy_from_slice(&f32::NEG_INFINITY.to_le_bytes()) }) },
        &["model.safetensors", NORM, "infinity"]),
    refused("a header beyond its file", |p| file(p, "model.safetensors", u64::MAX.to_le_bytes()),
        &["model.safetensors", "header", "download it again"]),
    refused("a header that is not JSON", |p| file(p, "model.safetensors", header("zebra")),
        &["model.safetensors", "bad header", "download it again"]),
    refused("a tensor beyond its file", |p| { file(p, "model.safetensors", header("{\"a\":{\"dtype\":\"F32\",\"shape\":[9],\"data_offsets\":[0,36]}}")) },
        &["model.safetensors", "the header promises"]),
    refused("a tensor of more elements than numbers", |p| { file(p, "model.safetensors", header(&format!("{{\"a\":{{\"dtype\":\"F32\",\"shape\":[{0},{0}],\"data_offsets\":[0,4]}}}}", u64::MAX))) },
        &["model.safetensors", "download it again"]),
    refused("a folder as weights", |p| { model(p, |folder| { fs::remove_file(folder.join("model.safetensors")).unwrap(); fs::create_dir(folder.join("model.safetensors")).unwrap(); }) },
        &["model.safetensors"]),
    refused("a pipe as weights", |p| { let args = model(p, |folder| { fs::remove_file(folder.join("model.safetensors")).unwrap() }); pipe(p, "neox/model.safetensors")?; args },
        &["neox"]),
    refused("a pipe as tokenizer", |p| { let args = model(p, |folder| { fs::remove_file(folder.join("tokenizer.json")).unwrap() }); pipe(p, "neox/tokenizer.json")?; args },
        &["tokenizer.json"]),
    refused("an index that leaves its folder", |p| shards(p, |_, shard| json!(format!("../{shard}"))),
        &["model.safetensors.index.json", "\"../a.safetensors\"", "plain name"]),
    refused("an index that names the root", |p| shards(p, |_, _| json!("/etc/passwd")),
        &["model.safetensors.index.json", "\"/etc/passwd\"", "plain name"]),
    refused("an index that names numbers", |p| shards(p, |_, _| json!(1)),
        &["model.safetensors.index.json", "plain name"]),
    refused("a shard that is not there", |p| shards(p, |_, _| json!("c.safetensors")),
        &["model.safetensors.index.json", "c.safetensors", "not there"]),
    refused("an index without all shards", |p| shards(p, |_, _| json!("a.safetensors")),
        &["final_layer_norm"]),
    refused("an index of nothing", |p| { model(p, |folder| { fs::remove_file(folder.join("model.safetensors")).unwrap(); fs::write(folder.join("model.safetensors.index.json"), "{\"weight_map\": {}}").unwrap(); }) },
        &["model.safetensors.index.json", "empty"]),
    refused("a file as model", |p| { p.write("file", ""); train(p, "dpo", &["model.model_name_or_path=file"]) },
        &["file", "a model directory"]),
    refused("a path that leaves the hub", |p| train(p, "dpo", &["model.model_name_or_path=../../none"]),
        &["../../none", "no such directory"]),
    refused("a reference with another tokenizer", |p| train(p, "dpo", &[&format!("model.reference={}", path("llama"))]),
        &["llama: has another tokenizer: token", "must share a tokenizer"]),
    refused("no name of a model", |p| train(p, "dpo", &["model.model_name_or_path="]),
        &["model.model_name_or_path", "is empty", "owner/name"]),
    refused("a reference with another vocabulary", |p| train(p, "dpo", &[&format!("model.model_name_or_path={}", path("llama")), &format!("model.reference={}", path("neox-ref"))]),
        &["neox-ref", "ids up to 339", "304 rows"]),
    refused("a new model of a size beyond numbers", |p| { init(p, json!({"hidden_size": 4_000_000_000_000_u64, "num_attention_heads": 4})) },
        &["shape.json"]),
    refused("a new model of endless layers", |p| init(p, json!({"num_hidden_layers": 1_000_000_000_000_u64})),
        &["shape.json", "num_hidden_layers"]),
    refused("an LFS pointer as weights", |p| file(p, "model.safetensors", LFS),
        &["model.safetensors", "Git LFS", "git lfs pull"]),
    refused("a web page as weights", |p| file(p, "model.safetensors", PAGE),
        &["model.safetensors", "web page", "raw file"]),
    refused("an LFS pointer as tokenizer", |p| file(p, "tokenizer.json", LFS),
        &["tokenizer.json", "Git LFS", "git lfs pull"]),
    refused("a web page as tokenizer", |p| file(p, "tokenizer.json", PAGE),
        &["tokenizer.json", "web page", "raw file"]),
    refused("an LFS pointer as config.json", |p| file(p, "config.json", LFS),
        &["config.json", "Git LFS", "git lfs pull"]),
    refused("a web page as config.json", |p| file(p, "config.json", PAGE),
        &["config.json", "web page", "raw file"]),
    refused("a pipe as config.json", |p| { let args = model(p, |folder| { fs::remove_file(folder.join("config.json")).unwrap() }); pipe(p, "neox/config.json")?; args },
        &["config.json", "is a pipe, a socket or a device", "to a file first"]),
    refused("an index that names another shard", |p| { shards(p, |name, shard| { json!(if name.contains("embed_in") { "b.safetensors" } else { shard }) }) },
        &["embed_in"]),
    refused("an index that was cut", |p| { model(p, |folder| { fs::remove_file(folder.join("model.safetensors")).unwrap(); fs::write(folder.join("model.safetensors.index.json"), "{\"weight_map").unwrap(); }) },
        &["model.safetensors.index.json", "not JSON"]),
    refused("an epsilon below 0", |p| key(p, "config.json", "layer_norm_eps", json!(-1.0)),
        &["config.json", "layer_norm_eps"]),
    refused("responses beyond the length that dynamic rope is drawn to", dynamic,
        &["a prompt of 2 tokens", "at most 16 tokens", "\"dynamic\"", "(--max-new-tokens 14)"]),
    Case { name: "a new model beyond memory", code: 1, input: |p| init(p, json!({"hidden_size": 1 << 20, "num_hidden_layers": 10_000})),
        says: &["weights take", "GiB of memory", "are available"] },
];
