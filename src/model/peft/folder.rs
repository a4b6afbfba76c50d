//! A PEFT directory: `adapter_config.json` and `adapter_model.safetensors`.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use safetensors::Dtype;
use sha2::{Digest, Sha256};

use super::config::AdapterConfig;
use super::names::{self, in_memory};
use super::read_config;
use super::targets::{self, Origin};
use crate::error::{Error, Result};
use crate::io::model_dir::{ADAPTER_CONFIG, ADAPTER_WEIGHTS};
use crate::io::untrusted;
use crate::model::adapter::Adapter;
use crate::model::arch::Architecture;
use crate::model::parameters::{Entry, Layout, Params, transpose};
use crate::model::tensor_file::{decode, read_header, width};

/// The same, pickled.
const PICKLED: &str = "adapter_model.bin";

/// A PEFT directory that was looked at but not loaded.
#[derive(Debug, Clone)]
pub struct PeftFolder {
    /// The directory.
    pub path: PathBuf,
    /// What its config says; without `from` and `reference`.
    pub config: AdapterConfig,
    /// The base model, `base_model_name_or_path`: a path or a name on the hub.
    pub base: Option<String>,
    /// The base model's revision.
    pub revision: Option<String>,
    /// The tensors by the names that they have in transformers, with those of the file.
    tensors: BTreeMap<String, Stored>,
}

/// A tensor of the file.
#[derive(Debug, Clone)]
struct Stored {
    /// Its key.
    key: String,
    shape: Vec<usize>,
    dtype: Dtype,
    /// Where its bytes start in the file.
    start: u64,
}

impl PeftFolder {
    /// Whether a directory holds an adapter.
    pub fn is_one(path: &Path) -> bool {
        path.join(ADAPTER_CONFIG).is_file()
    }

    /// Reads the config and the header of the tensors.
    ///
    /// # Errors
    /// If a file is missing or damaged, or the config has something that expo does not do.
    pub fn open(path: &Path) -> Result<Self> {
        let read = read_config::read(&path.join(ADAPTER_CONFIG))?;
        let file = path.join(ADAPTER_WEIGHTS);
        if !file.is_file() && path.join(PICKLED).is_file() {
            return Err(Error::input(format!("{PICKLED} is pickled, which is not read"))
                .hint("in Python, PeftModel.from_pretrained(base, directory).save_pretrained(directory) \
                       writes it as safetensors")
                .at(path.display()));
        }
        let (metadata, data_start) = read_header(&file)?;
        let mut tensors = BTreeMap::new();
        let mut infos: Vec<_> = metadata.tensors().into_iter().collect();
        // Of several wrong tensors always the same one is named.
        infos.sort_by_key(|(_, info)| info.data_offsets);
        for (key, info) in infos {
            let fail = |fact: String| Error::input(fact).at(file.display());
            let Some(name) = names::of_key(&key) else {
                return Err(fail(format!("tensor {key} is not named as PEFT does"))
                    .hint("names begin with base_model.model."));
            };
            if !matches!(info.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
                return Err(fail(format!("tensor {key} has dtype {:?}", info.dtype))
                    .hint("valid: F32, F16, BF16"));
            }
            let stored = Stored {
                key: key.clone(),
                shape: info.shape.clone(),
                dtype: info.dtype,
                start: data_start + info.data_offsets.0 as u64,
            };
            if let Some(other) = tensors.insert(name, stored) {
                let fact = format!("tensors {key} and {} are of one layer", other.key);
                return Err(fail(fact));
            }
        }
        Ok(Self {
            path: path.to_owned(),
            config: read.config,
            base: read.base,
            revision: read.revision,
            tensors,
        })
    }

    /// The adapter on a base model of this architecture and layout.
    ///
    /// # Errors
    /// If the tensors are not those of the config on this model: one is missing, of another shape, or
    /// left over.
    pub fn adapter(&self, arch: &Architecture, layout: &Layout) -> Result<Adapter> {
        let at_config = |error: Error| error.at(self.path.join(ADAPTER_CONFIG).display());
        let adapter = targets::resolve(&self.config, arch, layout, Origin::Folder);
        let mut adapter = adapter.map_err(at_config)?;
        self.without_silent_head(arch, &mut adapter);
        let expected = self.expected(arch, layout, &adapter)?;
        for (name, (parameter, shape)) in &expected {
            let Some(stored) = self.tensors.get(name) else {
                let key = names::peft_name(parameter);
                return Err(self
                    .fail(format!(
                        "tensor {key} is missing, which {ADAPTER_CONFIG} asks for"
                    ))
                    .hint("both files must be of one adapter, and of this base model"));
            };
            if stored.shape != *shape {
                let fact = format!(
                    "tensor {} has shape {:?}, {ADAPTER_CONFIG} and the base model make it {shape:?}",
                    stored.key, stored.shape
                );
                return Err(self
                    .fail(fact)
                    .hint("the adapter must be of this base model"));
            }
        }
        let head = in_memory(&format!("{}.weight", arch.names.head));
        let is_copy = |name: &str| copied(name).is_some_and(|base| base == head);
        let left = self.tensors.iter();
        let mut left = left.filter(|(name, _)| !expected.contains_key(*name) && !is_copy(name));
        match left.next() {
            Some((name, stored)) => {
                let fact = format!("{ADAPTER_CONFIG} does not ask for tensor {}", stored.key);
                Err(self.fail(fact).hint(reason(name)))
            }
            None => Ok(adapter),
        }
    }

    /// Fills the parameters of the adapter, and those that are saved whole. Returns SHA-256, hex, of the
    /// scales and of every tensor's name, shape, dtype and bytes.
    ///
    /// # Errors
    /// If a value is not finite; if a copy of the base model's weights is not that of `params`; if the
    /// layout of `params` is not one with this [adapter](Self::adapter).
    pub fn load_into(&self, params: &mut Params) -> Result<String> {
        let layout = Arc::clone(params.layout());
        let mut whole = Vec::new();
        self.read_all(&layout, |name, stored, entry, at, values| {
            let start = entry.range.start;
            if copied(name).is_some() {
                let held = params.read(layout.id(&entry.name))?;
                let held = &held[at..][..values.len()];
                return match values.iter().zip(held).all(|(a, b)| near(*a, *b)) {
                    true => Ok(()),
                    false => Err(self
                        .fail(format!("{} is not the base model's weight", stored.key))
                        .hint("the adapter must be of this base model, with as many tokens")),
                };
            }
            if !entry.transposed {
                return params.set(start + at, values);
            }
            whole.extend_from_slice(values);
            if whole.len() == entry.range.len() {
                params.set(start, &transpose(&whole, &stored.shape))?;
                whole.clear();
            }
            Ok(())
        })
    }

    /// What [`Self::load_into`] returns, of parameters with this layout.
    ///
    /// # Errors
    /// As of [`Self::load_into`], but for copies of the base model's weights, which are not looked at.
    pub fn content_hash(&self, layout: &Layout) -> Result<String> {
        self.read_all(layout, |_, _, _, _, _| Ok(()))
    }

    /// Hashes the tensors; `sink` gets each piece by piece, with its name in transformers, its parameter and
    /// where in the parameter the piece begins.
    fn read_all(
        &self,
        layout: &Layout,
        mut sink: impl FnMut(&str, &Stored, &Entry, usize, &[f32]) -> Result<()>,
    ) -> Result<String> {
        let entries = layout.entries.iter();
        let by_name: BTreeMap<String, &Entry> = entries
            .map(|entry| (in_memory(&entry.name), entry))
            .collect();
        let mut hasher = Sha256::new();
        for (name, stored) in &self.tensors {
            let base = copied(name);
            let Some(entry) = by_name.get(base.as_ref().unwrap_or(name)) else {
                // Of a layout of the adapter alone.
                if base.is_some() {
                    self.read(stored, &mut hasher, |_, _| Ok(()))?;
                    continue;
                }
                return Err(self.fail(format!(
                    "tensor {} is of no parameter of the model",
                    stored.key
                )));
            };
            if entry.stored_shape() != stored.shape {
                let fact = format!(
                    "tensor {} has shape {:?}, not {:?}",
                    stored.key,
                    stored.shape,
                    entry.stored_shape()
                );
                return Err(self.fail(fact));
            }
            let layer = entry.name.strip_suffix(A);
            if let Some(low_rank) = layer.and_then(|layer| layout.low_rank(layer)) {
                hasher.update(format!("{:?}{}", low_rank.scale, low_rank.dora));
            }
            hasher.update(format!("{name}{:?}{:?}", stored.shape, stored.dtype));
            self.read(stored, &mut hasher, |at, values| {
                sink(name, stored, entry, at, values)
            })?;
        }
        Ok(format!("{:x}", hasher.finalize()))
    }

    /// The names in transformers of the tensors that the adapter has, each with its parameter and shape in
    /// the file.
    fn expected(
        &self,
        arch: &Architecture,
        layout: &Layout,
        adapter: &Adapter,
    ) -> Result<BTreeMap<String, (String, Vec<usize>)>> {
        // A tied head is of the embedding's shape.
        let embed = || layout.id(&format!("{}.weight", arch.names.embed));
        let entry = |name: &str| &layout.entries[layout.find(name).unwrap_or_else(embed)];
        let mut expected = BTreeMap::new();
        let mut add = |parameter: String, shape| {
            expected.insert(in_memory(&parameter), (parameter, shape));
        };
        for layer in &adapter.layers {
            let [out, input] = entry(&layer.weight()).shape[..] else {
                return Err(self.fail(format!("{} is no matrix", layer.weight())));
            };
            add(layer.a(), vec![layer.rank, input]);
            add(layer.b(), vec![out, layer.rank]);
            if layer.dora {
                add(layer.magnitude(), vec![out]);
            }
        }
        for parameter in &adapter.saved {
            add(parameter.clone(), entry(parameter).stored_shape());
        }
        Ok(expected)
    }

    /// In transformers 5 `embed_out` names no module of a GPT-NeoX, and PEFT passes over it in silence: such
    /// a config means the head only where the file has tensors of it.
    fn without_silent_head(&self, arch: &Architecture, adapter: &mut Adapter) {
        let head = &arch.names.head;
        let there = |parameter: &str| self.tensors.contains_key(&in_memory(parameter));
        if head == "embed_out" {
            adapter
                .layers
                .retain(|layer| layer.layer != *head || there(&layer.a()));
            adapter
                .saved
                .retain(|saved| !saved.starts_with(head) || there(saved));
        }
    }

    /// Reads and hashes a tensor; `sink` gets its values piece by piece, with the place of the first.
    fn read(
        &self,
        stored: &Stored,
        hasher: &mut Sha256,
        mut sink: impl FnMut(usize, &[f32]) -> Result<()>,
    ) -> Result<()> {
        let file = self.path.join(ADAPTER_WEIGHTS);
        let io = |error: std::io::Error| Error::io(&file, &error);
        let mut reader = untrusted::open(&file)?;
        reader.seek(SeekFrom::Start(stored.start)).map_err(io)?;
        let elements: usize = stored.shape.iter().product();
        let (mut bytes, mut values) = (Vec::new(), Vec::new());
        let mut at = 0;
        while at < elements {
            let count = PIECE.min(elements - at);
            bytes.resize(count * width(stored.dtype), 0);
            reader.read_exact(&mut bytes).map_err(io)?;
            hasher.update(&bytes);
            decode(stored.dtype, &bytes, &mut values);
            if !values.iter().all(|x| x.is_finite()) {
                let fact = format!("tensor {} holds NaN or infinity", stored.key);
                return Err(self.fail(fact));
            }
            sink(at, &values)?;
            at += count;
        }
        Ok(())
    }

    fn fail(&self, fact: String) -> Error {
        Error::input(fact).at(self.path.join(ADAPTER_WEIGHTS).display())
    }
}

/// The end of the name of an A.
const A: &str = ".lora_A.weight";

/// Elements read at a time.
const PIECE: usize = 1 << 18;

/// The base model's weight that a tensor is a copy of: PEFT saves that of a targeted head.
fn copied(name: &str) -> Option<String> {
    let layer = name.strip_suffix(".base_layer.weight")?;
    Some(format!("{layer}.weight"))
}

/// Whether two values are the same in bf16, about.
fn near(a: f32, b: f32) -> bool {
    (a - b).abs() <= 2f32.powi(-7) * a.abs().max(b.abs())
}

/// What a tensor is that no layer of the adapter has, and what to do.
fn reason(name: &str) -> &'static str {
    const KINDS: [(&str, &str); 8] = [
        (
            ".lora_embedding_",
            "expo has no adapters of embeddings; modules_to_save trains one whole",
        ),
        (".lora_B.bias", "expo has no adapters with a bias"),
        (".experts.", "expo has no adapters of experts"),
        (".mlp.gate.", "expo has no adapters of routers"),
        (
            "vision_tower.",
            "expo reads text only; merge the adapter in PEFT",
        ),
        (
            "trainable_tokens_delta",
            "expo does not train single tokens; merge the adapter in PEFT",
        ),
        ("embed_tokens.weight", RESIZED),
        ("lm_head.weight", RESIZED),
    ];
    const RESIZED: &str = "PEFT saves it where the vocabulary was resized; merge the adapter in PEFT, \
                           and go on from the whole model";
    let found = KINDS.iter().find(|(part, _)| name.contains(part));
    found.map_or(
        "both files must be of one adapter, and of this base model",
        |(_, why)| why,
    )
}
