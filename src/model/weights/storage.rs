//! In what the weights of a model directory are stored once they are loaded.

use std::collections::HashSet;

use candle_core::{DType, Device};
use safetensors::Dtype;

use super::ModelFolder;
use super::files::Source;
use crate::error::{Error, Result};
use crate::kernels::Precision;
use crate::kernels::quantized::Format;
use crate::model::arch::Architecture;
use crate::model::numerics::Numerics;
use crate::model::parameters::{Entry, Layout, Storage};

/// How what is frozen beside an adapter is stored.
#[derive(Debug, Clone, Copy)]
pub struct FrozenStorage {
    format: Option<Format>,
    narrows: bool,
    rounds: bool,
}

impl FrozenStorage {
    /// To be computed in `numerics`, with the matrices of blocks in a `format`, if one is asked for.
    pub fn new(numerics: Numerics, cpu: bool, format: Option<Format>) -> Self {
        Self {
            format,
            // On a GPU operands of a matmul have one dtype.
            narrows: cpu && numerics.storage == DType::F32,
            rounds: numerics.compute == Precision::Bf16,
        }
    }

    /// That of a frozen parameter, whose files have it `in_bf16` or not, and whose rows are `scaled` to
    /// magnitudes or not. Matmuls that round their operands to bf16 give the same bits; tables and norms of rows
    /// are of the numbers as they are.
    pub fn of(&self, arch: &Architecture, entry: &Entry, in_bf16: bool, scaled: bool) -> Storage {
        let is_matrix = entry.shape.len() > 1 && !arch.is_router(&entry.name);
        let in_block = entry.name.starts_with(&arch.names.block);
        match self.format {
            Some(format) if is_matrix && in_block => return Storage::Quantized(format),
            _ => {}
        }
        let loses_nothing = in_bf16 || (self.rounds && !arch.is_table(&entry.name) && !scaled);
        match self.narrows && is_matrix && loses_nothing {
            true => Storage::Bf16,
            false => Storage::Flat,
        }
    }
}

impl ModelFolder {
    /// The same model, whose matrices in blocks, but for those of routers, are frozen and quantized as they
    /// are loaded; to 8 bits and without an adapter a head of its own, too. A model whose files are quantized stays as
    /// these have it.
    ///
    /// # Errors
    /// If the files have another format.
    pub fn quantized(mut self, format: Format) -> Result<Self> {
        let stored = self.tensors.iter().find_map(|(_, source)| match source {
            Source::Nf4(nf4) => Some(nf4.format()),
            Source::Tensor(_) => None,
        });
        match (stored, format) {
            (None, _) => self.quantized = Some(format),
            (Some(Format::Nf4 { .. }), Format::Nf4 { .. }) => {}
            _ => {
                return Err(Error::input("the model's weights are nf4 already")
                    .at(self.path.display())
                    .hint("leave quantization out, or take the model they were made from"));
            }
        }
        if let Some(base) = self.base.take() {
            self.base = Some(Box::new(base.quantized(format)?));
        }
        Ok(self.with_quantized_frozen())
    }

    /// Whether any of its weights are in few bits once they are loaded.
    pub fn is_quantized(&self) -> bool {
        let in_files = |source: &Source| matches!(source, Source::Nf4(_));
        self.quantized.is_some() || self.tensors.iter().any(|(_, source)| in_files(source))
    }

    /// Refuses to train weights that are in few bits.
    ///
    /// # Errors
    /// If the model has such weights and no adapter.
    pub fn check_trains(&self) -> Result<()> {
        match self.is_quantized() && self.layout.adapter.is_none() {
            true => Err(Error::input(
                "full fine-tuning of a quantized model, whose weights are frozen",
            )
            .at(self.path.display())
            .hint("add an [adapter] section to train low-rank products beside them")),
            false => Ok(()),
        }
    }

    /// Its parameters as they are stored to be computed in `numerics`. Beside an adapter what is frozen takes
    /// fewer bits where that changes no result.
    pub fn layout_for(&self, numerics: Numerics, device: &Device) -> Layout {
        if self.samples_only && device.is_cpu() && numerics.storage == DType::F32 {
            return self.sampling_layout(numerics);
        }
        let rule = FrozenStorage::new(numerics, device.is_cpu(), None);
        self.layout.clone().with_storage(|entry| {
            if let Some(format) = self.format_of(entry) {
                return Storage::Quantized(format);
            }
            let in_bf16 = match self.source(entry) {
                Some(Source::Tensor(stored)) => stored.dtype == Dtype::BF16,
                _ => false,
            };
            match self.layout.adapter.is_some() {
                true => rule.of(&self.arch, entry, in_bf16, self.layout.scales_rows(entry)),
                false => Storage::Flat,
            }
        })
    }

    /// As [`Self::layout_for`], of a model that is sampled from and nothing else: every matrix in panels, but for
    /// tables.
    fn sampling_layout(&self, numerics: Numerics) -> Layout {
        let layout = self.layout.clone().with_trainable(|_| false);
        layout.with_storage(|entry| {
            let in_bf16 = match self.source(entry) {
                Some(Source::Tensor(stored)) => stored.dtype == Dtype::BF16,
                _ => false,
            };
            match self.format_of(entry) {
                Some(format) => Storage::PackedQuantized(format),
                None if entry.shape.len() < 2 => Storage::Flat,
                None if !self.arch.is_table(&entry.name) => Storage::Packed(numerics.compute),
                None if in_bf16 => Storage::Bf16,
                None => Storage::Flat,
            }
        })
    }

    /// The same model, to sample from and for nothing else, which takes less memory; one with an adapter stays
    /// what it is.
    #[must_use]
    pub fn for_sampling(mut self) -> Self {
        self.samples_only = self.layout.adapter.is_none();
        self
    }

    /// The format that a parameter is in once it is loaded, if it is frozen.
    pub(super) fn format_of(&self, entry: &Entry) -> Option<Format> {
        if let Some(Source::Nf4(nf4)) = self.source(entry) {
            return Some(nf4.format());
        }
        let in_block = entry.name.starts_with(&self.arch.names.block);
        let is_matrix = entry.shape.len() > 1 && !self.arch.is_router(&entry.name);
        let is_own = self.source(entry).is_some();
        let is_head =
            self.quantizes_head() && entry.name == self.arch.weight_of(&self.arch.names.head);
        self.quantized
            .filter(|_| (in_block || is_head) && is_matrix && is_own)
    }

    /// Whether the head is quantized with the blocks: to 8 bits alone, as bitsandbytes leaves it out. An adapter
    /// is trained beside a head that is not, and a tied one is the embedding, which is a table.
    pub(super) fn quantizes_head(&self) -> bool {
        self.quantized == Some(Format::Q8_0) && self.layout.adapter.is_none() && !self.arch.tied
    }

    /// The same model, in which no parameter in few bits is trained.
    pub(super) fn with_quantized_frozen(mut self) -> Self {
        let entries = self.layout.entries.iter();
        // What an adapter trains whole is not in few bits.
        let saved = |entry: &Entry| {
            let adapter = self.layout.adapter.as_ref();
            adapter.is_some_and(|adapter| adapter.saved.contains(&entry.name))
        };
        let trains = |entry: &&Entry| saved(entry) || self.format_of(entry).is_none();
        let trained = entries.filter(|entry| entry.trainable).filter(trains);
        let trained: HashSet<String> = trained.map(|entry| entry.name.clone()).collect();
        self.layout = self.layout.with_trainable(|name| trained.contains(name));
        self
    }

    /// Where the files have a parameter; `None` for one of an adapter.
    fn source(&self, entry: &Entry) -> Option<&Source> {
        let place = |(own, _): &(Entry, Source)| own.name.cmp(&entry.name);
        let at = self.tensors.binary_search_by(place).ok()?;
        Some(&self.tensors[at].1)
    }
}
