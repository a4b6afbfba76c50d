//! Decoding token by token, many sequences at once.
//!
//! Hides the keys and values that are kept between tokens, and where logits are. A prompt is computed
//! once for all its continuations, packed with the others; a step reads every weight once for all
//! sequences.
//!
//! *Why*: a draw hangs on a sequence's own numbers alone, which the host has; logits, many times as
//! much, stay where they are. So this takes numbers and gives ids, and knows nothing of files or of
//! when a sequence ends.

use candle_core::Tensor;

use super::choice::Choice;
use super::decoder::Decoder;
use super::merge::merged;
use super::parameters::{Params, Weights};
use super::sampling::SampleConfig;
use crate::data::Example;
use crate::data::pack::{Packed, micro_batches};
use crate::error::Result;
use crate::kernels::elementwise;
use crate::kernels::embedding::Ids;
use crate::kernels::kv_cache::{self, KvCache, Places, Shape};
use crate::kernels::sampling::draws_from;
use crate::kernels::{Dst, Precision};

/// Tokens of prompts computed at once.
pub const PROMPT_TOKENS: usize = 512;

/// Sequences that grow by one token at a time, each in a slot.
pub struct Generation<'a> {
    model: &'a Decoder,
    computed: ComputedWeights,
    /// One per block.
    blocks: Vec<KvCache>,
    /// The sequence in each slot.
    sequences: Vec<Vec<u32>>,
    /// The slots whose next token is to be drawn.
    rows: Vec<usize>,
    /// After the last block, (rows, hidden), in parts.
    hidden: Vec<Tensor>,
    choice: Choice<'a>,
    bytes: u64,
}

/// The model's weights as decoding computes with them.
struct ComputedWeights {
    /// Those that an adapter is merged into; `None` where there is none, or where it stays beside weights in
    /// few bits.
    merged: Option<Params>,
    /// Those with matrices in panels, in host memory: what a sequence gives does then not depend on the
    /// others in the batch.
    packed: Option<Params>,
}

/// A prompt that was computed, for any number of sequences.
#[derive(Debug, Clone)]
pub struct Prefix {
    ids: Vec<u32>,
    /// One per block.
    blocks: Vec<kv_cache::Prefix>,
    /// (1, hidden): after the last block, of the last token.
    last: Tensor,
}

impl<'a> Generation<'a> {
    /// No sequence, with slots for so many, each of so many tokens at most, which are drawn as `config`
    /// says.
    pub fn new(
        model: &'a Decoder,
        slots: usize,
        capacity: usize,
        config: &'a SampleConfig,
    ) -> Result<Self> {
        let arch = &model.arch;
        let shape = |layer: usize| Shape {
            slots,
            capacity,
            kv_heads: arch.kv_heads,
            head_dim: arch.head_dim,
            scores: arch.scores(layer),
        };
        let kept = |shape| {
            KvCache::new(
                shape,
                model.dtype(),
                model.numerics().compute,
                model.device(),
            )
        };
        Ok(Self {
            model,
            computed: ComputedWeights::new(model)?,
            blocks: (0..arch.layers)
                .map(shape)
                .map(kept)
                .collect::<Result<_>>()?,
            sequences: vec![Vec::new(); slots],
            rows: Vec::new(),
            hidden: Vec::new(),
            choice: Choice::new(config, slots, arch.vocab_size, model.weights())?,
            bytes: 0,
        })
    }

    /// Computes prompts.
    ///
    /// # Panics
    /// If one has no token: nothing would predict the first one.
    pub fn prefixes(&self, prompts: &[&[u32]]) -> Result<Vec<Prefix>> {
        assert!(
            prompts.iter().all(|ids| !ids.is_empty()),
            "a prompt has no token"
        );
        let precision = self.model.numerics().compute;
        let tokens: Vec<usize> = prompts.iter().map(|ids| ids.len()).collect();
        let mut all = Vec::with_capacity(prompts.len());
        for range in micro_batches(&tokens, PROMPT_TOKENS) {
            let prompts = &prompts[range];
            let (packed, spans) = pack(prompts);
            let mut blocks = vec![Vec::with_capacity(self.blocks.len()); prompts.len()];
            let weights = self.computed.of(self.model);
            let last = self.model.forward_with(weights, &packed, |_, saved| {
                let (keys, values) = saved.keys_values();
                for (blocks, &(start, length)) in blocks.iter_mut().zip(&spans) {
                    let part = |x: &Tensor| x.narrow(0, start, length);
                    let (keys, values) = (part(keys)?, part(values)?);
                    blocks.push(kv_cache::Prefix::new(&keys, &values, precision)?);
                }
                Ok(())
            })?;
            for (row, (ids, blocks)) in prompts.iter().zip(blocks).enumerate() {
                all.push(Prefix {
                    ids: ids.to_vec(),
                    blocks,
                    last: last.narrow(0, row, 1)?,
                });
            }
        }
        Ok(all)
    }

    /// Begins a sequence in a slot; its first token is among the next that are drawn, behind the others.
    pub fn begin(&mut self, slot: usize, prefix: &Prefix) -> Result<()> {
        for (kept, prompt) in self.blocks.iter_mut().zip(&prefix.blocks) {
            kept.begin(slot, prompt)?;
        }
        self.choice.begin(slot, &prefix.ids)?;
        self.sequences[slot].clone_from(&prefix.ids);
        self.rows.push(slot);
        self.hidden.push(prefix.last.clone());
        Ok(())
    }

    /// Frees what the sequence in a slot takes.
    pub fn end(&mut self, slot: usize) {
        self.blocks.iter_mut().for_each(|kept| kept.end(slot));
    }

    /// The slots whose next token is to be drawn.
    pub fn rows(&self) -> &[usize] {
        &self.rows
    }

    /// What the steps so far had to read at least, in bytes: at each the weights of blocks and head once,
    /// and of each sequence its keys and values. Prompts are not counted.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Draws the next token of each of [`rows`](Self::rows) by its number in [0, 1), and gives its id and
    /// its log-prob under the model itself, before any logits processor, in nats, not finite where the logits
    /// are not.
    ///
    /// # Errors
    /// If there is not one number for each row.
    pub fn next(&mut self, uniforms: &[f64]) -> Result<Vec<(u32, f64)>> {
        let (model, rows) = (self.model, std::mem::take(&mut self.rows));
        let hidden = together(std::mem::take(&mut self.hidden))?;
        let weights = self.computed.of(model);
        let norm = model.final_norm();
        let (h, _) = norm.forward(weights, &hidden)?;
        let logits = model.head_logits_of(weights, &h)?;
        self.bytes += model.head().bytes(weights);
        self.choice.draw(&logits, &rows, uniforms)
    }

    /// Appends tokens: (slot, id) of each sequence that continues, whose next token is then to be drawn.
    ///
    /// A sequence that grows into another [`length_class`](Decoder::length_class) is computed anew.
    pub fn extend(&mut self, tokens: &[(usize, u32)]) -> Result<()> {
        let class = |length| self.model.length_class(length);
        let is_new = |&(slot, _): &(usize, u32)| {
            let length = self.sequences[slot].len();
            class(length) != class(length + 1)
        };
        let (anew, tokens): (Vec<_>, Vec<_>) = tokens.iter().copied().partition(is_new);
        self.append(&tokens)?;
        self.recompute(&anew)
    }

    /// Appends tokens to sequences whose keys and values stay what they are.
    fn append(&mut self, tokens: &[(usize, u32)]) -> Result<()> {
        if tokens.is_empty() {
            return Ok(());
        }
        let (slots, ids): (Vec<usize>, Vec<u32>) = tokens.iter().copied().unzip();
        let (model, device) = (self.model, self.model.device());
        let lengths = slots.iter().map(|&slot| self.sequences[slot].len());
        let lengths: Vec<usize> = lengths.collect();
        let positions: Vec<u32> = lengths.iter().map(|&length| length as u32).collect();
        let with_token: Vec<u32> = positions.iter().map(|position| position + 1).collect();
        let placed = model.placed(&positions, &with_token)?;
        let places = Places::new(&slots, &lengths, device)?;
        let weights = self.computed.of(model);
        let mut x = model.embed(&Ids::new(&ids, device)?, &placed)?;
        for (layer, (block, kept)) in model.blocks.iter().zip(&mut self.blocks).enumerate() {
            let batch = (placed.angles(layer), &places);
            x = block.extend(weights, &x, batch, kept)?;
        }
        let bytes = model.blocks.iter().map(|block| block.bytes(weights));
        self.bytes += bytes.sum::<u64>();
        let heads = 2 * self.blocks.len() * model.arch.kv_heads * model.arch.head_dim;
        let element = match model.numerics().compute {
            Precision::Full => model.dtype().size_in_bytes(),
            Precision::Bf16 => 2,
        };
        let kept = heads * lengths.iter().sum::<usize>() * element;
        self.bytes += kept as u64;
        for &(slot, id) in tokens {
            self.sequences[slot].push(id);
        }
        self.rows = slots;
        self.hidden = vec![x];
        Ok(())
    }

    /// Appends tokens to sequences whose keys and values all change with them.
    fn recompute(&mut self, tokens: &[(usize, u32)]) -> Result<()> {
        for &(slot, id) in tokens {
            self.sequences[slot].push(id);
            // One at a time: they are long, and their keys and values are there twice.
            for prefix in self.prefixes(&[&self.sequences[slot]])? {
                for (kept, whole) in self.blocks.iter_mut().zip(&prefix.blocks) {
                    kept.begin(slot, whole)?;
                }
                self.rows.push(slot);
                self.hidden.push(prefix.last);
            }
        }
        Ok(())
    }
}

impl ComputedWeights {
    fn new(model: &Decoder) -> Result<Self> {
        let (params, layout) = (&model.params, model.layout());
        let adapted = layout.adapter.iter().flat_map(|adapter| &adapter.layers);
        let mut adapted = adapted.map(|layer| layout.id(&layer.weight()));
        let merges = model.has_adapter() && !adapted.any(|id| params.is_quantized(id));
        let merged = merges.then(|| merged(params)).transpose()?;
        let current = merged.as_ref().unwrap_or(params);
        // On a GPU logits stay there, and matmuls are cuBLAS's.
        let packed = (!draws_from(params.flat())).then(|| {
            let (arch, head) = (&model.arch, model.arch.weight_of(&model.arch.names.head));
            let is_table = |name: &str| arch.is_table(name) && name != head;
            current.packed(model.numerics().compute, is_table)
        });
        let packed = packed.transpose()?;
        Ok(Self { merged, packed })
    }

    fn of<'a>(&'a self, model: &'a Decoder) -> Weights<'a> {
        let own = model.own_weights();
        let merged = self.merged.as_ref();
        Weights {
            params: self.packed.as_ref().or(merged).unwrap_or(own.params),
            adapter: own.adapter && merged.is_none(),
            ..own
        }
    }
}

/// Rows in one tensor.
fn together(mut parts: Vec<Tensor>) -> Result<Tensor> {
    if let [_] = parts.as_slice() {
        return Ok(parts.remove(0));
    }
    let rows = parts.iter().map(|part| part.dims()[0]).sum();
    let mut all = elementwise::zeros((rows, parts[0].dim(1)?), &parts[0])?;
    let mut at = 0;
    for part in &parts {
        let rows = part.dim(0)?;
        let to = Dst::view(&mut all, |all| all.narrow(0, at, rows)?.unsqueeze(1))?;
        elementwise::assign(to, &part.unsqueeze(1)?)?;
        at += rows;
    }
    Ok(all)
}

/// The prompts in one row, and where each lies: (first token, tokens).
fn pack(prompts: &[&[u32]]) -> (Packed, Vec<(usize, usize)>) {
    let alone = |ids: &&[u32]| Example {
        row: 0,
        prompt: ids.to_vec(),
        responses: Vec::new(),
        preference: None,
    };
    let examples: Vec<Example> = prompts.iter().map(alone).collect();
    let starts = prompts.iter().scan(0, |next, ids| {
        let start = *next;
        *next += ids.len();
        Some((start, ids.len()))
    });
    let spans: Vec<(usize, usize)> = starts.collect();
    let mut packed = Packed::new(&examples, &[]);
    let last = spans
        .iter()
        .map(|(start, length)| (start + length - 1) as u32);
    packed.sources = last.collect();
    (packed, spans)
}
