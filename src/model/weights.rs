//! Model directories: weights from safetensors into the flat buffer, and their content hash.
//!
//! Hides shards, dtypes and old tensors. Each tensor is read piece by piece into its place, so the
//! weights are held once.

mod files;
pub(crate) mod head;
mod nf4;
mod pieces;
mod storage;
mod stored;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device};
use safetensors::Dtype;
use sha2::{Digest, Sha256};

use super::adapter::Adapter;
use super::arch::{Architecture, ConfigJson, Identity};
use super::decoder::Decoder;
use super::family::family;
use super::numerics::Numerics;
use super::parameters::{Entry, Layout, Params, transpose};
use super::peft::PeftFolder;
use super::trainable::select;
use crate::error::{Error, Result};
use crate::io::model_dir::{self, ModelFiles};
use crate::kernels::memory;
use crate::kernels::quantized::{Format, Parts};
use files::{Source, locate, named_as_stored};
pub use storage::FrozenStorage;

/// A model directory that was looked at but not loaded.
#[derive(Debug, Clone)]
pub struct ModelFolder {
    /// The directory.
    pub path: PathBuf,
    /// Its small files, as they were when it was opened.
    pub files: ModelFiles,
    /// The model's shape.
    pub arch: Architecture,
    /// Its parameters as they are loaded.
    layout: Layout,
    /// What the content hash has of the model's shape.
    identity: String,
    /// Each parameter of the files with its file and place in it, sorted by name.
    tensors: Vec<(Entry, Source)>,
    /// What matrices of blocks become as they are loaded.
    quantized: Option<Format>,
    /// Whether the model is sampled from and nothing else.
    samples_only: bool,
    /// The directory of the adapter that is loaded, too.
    peft: Option<PeftFolder>,
    /// The same model without its adapter, if it has one.
    base: Option<Box<ModelFolder>>,
}

impl ModelFolder {
    /// Reads `config.json` and the headers of the safetensors files, and checks that every
    /// parameter is there once, in its shape, and nothing else is.
    pub fn open(path: &Path) -> Result<Self> {
        let mut files = ModelFiles::open(path)?;
        let config = ConfigJson::of(&files.get(model_dir::CONFIG))?;
        let family = family(&config)?;
        let arch = (family.architecture)(&config)?;
        let arch = named_as_stored(path, arch, family)?;
        let arch = head::as_stored(path, arch)?;
        let mut layout = Layout::new(&arch);
        let (tensors, others) = locate(path, &layout, &arch, family)?;
        layout.saved_beside = others.bytes();
        files.set_other_tensors(others);
        Ok(Self {
            path: path.to_owned(),
            files,
            identity: format!("{:?}", Identity(&arch)),
            arch,
            tensors: layout.entries.iter().cloned().zip(tensors).collect(),
            layout,
            quantized: None,
            samples_only: false,
            peft: None,
            base: None,
        }
        .with_quantized_frozen())
    }

    /// The same model with the adapter of a directory, whose tokenizer files, where it has any, are the
    /// model's.
    ///
    /// # Errors
    /// If the adapter is of another model.
    pub fn with_peft(self, peft: PeftFolder) -> Result<Self> {
        let adapter = peft.adapter(&self.arch, &self.layout)?;
        let mut folder = self.with_adapter(&adapter);
        folder.take_companions(&peft)?;
        folder.peft = Some(peft);
        Ok(folder)
    }

    /// Has the tokenizer and the chat template of an adapter's directory, where it has them.
    pub fn take_companions(&mut self, peft: &PeftFolder) -> Result<()> {
        let own = ModelFiles::open(&peft.path)?;
        if own.get(model_dir::TOKENIZER).exists() {
            self.files.take_companions(&own);
        }
        Ok(())
    }

    /// The same model without its adapter.
    #[must_use]
    pub fn without_adapter(&self) -> &Self {
        self.base.as_deref().unwrap_or(self)
    }

    /// The directory of its adapter, if it has one.
    pub fn peft(&self) -> Option<&PeftFolder> {
        self.peft.as_ref()
    }

    /// The same model with an adapter, whose parameters are zeros until they are set; all others are frozen
    /// but for those that the adapter trains whole. A head that is tied to the embedding becomes one of
    /// its own where the adapter changes one of the two.
    #[must_use]
    pub fn with_adapter(mut self, adapter: &Adapter) -> Self {
        self.base = Some(Box::new(self.clone()));
        let names = &self.arch.names;
        if self.arch.tied && adapter.unties(&names.embed, &names.head) {
            self.arch.tied = false;
            let saved_beside = self.layout.saved_beside;
            self.layout = Layout {
                saved_beside,
                ..Layout::new(&self.arch)
            };
        }
        self.layout = self.layout.with_adapter(adapter);
        self
    }

    /// Loads the weights in `dtype` and hashes them on the way.
    ///
    /// # Errors
    /// If the memory that is available cannot hold them, before any is taken; if a weight is not
    /// finite.
    pub fn load(&self, dtype: DType, device: &Device) -> Result<(Decoder, String)> {
        self.load_with(Numerics::exact(dtype), device)
    }

    /// As [`Self::load`], to be computed, and where it says so updated, in `numerics`.
    pub fn load_with(&self, numerics: Numerics, device: &Device) -> Result<(Decoder, String)> {
        let (mut model, base) = self.load_base(numerics, device)?;
        let hash = self.load_adapter(&mut model, &base)?;
        Ok((model, hash))
    }

    /// Loads the adapter, where there is one, into a model whose base has the content hash `base`. Returns the
    /// content hash of both.
    pub fn load_adapter(&self, model: &mut Decoder, base: &str) -> Result<String> {
        match &self.peft {
            Some(peft) => Ok(of_both(base, &peft.load_into(model.weights_mut())?)),
            None => Ok(base.to_owned()),
        }
    }

    /// As [`Self::load_with`], with its own content hash, but for the adapter's values.
    pub fn load_base(&self, numerics: Numerics, device: &Device) -> Result<(Decoder, String)> {
        let dtype = numerics.storage;
        let layout = Arc::new(self.layout_for(numerics, device));
        let held = check_memory(layout.bytes(dtype), device);
        held.map_err(|error| error.at(self.path.display()))?;
        let master = numerics.master_weights(self.master_len(dtype), device)?;
        let mut weights = Params::zeros(layout, dtype, device)?.with_master(master);
        let hash = self.load_into(&mut weights)?;
        let model = Decoder::new(self.arch.clone(), weights).with_numerics(numerics);
        Ok((model, hash))
    }

    /// The same model, of which those parameters are trained that `patterns`
    /// [`select`].
    ///
    /// # Errors
    /// If a pattern matches no parameter, nothing is trained, or a parameter that is quantized.
    pub fn with_trainable(mut self, patterns: &[String]) -> Result<Self> {
        self.layout = select(self.layout, patterns)?;
        let mut trained = self.layout.entries.iter().filter(|entry| entry.trainable);
        match trained.find(|entry| self.format_of(entry).is_some()) {
            Some(entry) => Err(Error::input(format!("{} is quantized", entry.name))
                .hint("quantized weights are frozen; an [adapter] section trains beside them")),
            None => Ok(self),
        }
    }

    /// Its parameters, and which of them are trained.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The same model, whose parameters lie as in `layout`, if they are the same ones.
    #[must_use]
    pub fn with_layout(mut self, layout: &Layout) -> Self {
        if self.layout.same_parameters(layout) {
            self.layout = layout.clone();
        }
        self
    }

    /// How many elements need a master beside weights of this dtype: what is trained, and where a frozen
    /// weight is not stored in it, all, for frozen weights are saved as they were.
    fn master_len(&self, dtype: DType) -> usize {
        let exact = |source: &Source| match source {
            Source::Tensor(stored) => dtype != DType::BF16 || stored.dtype == Dtype::BF16,
            Source::Nf4(_) => true,
        };
        let trained = |entry: &Entry| self.layout.entries[self.layout.id(&entry.name)].trainable;
        let mut all = self.tensors.iter();
        // Beside an adapter nothing else is saved.
        match self.layout.adapter.is_some()
            || all.all(|(entry, source)| exact(source) || trained(entry))
        {
            true => self.layout.trainable_len,
            false => self.layout.len,
        }
    }

    /// Loads the weights of the files into weights that are there; returns their content hash.
    ///
    /// # Errors
    /// If they are of another shape.
    pub fn load_into(&self, weights: &mut Params) -> Result<String> {
        self.load_some(weights, |_| true)
    }

    /// As [`Self::load_into`], of what is trained.
    pub fn load_trained(&self, weights: &mut Params) -> Result<String> {
        self.load_some(weights, |entry| entry.trainable)
    }

    fn load_some(&self, weights: &mut Params, wanted: impl Fn(&Entry) -> bool) -> Result<String> {
        let layout = Arc::clone(weights.layout());
        if !layout.same_parameters(&self.layout) {
            return Err(Error::input("holds another model").at(self.path.display()));
        }
        let names = &self.arch.names;
        let [embed, head] = [&names.embed, &names.head].map(|name| format!("{name}.weight"));
        let has_head = self.tensors.iter().any(|(entry, _)| entry.name == head);
        let mut whole = Vec::new();
        self.read(|stored, piece| {
            // A head of its own begins as the embedding that it was tied to.
            if let Piece::Values(start, values) = &piece
                && stored.name == embed
                && !has_head
                && !self.arch.tied
            {
                let head = layout.id(&head);
                if wanted(&layout.entries[head]) {
                    weights.fill(head, *start, values)?;
                }
            }
            let id = layout.id(&stored.name);
            let entry = &layout.entries[id];
            if !wanted(entry) {
                return Ok(());
            }
            let (start, values) = match piece {
                Piece::Values(start, values) => (start, values),
                Piece::Nf4(parts) => return weights.fill_quantized(id, parts),
            };
            if !entry.transposed {
                return weights.fill(id, start, values);
            }
            whole.extend_from_slice(values);
            if whole.len() == entry.elements() {
                weights.fill(id, 0, &transpose(&whole, &entry.stored_shape()))?;
                whole.clear();
            }
            Ok(())
        })
    }

    /// SHA-256, hex, of the architecture and every parameter's name, shape, dtype and bytes, as the files
    /// have them, in the order of names: the same however the weights are split over files.
    pub fn content_hash(&self) -> Result<String> {
        let base = self.read(|_, _| Ok(()))?;
        match &self.peft {
            Some(peft) => Ok(of_both(&base, &peft.content_hash(&self.layout)?)),
            None => Ok(base),
        }
    }

    /// The values of the parameter of this name in the files, in its own order.
    ///
    /// # Errors
    /// If there is none of this name, or one is not finite.
    pub fn values(&self, name: &str) -> Result<Vec<f32>> {
        let found = self.tensors.iter().find(|(entry, _)| entry.name == name);
        let (entry, source) =
            found.ok_or_else(|| Error::failed(format!("the model has no parameter {name}")))?;
        let stored = match source {
            Source::Tensor(stored) => stored,
            Source::Nf4(nf4) => return nf4.values(),
        };
        let mut values = Vec::with_capacity(entry.elements());
        pieces::read([(entry, stored)].into_iter(), None, &mut |_, _, piece| {
            values.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(match entry.transposed {
            true => transpose(&values, &entry.stored_shape()),
            false => values,
        })
    }

    /// The dtype that most of its elements have in the files; of those in few bits f32.
    pub fn stored_dtype(&self) -> Dtype {
        let elements = |dtype: Dtype| -> usize {
            let of = |(_, source): &&(Entry, Source)| match source {
                Source::Tensor(stored) => stored.dtype == dtype,
                Source::Nf4(_) => dtype == Dtype::F32,
            };
            let those = self.tensors.iter().filter(of);
            those.map(|(entry, _)| entry.elements()).sum()
        };
        let all = [Dtype::F32, Dtype::BF16, Dtype::F16];
        all.into_iter()
            .max_by_key(|dtype| elements(*dtype))
            .unwrap_or(Dtype::F32)
    }

    /// Hashes the weights; `sink` gets them piece by piece in the order of names, each with its parameter
    /// as the files have it.
    fn read(&self, mut sink: impl FnMut(&Entry, Piece) -> Result<()>) -> Result<String> {
        let mut hasher = Sha256::new();
        hasher.update(&self.identity);
        if let Some(format) = self.quantized {
            hasher.update(format!("{format:?}"));
            if self.quantizes_head() {
                hasher.update(" with the head");
            }
        }
        let mut rest = self.tensors.as_slice();
        while let [(entry, source), others @ ..] = rest {
            if let Source::Nf4(nf4) = source {
                let parts = nf4.read(&mut hasher)?;
                sink(entry, Piece::Nf4(parts))
                    .map_err(|error| nf4.wrong(nf4::CODES, error.to_string()))?;
                rest = others;
                continue;
            }
            let plain = rest.iter().map_while(|(entry, source)| match source {
                Source::Tensor(stored) => Some((entry, stored)),
                Source::Nf4(_) => None,
            });
            let count = plain.clone().count();
            pieces::read(plain, Some(&mut hasher), &mut |entry, start, values| {
                sink(entry, Piece::Values(start, values))
            })?;
            rest = &rest[count..];
        }
        Ok(format!("{:x}", hasher.finalize()))
    }
}

/// Weights on their way into memory.
enum Piece<'a> {
    /// Values from an element of the parameter on.
    Values(usize, &'a [f32]),
    /// A whole parameter.
    Nf4(Parts),
}

/// The content hash of a model with an adapter.
fn of_both(base: &str, adapter: &str) -> String {
    format!("{:x}", Sha256::digest(format!("{base} {adapter}")))
}

/// Refuses weights of so many bytes where host memory cannot hold them: the system would kill the
/// process. Where it does not say what is available, all fit.
pub(super) fn check_memory(bytes: u64, device: &Device) -> Result<()> {
    match device.is_cpu() {
        true => fits(bytes, memory::available()),
        false => Ok(()),
    }
}

fn fits(bytes: u64, available: Option<u64>) -> Result<()> {
    let gib = |bytes: u64| bytes as f64 / (1u64 << 30) as f64;
    match available.filter(|available| *available < bytes) {
        None => Ok(()),
        Some(available) => Err(Error::failed(format!(
            "the weights take {:.2} GiB of memory, and {:.2} GiB are available",
            gib(bytes),
            gib(available)
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_that_memory_cannot_hold_are_refused() {
        let gib = 1 << 30;
        assert_eq!(fits(7 * gib, Some(7 * gib)), Ok(()));
        assert_eq!(fits(u64::MAX, None), Ok(()));
        assert_eq!(
            fits(30 * gib, Some(7 * gib)).unwrap_err().to_string(),
            "the weights take 30.00 GiB of memory, and 7.00 GiB are available"
        );
    }
}
