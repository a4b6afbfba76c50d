//! All parameters of a model as views of two flat buffers: one of what is trained, one of what is
//! frozen, each sorted by name. Frozen matrices may be stored elsewhere, in fewer bits.
//!
//! *Why*: an optimizer step, a gradient norm or a shard is then one pass over one buffer, in an
//! order that no hash map decides. Gradients and optimizer moments are laid out like the first one, and
//! exist for what is trained only; models that differ in what is trained share the second.

mod layout;
mod operand;
mod stored;

use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use crate::error::Result;
use crate::kernels::device::{download, download_split, upload, upload_split, zeros};
use crate::kernels::dropout::Dropout;
use crate::kernels::quantized::Quantizer;
use crate::kernels::{Dst, Precision, elementwise, optimizer};

pub(crate) use layout::transpose;
pub use layout::{Entry, Init, Layout, Storage};
pub(super) use operand::Operand;
use stored::View;

/// A parameter's index in the weights and, where it is trained, in gradients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parameter {
    id: usize,
    gradient: Option<usize>,
}

/// Weights as one pass computes with them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weights<'a> {
    pub params: &'a Params,
    /// What matmuls round their operands to.
    pub precision: Precision,
    /// Whether layers add their low-rank products.
    pub adapter: bool,
    /// What these leave out of their inputs; nothing but in training.
    pub dropout: Option<Dropout<'a>>,
}

impl Weights<'_> {
    /// The dtype of what is computed with them, but for the residual stream.
    pub fn dtype(self) -> DType {
        self.params.flat.dtype()
    }
}

impl Parameter {
    /// Whether it is trained.
    pub fn trainable(self) -> bool {
        self.gradient.is_some()
    }

    /// Its shape.
    pub fn shape(self, layout: &Layout) -> &[usize] {
        &layout.entries[self.id].shape
    }

    /// Its view of the weights.
    ///
    /// # Panics
    /// If it is quantized.
    pub fn of(self, weights: Weights<'_>) -> &Tensor {
        weights.params.view(self.id)
    }

    /// Its view of the gradients, to write, where it is trained.
    pub fn gradient(self, gradients: &mut Params) -> Option<Dst<'_>> {
        self.gradient.map(|id| gradients.views[id].dense_mut())
    }

    /// As [`Self::gradient`], of these [rows](rows_of).
    pub fn gradient_rows<'a>(
        self,
        gradients: &'a mut Params,
        rows: Option<&Range<usize>>,
    ) -> Result<Option<Dst<'a>>> {
        let whole = self.gradient(gradients);
        whole
            .map(|whole| whole.narrowed(|x| rows_of(x, rows)))
            .transpose()
    }

    /// The views of the gradients of a weight and of its bias, to write, where they are trained.
    pub fn gradients(
        self,
        bias: Option<Self>,
        gradients: &mut Params,
    ) -> (Option<Dst<'_>>, Option<Dst<'_>>) {
        let views = &mut gradients.views;
        match (self.gradient, bias.and_then(|bias| bias.gradient)) {
            (Some(weight), Some(bias)) => {
                let views = views.get_disjoint_mut([weight, bias]);
                let [weight, bias] = views.expect("a weight and its bias are two parameters");
                (Some(weight.dense_mut()), Some(bias.dense_mut()))
            }
            (Some(weight), None) => (Some(views[weight].dense_mut()), None),
            (None, Some(bias)) => (None, Some(views[bias].dense_mut())),
            (None, None) => (None, None),
        }
    }
}

impl Layout {
    /// A parameter of that name.
    ///
    /// # Panics
    /// If the architecture has no such parameter: the caller built the name from the same one.
    pub(super) fn parameter(&self, name: &str) -> Parameter {
        self.find_parameter(name)
            .unwrap_or_else(|| panic!("no parameter {name}"))
    }

    /// The parameter of that name, if there is one.
    pub(super) fn find_parameter(&self, name: &str) -> Option<Parameter> {
        let id = self.find(name)?;
        let before = self.entries[..id].iter().filter(|entry| entry.trainable);
        let gradient = self.entries[id].trainable.then(|| before.count());
        Some(Parameter { id, gradient })
    }
}

/// These rows of a parameter, all where `None`: its last dimension is the input where it has three, and all
/// others are rows.
pub(super) fn rows_of(whole: &Tensor, rows: Option<&Range<usize>>) -> candle_core::Result<Tensor> {
    match rows {
        None => Ok(whole.clone()),
        Some(rows) if whole.rank() == 3 => whole.flatten_to(1)?.narrow(0, rows.start, rows.len()),
        Some(rows) => whole.narrow(0, rows.start, rows.len()),
    }
}

/// The bytes of a tensor.
pub(super) fn bytes(x: &Tensor) -> u64 {
    (x.elem_count() * x.dtype().size_in_bytes()) as u64
}

/// Where bf16 parameters have the rest of the f32 that they stand for.
#[derive(Debug, Clone)]
pub enum Master {
    /// Nowhere: the buffer's own elements are the values.
    Itself,
    /// A copy in f32, of what is trained at least, (elements from the first on).
    F32(Tensor),
    /// The i16 that each bf16 lacks, of what is trained at least, (elements from the first on), as
    /// [`upload_split`] has it.
    Low(Tensor),
}

/// Flat buffers of what is trained and of what is frozen, with a view for each parameter.
#[derive(Debug, Clone)]
pub struct Params {
    layout: Arc<Layout>,
    /// (trained elements).
    flat: Tensor,
    /// (frozen elements), which several models may share.
    frozen: Tensor,
    views: Vec<View>,
    master: Master,
    /// At least the magnitude of every value; infinite if unknown.
    largest: f64,
}

impl Params {
    /// Wraps flat tensors of what is trained and of what is frozen, as long as the layout says. What is in
    /// no flat buffer is yet to be [filled](Self::fill).
    pub fn new(layout: Arc<Layout>, flat: Tensor, frozen: Tensor) -> Result<Self> {
        let view = |entry: &Entry| -> Result<View> {
            let shape = entry.shape.as_slice();
            match entry.storage {
                Storage::Flat => {}
                Storage::Bf16 => {
                    return Ok(View::Dense(zeros(shape, DType::BF16, flat.device())?));
                }
                Storage::Packed(_) => return Ok(View::Packing(Vec::new())),
                Storage::Quantized(format) | Storage::PackedQuantized(format) => {
                    return Ok(View::Quantizing(Quantizer::new(format, entry.rows())));
                }
            }
            let (whole, start) = match entry.trainable {
                true => (&flat, entry.range.start),
                false => (&frozen, entry.range.start - layout.trainable_len),
            };
            let part = whole.narrow(0, start, entry.range.len())?;
            Ok(View::Dense(part.reshape(shape)?))
        };
        let views = layout.entries.iter().map(view).collect::<Result<_>>()?;
        Ok(Self {
            layout,
            flat,
            frozen,
            views,
            master: Master::Itself,
            largest: f64::INFINITY,
        })
    }

    /// The same buffer, whose values are those of `master`.
    pub fn with_master(self, master: Master) -> Self {
        Self { master, ..self }
    }

    /// Buffers of zeros.
    pub fn zeros(layout: Arc<Layout>, dtype: DType, device: &Device) -> Result<Self> {
        let flat = zeros(layout.trainable_len, dtype, device)?;
        let frozen = zeros(layout.len - layout.trainable_len, dtype, device)?;
        let zeros = Self::new(layout, flat, frozen)?;
        Ok(Self {
            largest: 0.0,
            ..zeros
        })
    }

    /// The names, shapes and places.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// What is trained, alone, in the same memory.
    pub fn trained(&self) -> Result<Self> {
        let layout = Arc::new(self.layout.trainable());
        let none = self.frozen.narrow(0, 0, 0)?;
        let trained = Self::new(layout, self.flat.clone(), none)?;
        Ok(trained.with_master(self.master.clone()))
    }

    /// What is frozen, in the same memory, beside a copy of what is trained, which has no master weights.
    pub fn with_own_trained(&self) -> Result<Self> {
        let flat = elementwise::copy(&self.flat)?;
        // Not by `Self::new`, which makes memory for what is in no flat buffer.
        let own = Self::new(Arc::new(self.layout.trainable()), flat, self.frozen.clone())?;
        let mut trained = own.views.into_iter();
        let views = self.layout.entries.iter().zip(&self.views);
        let views = views.map(|(entry, view)| match entry.trainable {
            true => trained.next().expect("a view of each that is trained"),
            false => view.clone(),
        });
        Ok(Self {
            layout: self.layout.clone(),
            views: views.collect(),
            ..own
        })
    }

    /// What is trained, (elements).
    pub fn flat(&self) -> &Tensor {
        &self.flat
    }

    /// What is frozen, (elements), to be read and to be written in place.
    pub fn frozen_mut(&mut self) -> Dst<'_> {
        self.largest = f64::INFINITY;
        (&mut self.frozen).into()
    }

    /// What is frozen, (elements).
    pub fn frozen(&self) -> &Tensor {
        &self.frozen
    }

    /// What is trained, (elements), to be written in place.
    pub fn flat_mut(&mut self) -> Dst<'_> {
        self.largest = f64::INFINITY;
        (&mut self.flat).into()
    }

    /// At least the magnitude of every value, as far as values were [`set`](Self::set): infinite after
    /// other writes.
    pub fn largest(&self) -> f64 {
        self.largest
    }

    /// Says that no value is of a larger magnitude than this.
    pub fn set_largest(&mut self, largest: f64) {
        self.largest = largest;
    }

    /// What an update writes to: the first `len` elements, with their master weights.
    pub fn updated(&mut self, len: usize) -> Result<optimizer::Weights<'_>> {
        self.largest = f64::INFINITY;
        let first = |x: &Tensor| x.narrow(0, 0, len);
        let weights = Dst::view(&mut self.flat, first)?;
        Ok(match &mut self.master {
            Master::Itself => optimizer::Weights::Plain(weights),
            Master::F32(master) => optimizer::Weights::Master {
                weights,
                master: Dst::view(master, first)?,
            },
            Master::Low(low) => optimizer::Weights::Split {
                weights,
                low: Dst::view(low, first)?,
            },
        })
    }

    /// What makes up the values of what is trained, each (elements), to be written in place.
    pub fn trained_mut(&mut self) -> Result<Vec<Dst<'_>>> {
        self.largest = f64::INFINITY;
        let len = self.flat.elem_count();
        let mut all = vec![Dst::from(&mut self.flat)];
        match &mut self.master {
            Master::Itself => {}
            Master::F32(rest) | Master::Low(rest) => {
                all.push(Dst::view(rest, |rest| rest.narrow(0, 0, len))?);
            }
        }
        Ok(all)
    }

    /// One parameter in its shape; writes in place go through to the buffer.
    ///
    /// # Panics
    /// If it is quantized.
    pub fn view(&self, id: usize) -> &Tensor {
        self.views[id].dense()
    }

    /// What the buffer's elements lack.
    pub fn master(&self) -> &Master {
        &self.master
    }

    /// The values of the elements in `range`, in f32.
    pub fn values(&self, range: Range<usize>) -> Result<Vec<f32>> {
        let mut values = Vec::with_capacity(range.len());
        for part in self.divide(range) {
            let stored = match part.end <= self.layout.trainable_len {
                true => self.flat.narrow(0, part.start, part.len())?,
                false => {
                    let start = part.start - self.layout.trainable_len;
                    self.frozen.narrow(0, start, part.len())?
                }
            };
            let own = |master: &Tensor| master.narrow(0, part.start, part.len());
            values.extend(match &self.master {
                Master::F32(master) if part.end <= master.elem_count() => download(&own(master)?)?,
                Master::Low(low) if part.end <= low.elem_count() => {
                    download_split(&stored, &own(low)?)?
                }
                _ => download(&stored)?,
            });
        }
        Ok(values)
    }

    /// Sets the values of the elements from `start` on, in the memory that the views share.
    pub fn set(&mut self, start: usize, values: &[f32]) -> Result<()> {
        let largest = values.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        self.largest = self.largest.max(f64::from(largest));
        let mut rest = values;
        for part in self.divide(start..start + values.len()) {
            let (values, others) = rest.split_at(part.len());
            rest = others;
            let (whole, start) = match part.end <= self.layout.trainable_len {
                true => (&mut self.flat, part.start),
                false => (&mut self.frozen, part.start - self.layout.trainable_len),
            };
            let stored = Dst::view(whole, |x| x.narrow(0, start, part.len()))?;
            let own = |x: &Tensor| x.narrow(0, part.start, part.len());
            match &mut self.master {
                Master::F32(master) if part.end <= master.elem_count() => {
                    upload(values, stored)?;
                    upload(values, Dst::view(master, own)?)?;
                }
                Master::Low(low) if part.end <= low.elem_count() => {
                    upload_split(values, stored, Dst::view(low, own)?)?;
                }
                _ => upload(values, stored)?,
            }
        }
        Ok(())
    }

    /// The elements of `range` that are trained, then those that are frozen, as far as there are any.
    fn divide(&self, range: Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
        let end = self.layout.trainable_len.clamp(range.start, range.end);
        [range.start..end, end..range.end]
            .into_iter()
            .filter(|part| !part.is_empty())
    }

    /// Fills what is trained with zeros in place.
    pub fn clear(&mut self) -> Result<()> {
        elementwise::clear(&mut self.flat)
    }
}
