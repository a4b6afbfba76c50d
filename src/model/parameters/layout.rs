//! Names, shapes and places of all parameters of an architecture.

use std::ops::Range;

use candle_core::DType;

use crate::kernels::Precision;
use crate::kernels::packed::PackedFormat;
use crate::kernels::quantized::Format;
use crate::model::adapter::{Adapter, LowRank};
use crate::model::arch::{
    Architecture, ExpertWeights, Experts, Ffn, GateUp, Norm, Positions, QkNorm, Qkv,
};

/// How a parameter starts in a fresh model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// Normal with mean 0 and the architecture's standard deviation.
    Normal,
    /// Normal, except one row of zeros.
    NormalWithZeroRow(usize),
    /// Normal with mean 0 and the architecture's standard deviation of what is added to the residual
    /// stream.
    Residual,
    /// All ones: the weight of a norm.
    One,
    /// All zeros: a bias, and the weight of a norm by 1 + weight.
    Zero,
}

/// How a parameter is stored. What is trained is always in a flat buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// In a flat buffer, in the dtype of the weights.
    Flat,
    /// In bf16 beside f32 weights, on the CPU.
    Bf16,
    /// In few bits.
    Quantized(Format),
    /// In panels alone, for a model that draws and is neither trained nor scored: in f32, or rounded to bf16.
    Packed(Precision),
    /// As above, in few bits.
    PackedQuantized(Format),
}

/// One parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Hugging Face's name, e.g. `model.norm.weight`.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Whether a model's files have the transposed matrix, (in, out), as GPT-2's do.
    pub transposed: bool,
    /// Where it is in the flat buffers, in elements: those that are trained, then those that are frozen.
    /// Empty where it is stored elsewhere.
    pub range: Range<usize>,
    /// How it is stored.
    pub storage: Storage,
    /// Whether decoupled weight decay applies: to matrices, not to biases and norms.
    pub decay: bool,
    /// Whether it is trained.
    pub trainable: bool,
    /// How it starts.
    pub init: Init,
}

impl Entry {
    /// How many elements it has.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// (rows, in): all dimensions but the last as one.
    pub(crate) fn rows(&self) -> (usize, usize) {
        let columns = self.shape.last().copied().unwrap_or(1);
        (self.elements() / columns.max(1), columns)
    }

    /// The bytes of its weights, in `dtype` where it is in a flat buffer.
    pub fn bytes(&self, dtype: DType) -> u64 {
        match self.storage {
            Storage::Flat => (self.elements() * dtype.size_in_bytes()) as u64,
            Storage::Bf16 => 2 * self.elements() as u64,
            Storage::Quantized(format) => format.bytes(self.rows()),
            Storage::Packed(Precision::Full) => PackedFormat::F32.bytes(self.rows()),
            Storage::Packed(Precision::Bf16) => PackedFormat::Bf16.bytes(self.rows()),
            Storage::PackedQuantized(format) => {
                PackedFormat::of(format, self.rows()).bytes(self.rows())
            }
        }
    }

    /// Its shape in a model's files.
    pub fn stored_shape(&self) -> Vec<usize> {
        let mut shape = self.shape.clone();
        if self.transposed {
            shape.reverse();
        }
        shape
    }
}

/// The elements of a matrix of this shape, row by row, as those of the transposed matrix.
pub(crate) fn transpose(values: &[f32], shape: &[usize]) -> Vec<f32> {
    // A tile of both matrices stays in the cache.
    const TILE: usize = 32;
    let (rows, columns) = (shape[0], shape[1]);
    let mut transposed = vec![0.0; values.len()];
    for row in (0..rows).step_by(TILE) {
        for column in (0..columns).step_by(TILE) {
            for i in row..rows.min(row + TILE) {
                for j in column..columns.min(column + TILE) {
                    transposed[j * rows + i] = values[i * columns + j];
                }
            }
        }
    }
    transposed
}

/// The names, shapes and places of parameters, sorted by name. In the flat buffer what is trained comes
/// first.
#[derive(Debug, Clone, PartialEq)]
pub struct Layout {
    /// The parameters, sorted by name.
    pub entries: Vec<Entry>,
    /// The number of elements of the flat buffer.
    pub len: usize,
    /// How many of them, from the first on, are trained.
    pub trainable_len: usize,
    /// Bytes of tensors that are no parameters and are saved beside them.
    pub saved_beside: u64,
    /// The adapter whose parameters are among them, if the model has one.
    pub adapter: Option<Adapter>,
}

impl Layout {
    /// Where each parameter that is trained ends in the flat buffer, ascending.
    pub fn trained_ends(&self) -> Vec<usize> {
        let trained = self.entries.iter().filter(|entry| entry.trainable);
        trained.map(|entry| entry.range.end).collect()
    }

    /// The layout of a model's parameters, all of them trained.
    pub fn new(arch: &Architecture) -> Self {
        let mut list = List {
            entries: Vec::new(),
            norm: match arch.norm {
                Norm::Rms { plus_one: true, .. } => Init::Zero,
                Norm::Rms { .. } | Norm::LayerNorm { .. } => Init::One,
            },
            transposed: arch.conv1d,
        };
        let (hidden, names) = (arch.hidden_size, &arch.names);
        let table = arch.zero_row.map_or(Init::Normal, Init::NormalWithZeroRow);
        list.add(
            format!("{}.weight", names.embed),
            vec![arch.vocab_size, hidden],
            table,
        );
        if !arch.tied {
            list.add(
                format!("{}.weight", names.head),
                vec![arch.vocab_size, hidden],
                Init::Normal,
            );
        }
        if let Positions::Learned(name) = &arch.positions {
            let shape = vec![arch.max_positions, hidden];
            list.add(format!("{name}.weight"), shape, Init::Normal);
        }
        let bias = matches!(arch.norm, Norm::LayerNorm { .. });
        list.norm(&names.final_norm, hidden, bias);
        let (query, key) = (arch.heads * arch.head_dim, arch.kv_heads * arch.head_dim);
        let (qkv_bias, out_bias) = arch.attention_bias;
        for layer in 0..arch.layers {
            let name = |part: &String| arch.block_name(layer, part);
            for part in names.block_norms().into_iter().flatten() {
                list.norm(&name(part), hidden, bias);
            }
            let (parts, widths) = match &arch.qk_norm {
                None => (&[][..], [0; 2]),
                Some(QkNorm::PerHead(parts)) => (&parts[..], [arch.head_dim; 2]),
                Some(QkNorm::Whole(parts)) => (&parts[..], [query, key]),
            };
            for (part, width) in parts.iter().zip(widths) {
                list.norm(&name(part), width, bias);
            }
            match &arch.qkv {
                Qkv::Separate(parts) => {
                    for (part, out) in parts.iter().zip([query, key, key]) {
                        list.linear(&name(part), out, hidden, qkv_bias);
                    }
                }
                Qkv::Stacked(part) | Qkv::HeadInterleaved(part) => {
                    list.linear(&name(part), query + 2 * key, hidden, qkv_bias);
                }
            }
            list.residual(&name(&names.attention_out), hidden, query, out_bias);
            match arch.experts(layer) {
                Some(experts) => list.experts(arch, layer, experts),
                None => list.ffn(arch, layer),
            }
        }
        let mut entries = list.entries;
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Self::place(entries)
    }

    /// Gives entries their places in the flat buffer.
    fn place(mut entries: Vec<Entry>) -> Self {
        let (mut len, mut trainable_len) = (0, 0);
        for trainable in [true, false] {
            for entry in entries.iter_mut().filter(|e| e.trainable == trainable) {
                if trainable {
                    entry.storage = Storage::Flat;
                }
                let size = match entry.storage {
                    Storage::Flat => entry.elements(),
                    Storage::Bf16
                    | Storage::Quantized(_)
                    | Storage::Packed(_)
                    | Storage::PackedQuantized(_) => 0,
                };
                entry.range = len..len + size;
                len += size;
            }
            if trainable {
                trainable_len = len;
            }
        }
        Self {
            entries,
            len,
            trainable_len,
            saved_beside: 0,
            adapter: None,
        }
    }

    /// The same parameters, of which those whose name `trainable` accepts are trained.
    #[must_use]
    pub fn with_trainable(mut self, trainable: impl Fn(&str) -> bool) -> Self {
        for entry in &mut self.entries {
            entry.trainable = trainable(&entry.name);
        }
        Self {
            saved_beside: self.saved_beside,
            adapter: self.adapter,
            ..Self::place(self.entries)
        }
    }

    /// The same parameters, of which those that are frozen are stored as `storage` says.
    #[must_use]
    pub fn with_storage(mut self, storage: impl Fn(&Entry) -> Storage) -> Self {
        for entry in self.entries.iter_mut().filter(|entry| !entry.trainable) {
            entry.storage = storage(entry);
        }
        Self {
            saved_beside: self.saved_beside,
            adapter: self.adapter,
            ..Self::place(self.entries)
        }
    }

    /// The bytes of all weights, in `dtype` where they are in flat buffers.
    pub fn bytes(&self, dtype: DType) -> u64 {
        self.entries.iter().map(|entry| entry.bytes(dtype)).sum()
    }

    /// The same parameters, frozen but for those that the adapter trains whole, and the adapter's own.
    ///
    /// # Panics
    /// If the adapter is of a layer or a parameter that is not there.
    #[must_use]
    pub fn with_adapter(mut self, adapter: &Adapter) -> Self {
        for entry in &mut self.entries {
            entry.trainable = adapter.saved.contains(&entry.name);
        }
        let added = adapter.layers.iter().flat_map(|layer| {
            let weight = &self.entries[self.id(&layer.weight())];
            let (input, outer) = (weight.shape[1], weight.shape[0]);
            let entry = |name: String, shape: Vec<usize>| Entry {
                name,
                decay: shape.len() > 1,
                shape,
                transposed: false,
                range: 0..0,
                storage: Storage::Flat,
                trainable: true,
                init: Init::Zero,
            };
            let mut entries = vec![
                entry(layer.a(), vec![layer.rank, input]),
                entry(layer.b(), vec![outer, layer.rank]),
            ];
            if layer.dora {
                entries.push(entry(layer.magnitude(), vec![outer]));
            }
            entries
        });
        let added: Vec<Entry> = added.collect();
        self.entries.extend(added);
        self.entries.sort_by(|a, b| a.name.cmp(&b.name));
        Self {
            adapter: Some(adapter.clone()),
            ..Self::place(self.entries)
        }
    }

    /// Whether the rows of a weight are scaled to learned magnitudes.
    pub fn scales_rows(&self, entry: &Entry) -> bool {
        let layer = entry.name.strip_suffix(".weight");
        let low_rank = layer.and_then(|layer| self.low_rank(layer));
        low_rank.is_some_and(|low_rank| low_rank.dora)
    }

    /// The low-rank product of a layer, if it has one.
    pub fn low_rank(&self, layer: &str) -> Option<&LowRank> {
        let layers = &self.adapter.as_ref()?.layers;
        layers.iter().find(|low_rank| low_rank.layer == layer)
    }

    /// The layout of gradients and moments: what is trained, in the same places.
    #[must_use]
    pub fn trainable(&self) -> Self {
        let entries = self.entries.iter().filter(|entry| entry.trainable);
        Self {
            entries: entries.cloned().collect(),
            len: self.trainable_len,
            trainable_len: self.trainable_len,
            saved_beside: 0,
            adapter: None,
        }
    }

    /// What is saved of a model: beside an adapter what is trained, else all.
    pub fn saved(&self) -> impl Iterator<Item = &Entry> {
        let all = self.adapter.is_none();
        self.entries
            .iter()
            .filter(move |entry| all || entry.trainable)
    }

    /// The elements of [`Self::saved`].
    pub fn saved_len(&self) -> usize {
        match self.adapter {
            None => self.len,
            Some(_) => self.trainable_len,
        }
    }

    /// Whether these are the same parameters, wherever they lie.
    pub fn same_parameters(&self, other: &Self) -> bool {
        let key = |entry: &Entry| (entry.name.clone(), entry.shape.clone());
        self.entries
            .iter()
            .map(key)
            .eq(other.entries.iter().map(key))
    }

    /// The place of a parameter in [`Self::entries`].
    ///
    /// # Panics
    /// If the architecture has no such parameter: the caller built the name from the same one.
    pub fn id(&self, name: &str) -> usize {
        self.find(name)
            .unwrap_or_else(|| panic!("no parameter {name}"))
    }

    /// The place of a parameter, if there is one of that name.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.entries
            .binary_search_by(|entry| entry.name.as_str().cmp(name))
            .ok()
    }
}

struct List {
    entries: Vec<Entry>,
    /// How the weight of a norm starts.
    norm: Init,
    /// Whether the files have the matrices of blocks transposed.
    transposed: bool,
}

impl List {
    fn add(&mut self, name: String, shape: Vec<usize>, init: Init) {
        let decay = !matches!(init, Init::One | Init::Zero);
        self.entries.push(Entry {
            name,
            shape,
            transposed: false,
            range: 0..0,
            storage: Storage::Flat,
            decay,
            trainable: true,
            init,
        });
    }

    fn norm(&mut self, name: &str, width: usize, bias: bool) {
        self.add(format!("{name}.weight"), vec![width], self.norm);
        if bias {
            self.add(format!("{name}.bias"), vec![width], Init::Zero);
        }
    }

    fn ffn(&mut self, arch: &Architecture, layer: usize) {
        let (inputs, down) = match &arch.ffn {
            Ffn::Plain { up, down, .. } => (std::slice::from_ref(up), down),
            Ffn::Gated { gate_up, down, .. } => match gate_up {
                GateUp::Separate(parts) => (parts.as_slice(), down),
                GateUp::Stacked(part) => (std::slice::from_ref(part), down),
            },
        };
        let (width, bias) = (arch.ffn.width(), arch.ffn.bias());
        let rows = arch.ffn.activation_inputs() / inputs.len();
        let name = |part: &String| arch.block_name(layer, part);
        for part in inputs {
            self.linear(&name(part), rows, arch.hidden_size, bias);
        }
        self.residual(&name(down), arch.hidden_size, width, bias);
    }

    fn experts(&mut self, arch: &Architecture, layer: usize, experts: &Experts) {
        let Experts { count, width, .. } = *experts;
        let (hidden, name) = (arch.hidden_size, |part: &str| arch.block_name(layer, part));
        self.linear(&name(&experts.router), count, hidden, false);
        match &experts.weights {
            ExpertWeights::Separate {
                prefix,
                parts: [gate, up, down],
            } => {
                for expert in 0..count {
                    let name = |part: &str| name(&format!("{prefix}{expert}.{part}"));
                    self.linear(&name(gate), width, hidden, false);
                    self.linear(&name(up), width, hidden, false);
                    self.residual(&name(down), hidden, width, false);
                }
            }
            ExpertWeights::Fused { gate_up, down } => {
                let shapes = [vec![count, 2 * width, hidden], vec![count, hidden, width]];
                for (part, shape) in [gate_up, down].into_iter().zip(shapes) {
                    self.add(name(part), shape, Init::Normal);
                }
            }
        }
    }

    fn linear(&mut self, name: &str, out: usize, input: usize, bias: bool) {
        self.matrix(name, [out, input], Init::Normal, bias);
    }

    /// A projection whose result is added to the residual stream.
    fn residual(&mut self, name: &str, out: usize, input: usize, bias: bool) {
        self.matrix(name, [out, input], Init::Residual, bias);
    }

    fn matrix(&mut self, name: &str, [out, input]: [usize; 2], init: Init, bias: bool) {
        self.add(format!("{name}.weight"), vec![out, input], init);
        if let Some(entry) = self.entries.last_mut() {
            entry.transposed = self.transposed;
        }
        if bias {
            self.add(format!("{name}.bias"), vec![out], Init::Zero);
        }
    }
}
