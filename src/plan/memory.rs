//! What a run holds in memory, part by part, in bytes.
//!
//! Hides what a step keeps and for how long. Each part is one function with its rule.
//!
//! *Why*: a run that does not fit should be known before a model is fetched and rows are scored.

use serde::Serialize;

use super::bytes::Bytes;
use super::rows::Largest;
use super::shared::Shared;
use super::{Device, Models};
use crate::config::{Config, Dtype};
use crate::model::arch::{Architecture, QkNorm, Residual};
use crate::model::decoder::tile_rows;
use crate::model::parameters::{Entry, Layout, Storage};
use crate::model::peft::AdapterReference;
use crate::model::skipped::Skipped;

/// An f32: the residual stream, statistics of norms, sums of attention and gradients always are.
const F32: u64 = 4;

/// Bytes of memory at the peak of a training step. The total is their sum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// The weights that are computed with.
    pub weights: u64,
    /// The gradients of those that are trained, of a step and of lanes that are not added yet.
    pub gradients: u64,
    /// The optimizer's moments, and what f32 weights need beside bf16 ones.
    pub optimizer: u64,
    /// A reference that is a model in memory: one that moves, or one that scores the policy's samples.
    pub reference: u64,
    /// What the forward pass keeps for the backward pass.
    pub activations: u64,
    /// A tile of logits.
    pub logits: u64,
    /// The largest of what is there for a while, as far as it exceeds the two parts before it where
    /// these are gone by then.
    pub temporary: u64,
    /// All of it.
    pub total: u64,
}

impl Memory {
    /// That of a run whose largest micro-batch is `batch`.
    pub fn of(config: &Config, models: &Models, device: &Device, batch: &Largest) -> Self {
        let bytes = Bytes::of(config, device);
        let parameters = |arch: &Architecture| Layout::new(arch).len as u64;
        let arch = models.policy;
        let trained = models.layout.trainable_len as u64;
        let lowest = Skipped::of(arch, models.layout).lowest;
        let reference = match &models.layout.adapter {
            // It lies in the memory of the policy, but for what is trained.
            Some(_) if config.model.reference.is_none() => match of_base(config, models.layout) {
                true => 0,
                false => trained * bytes.weight,
            },
            _ => parameters(models.reference) * bytes.weight,
        };
        let on_policy = config.loss.needs().on_policy;
        let held = match config.reference.is_some() || on_policy {
            true => reference,
            false => 0,
        };
        let activations = kept(arch, &bytes, batch, lowest, config.model.recompute);
        let logits = tile(arch, &bytes, batch.predictions);
        let head = hidden_rows(arch, &bytes, batch);
        let block = block_backward(arch, &bytes, batch);
        // Between steps, when neither activations nor logits are there.
        let mut between = config.optimizer.optim.scratch(models.layout) * bytes.weight;
        let merged = merged(models.layout, &bytes);
        if on_policy || config.story.is_some() {
            between = between.max(merged + drawing(config, arch, &bytes));
        }
        if config.story.is_some() {
            between = between.max(reference + drawing(config, models.reference, &bytes));
        }
        if config.run.eval_prompts > 0 {
            // Its answers are scored under the reference, too, which is loaded for that.
            let scoring = stream(arch, batch.tokens as u64)
                + beside_stream(arch, &bytes, batch.tokens as u64, batch.queries as u64);
            let loaded = if held > 0 || config.story.is_some() {
                0
            } else {
                reference
            };
            between = between.max(loaded + scoring + logits).max(merged);
        }
        let block = block + widened(models.layout, config);
        let temporary = head
            .max(block.saturating_sub(logits))
            .max(between.saturating_sub(activations + logits));
        let shared = Shared::of(config, models.layout, device, &bytes);
        let mut memory = Self {
            weights: models.layout.bytes(bytes.storage),
            gradients: shared.gradients,
            optimizer: trained * bytes.master + shared.moments,
            reference: held,
            activations,
            logits,
            temporary,
            total: 0,
        };
        memory.total = memory.weights
            + memory.gradients
            + memory.optimizer
            + memory.reference
            + activations
            + logits
            + temporary;
        memory
    }
}

/// Whether the reference is the base of an adapter alone, which shares the policy's memory.
fn of_base(config: &Config, layout: &Layout) -> bool {
    let adapter = config.adapter.as_ref();
    let base = adapter.is_some_and(|it| it.reference() == AdapterReference::Base);
    let saved = layout
        .adapter
        .as_ref()
        .is_some_and(|it| !it.saved.is_empty());
    base && !saved && config.reference.is_none()
}

/// The weights that an adapter is merged into while samples are drawn.
fn merged(layout: &Layout, bytes: &Bytes) -> u64 {
    let layers = layout.adapter.iter().flat_map(|adapter| &adapter.layers);
    let weights = layers.map(|layer| &layout.entries[layout.id(&layer.weight())]);
    // In few bits the products stay beside them.
    let dense = weights.filter(|entry| !matches!(entry.storage, Storage::Quantized(_)));
    dense
        .map(|entry| entry.elements() as u64 * bytes.weight)
        .sum()
}

/// The largest matrix that is stored in fewer bits than a matmul reads, as it reads it.
fn widened(layout: &Layout, config: &Config) -> u64 {
    let (full, rounded) = (F32, F32 / 2);
    let read = match config.model.dtype {
        Dtype::F32 => full,
        Dtype::Bf16 => rounded,
    };
    let widens = |entry: &&Entry| match entry.storage {
        Storage::Flat | Storage::Packed(_) | Storage::PackedQuantized(_) => false,
        Storage::Bf16 => read == full,
        Storage::Quantized(_) => true,
    };
    let stored = layout.entries.iter().filter(widens);
    stored
        .map(|entry| entry.elements() as u64 * read)
        .max()
        .unwrap_or(0)
}

/// The forward pass keeps what each block's backward pass needs, the last block's only where the head
/// reads; with `recompute` the inputs of all blocks but the last, and all that one block keeps: the
/// last one's, and after it those that are computed again, one at a time. Blocks below `lowest`, which
/// the backward pass does not reach, keep nothing.
fn kept(
    arch: &Architecture,
    bytes: &Bytes,
    batch: &Largest,
    lowest: usize,
    recompute: bool,
) -> u64 {
    let (tokens, queries) = (batch.tokens as u64, batch.queries as u64);
    let input = stream(arch, tokens);
    let before = arch.layers.saturating_sub(1 + lowest) as u64;
    // The parallel layout's second norm has the same input as its first; of the last block only some
    // rows of it are read, which are copied.
    let second = match arch.residual {
        Residual::Parallel => 0,
        Residual::Sequential => stream(arch, tokens),
    };
    let whole = input + second + beside_stream(arch, bytes, tokens, tokens);
    let last = input + stream(arch, queries) + beside_stream(arch, bytes, tokens, queries);
    let blocks = match recompute {
        _ if lowest >= arch.layers => 0,
        false => before * whole + last,
        true if before == 0 => last,
        true => before * input + last.max(whole - input),
    };
    blocks + places(arch, tokens, queries, batch.predictions as u64)
}

/// The residual stream of so many tokens.
fn stream(arch: &Architecture, tokens: u64) -> u64 {
    tokens * arch.hidden_size as u64 * F32
}

/// What a block keeps beside the residual stream: two numbers per row and norm; what norms after
/// attention and the feed-forward network read; queries, keys and values; attention's output and the sum of each of its rows; the inputs of the activation. Norms on
/// heads also keep their inputs.
fn beside_stream(arch: &Architecture, bytes: &Bytes, tokens: u64, queries: u64) -> u64 {
    let (heads, dim) = (arch.heads as u64, arch.head_dim as u64);
    let both = heads + arch.kv_heads as u64;
    let [first, norms @ ..] = arch
        .names
        .block_norms()
        .map(|norm| u64::from(norm.is_some()));
    let statistics = 2 * F32 * (tokens * first + queries * norms.iter().sum::<u64>());
    let given = stream(arch, queries) * arch.names.post_norms() as u64;
    let projected = tokens * arch.qkv_width() as u64 * bytes.activation;
    let attention = queries * heads * (dim * bytes.activation + F32);
    let inputs = arch.activation_inputs().ceil() as u64;
    let feed_forward = queries * inputs * bytes.activation;
    let head_norms = match arch.qk_norm {
        Some(QkNorm::PerHead(_)) => tokens * both * (dim * bytes.activation + 2 * F32),
        Some(QkNorm::Whole(_)) => tokens * (both * dim * bytes.activation + 2 * 2 * F32),
        None => 0,
    };
    statistics + given + projected + attention + feed_forward + head_norms
}

/// Token ids, the angles of rotations, and where the head reads.
fn places(arch: &Architecture, tokens: u64, queries: u64, predictions: u64) -> u64 {
    let angles = arch.rotated() as u64 * F32;
    tokens * (F32 + angles) + (queries + predictions) * F32
}

/// The logits of a tile in f32, which become their own gradient; of a bf16 model also in bf16, for the
/// matmuls.
fn tile(arch: &Architecture, bytes: &Bytes, predictions: usize) -> u64 {
    let logits = (tile_rows(arch, bytes.gpu).min(predictions) * arch.vocab_size) as u64;
    logits * (F32 + if bytes.mixed { 2 } else { 0 })
}

/// Beside a tile: the last block's output, its rows that predict, those after the final norm and
/// their gradient.
fn hidden_rows(arch: &Architecture, bytes: &Bytes, batch: &Largest) -> u64 {
    let predictions = batch.predictions as u64;
    let normed = predictions * arch.hidden_size as u64 * bytes.activation;
    stream(arch, batch.queries as u64) + 2 * stream(arch, predictions) + normed
}

/// The most that a block's backward pass makes beside what was kept, when logits are gone: the
/// gradient of its output, and either that of attention's output where the layout is parallel, the
/// activation's output and the gradients of its inputs; or, when the latter's inputs are gone,
/// gradients of attention's output and of queries, keys and values.
fn block_backward(arch: &Architecture, bytes: &Bytes, batch: &Largest) -> u64 {
    let tokens = batch.tokens as u64;
    let attended = arch.heads as u64 * arch.head_dim as u64;
    let inputs = arch.activation_inputs().ceil() as u64;
    let parallel = match arch.residual {
        Residual::Parallel => attended,
        Residual::Sequential => 0,
    };
    // Tokens sorted by expert, and the gradient of what experts give for them.
    let sorted = arch
        .experts
        .as_ref()
        .map_or(0, |e| 2 * (e.per_token * arch.hidden_size) as u64);
    let feed_forward = parallel + arch.ffn_width().ceil() as u64 + inputs + sorted;
    let attention = (attended + arch.qkv_width() as u64).saturating_sub(inputs);
    stream(arch, tokens) + tokens * feed_forward.max(attention) * bytes.activation
}

/// Keys and values of the sequences that are drawn at once, each as long as it may become, and a row
/// of logits for each.
fn drawing(config: &Config, arch: &Architecture, bytes: &Bytes) -> u64 {
    let sequences = config.sample.clone().unwrap_or_default().batch_size as u64;
    let kept = 2 * (arch.kv_heads * arch.head_dim * arch.layers) as u64 * bytes.activation;
    sequences * (config.data.rows.length.max_length as u64 * kept + arch.vocab_size as u64 * F32)
}
