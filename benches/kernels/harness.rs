//! Times of functions beside what the machine can do.
//!
//! *Why*: a time says little by itself. A kernel reads and writes so many bytes, or makes so many
//! floating-point operations, and is as good as its share of what a plain copy of a large buffer,
//! or the best product of this run, reaches. Where caches hold the operands it is above the copy.

use std::time::{Duration, Instant};

use candle_core::{DType, Device, Tensor};
use expo::error::{Error, Result};
use expo::kernels::Precision;
use expo::kernels::rates::product_rate;
use rayon::prelude::*;

/// What a function cannot do without.
#[derive(Clone, Copy)]
pub enum Work {
    /// Bytes read and written.
    Bytes(usize),
    /// Floating-point operations on operands of this precision.
    Flops(usize, Precision),
}

struct Row {
    name: String,
    seconds: f64,
    work: Work,
}

/// Measures what its filter lets through.
pub struct Harness {
    filter: Option<String>,
    group: String,
    rows: Vec<Row>,
}

impl Harness {
    /// With the first argument that is no option as a part of the names to measure.
    pub fn from_arguments() -> Self {
        Self {
            filter: std::env::args().skip(1).find(|arg| !arg.starts_with('-')),
            group: String::new(),
            rows: Vec::new(),
        }
    }

    /// What is measured from here on has this before its name.
    pub fn group(&mut self, name: &str) {
        self.group = format!("{name} ");
    }

    /// The median time of `f`, after one call to warm up: over half a second, 5 to 100 samples.
    pub fn measure<R>(&mut self, name: &str, work: Work, mut f: impl FnMut() -> Result<R>) {
        let name = format!("{}{name}", self.group);
        if self
            .filter
            .as_ref()
            .is_some_and(|part| !name.contains(part))
        {
            return;
        }
        let mut sample = || {
            let start = Instant::now();
            std::hint::black_box(f().expect("the kernel works"));
            start.elapsed().as_secs_f64()
        };
        sample();
        let (start, mut samples) = (Instant::now(), Vec::new());
        let enough = Duration::from_millis(500);
        while samples.len() < 5 || (samples.len() < 100 && start.elapsed() < enough) {
            samples.push(sample());
        }
        samples.sort_by(f64::total_cmp);
        let seconds = samples[samples.len() / 2];
        self.rows.push(Row {
            name,
            seconds,
            work,
        });
    }

    /// Measures the bounds and prints the table.
    pub fn print(mut self) {
        self.group.clear();
        self.filter = None;
        self.copy();
        let best = |precision: Precision| {
            let rates = self.rows.iter().filter_map(|row| match row.work {
                Work::Flops(flops, p) if p == precision => Some(flops as f64 / row.seconds),
                _ => None,
            });
            let square = Tensor::zeros(1, DType::F32, &Device::Cpu)
                .map_err(Error::from)
                .and_then(|like| product_rate(&like, precision));
            rates.fold(square.map_or(f64::NAN, |(rate, _)| rate), f64::max)
        };
        let (full, bf16) = (best(Precision::Full), best(Precision::Bf16));
        let copy = self.rows.last().map_or(f64::NAN, |row| match row.work {
            Work::Bytes(bytes) => bytes as f64 / row.seconds,
            Work::Flops(..) => f64::NAN,
        });
        println!("{} threads", rayon::current_num_threads());
        println!("bound: copy of a large buffer  {:>8.1} GB/s", copy * 1e-9);
        println!(
            "bound: products, f32           {:>8.1} GFLOP/s",
            full * 1e-9
        );
        println!(
            "bound: products, bf16          {:>8.1} GFLOP/s",
            bf16 * 1e-9
        );
        println!("\n{:<44}{:>10}{:>16}{:>8}", "", "ms", "rate", "share");
        for Row {
            name,
            seconds,
            work,
        } in &self.rows
        {
            let (amount, unit, bound) = match work {
                Work::Bytes(bytes) => (*bytes, "GB/s", copy),
                Work::Flops(flops, Precision::Full) => (*flops, "GFLOP/s", full),
                Work::Flops(flops, Precision::Bf16) => (*flops, "GFLOP/s", bf16),
            };
            let rate = amount as f64 / seconds;
            println!(
                "{name:<44}{:>10.3}{:>8.1} {unit:<7}{:>7.0}%",
                seconds * 1e3,
                rate * 1e-9,
                100.0 * rate / bound
            );
        }
    }

    fn copy(&mut self) {
        const LENGTH: usize = 1 << 26;
        const UNIT: usize = 1 << 14;
        let (from, mut to) = (vec![1f32; LENGTH], vec![0f32; LENGTH]);
        self.measure("copy", Work::Bytes(8 * LENGTH), || {
            let units = to.par_chunks_mut(UNIT).zip(from.par_chunks(UNIT));
            units.for_each(|(to, from)| to.copy_from_slice(from));
            Ok(())
        });
    }
}
