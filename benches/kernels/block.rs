//! The kernels of one block, in the order of the decoder.

use candle_core::{DType, Tensor};
use expo::error::Result;
use expo::kernels::activation::Activation;
use expo::kernels::attention::{self, Packing, Scores};
use expo::kernels::embedding::Ids;
use expo::kernels::kv_cache::{KvCache, Places, Prefix, Shape};
use expo::kernels::norm::Norm;
use expo::kernels::quantized::{Format, Quantizer};
use expo::kernels::rotary::{Angles, rotate, rotate_back};
use expo::kernels::{Dst, Precision, activation, elementwise, embedding, linear, norm, packed};
use expo::segment::Segment;

use super::harness::{Harness, Work};
use super::{F32, VOCABULARY, ids, random, zeros};

/// Pairs of a micro-batch, and tokens of a prompt and its two responses: HH's means.
const PAIRS: usize = 8;
const LENGTHS: [usize; 3] = [124, 44, 43];
const TOKENS: usize = PAIRS * (LENGTHS[0] + LENGTHS[1] + LENGTHS[2]);
const HEAD: usize = 64;
/// Elements of a head that are rotated.
const ROTARY: usize = 16;
/// Over the root of [`HEAD`], without a window.
const SCORES: Scores = Scores {
    scale: 0.125,
    window: None,
    softcap: None,
    precision: Precision::Full,
};

/// All kernels of a block of this width.
pub fn all(harness: &mut Harness, hidden: usize) -> Result<()> {
    embeddings(harness, hidden)?;
    norms(harness, hidden)?;
    rotations(harness, hidden)?;
    attentions(harness, hidden)?;
    decoding(harness, hidden)?;
    products(harness, hidden)?;
    activations(harness, 4 * hidden)?;
    sums(harness, hidden)
}

/// So many passes over a tensor of every token.
fn passes(passes: usize, width: usize) -> Work {
    Work::Bytes(passes * TOKENS * width * F32)
}

fn embeddings(harness: &mut Harness, hidden: usize) -> Result<()> {
    let mut table = random(&[VOCABULARY, hidden])?;
    let ids = Ids::new(&ids(TOKENS, VOCABULARY), table.device())?;
    let dy = random(&[TOKENS, hidden])?;
    harness.measure("embedding::gather", passes(2, hidden), || {
        embedding::gather(&table, &ids, DType::F32)
    });
    harness.measure("embedding::scatter_add", passes(3, hidden), || {
        embedding::scatter_add(&dy, &ids, &mut table)
    });
    Ok(())
}

fn norms(harness: &mut Harness, hidden: usize) -> Result<()> {
    let (x, dy) = (random(&[TOKENS, hidden])?, random(&[TOKENS, hidden])?);
    let (weight, bias) = (random(&[hidden])?, random(&[hidden])?);
    let epsilon = 1e-5;
    for (name, kind, bias) in [
        ("layer", Norm::LayerNorm { epsilon }, Some(&bias)),
        (
            "rms",
            Norm::Rms {
                epsilon,
                plus_one: false,
            },
            None,
        ),
    ] {
        harness.measure(&format!("norm::norm {name}"), passes(2, hidden), || {
            norm::norm(&x, kind, &weight, bias)
        });
        let (_, saved) = norm::norm(&x, kind, &weight, bias)?;
        let (mut dweight, mut dbias) = (zeros(&[hidden])?, zeros(&[hidden])?);
        let mut dx = zeros(&[TOKENS, hidden])?;
        let name = format!("norm::backward {name}");
        harness.measure(&name, passes(4, hidden), || {
            let dbias = bias.map(|_| Dst::from(&mut dbias));
            let gradients = (Some(Dst::from(&mut dweight)), dbias);
            norm::backward(&dy, &saved, &weight, gradients, &mut dx)
        });
    }
    Ok(())
}

/// Queries, keys and values as views of what one product gives.
fn views(qkv: &Tensor) -> Result<[Tensor; 3]> {
    let part = |at: usize| qkv.narrow(2, at * HEAD, HEAD);
    Ok([part(0)?, part(1)?, part(2)?])
}

fn rotations(harness: &mut Harness, hidden: usize) -> Result<()> {
    let qkv = random(&[TOKENS, hidden / HEAD, 3 * HEAD])?;
    let [mut q, ..] = views(&qkv)?;
    let angles = random(&[TOKENS, 1, ROTARY / 2])?;
    let angles = Angles {
        cos: angles.cos()?,
        sin: angles.sin()?,
    };
    let work = passes(2, hidden / HEAD * ROTARY);
    harness.measure("rotary::rotate", work, || rotate(&mut q, &angles));
    harness.measure("rotary::rotate_back", work, || rotate_back(&mut q, &angles));
    Ok(())
}

fn attentions(harness: &mut Harness, hidden: usize) -> Result<()> {
    let (mut segments, mut seen, mut at) = (Vec::new(), 0, 0);
    for _ in 0..PAIRS {
        let prompt = at..at + LENGTHS[0];
        let mut prefix = at..at;
        for length in LENGTHS {
            seen += length * prefix.len() + length * (length + 1) / 2;
            segments.push(Segment::new(prefix, at..at + length));
            (prefix, at) = (prompt.clone(), at + length);
        }
    }
    let qkv = random(&[TOKENS, hidden / HEAD, 3 * HEAD])?;
    let [q, k, v] = views(&qkv)?;
    let packing = Packing::new(segments, q.device())?;
    for precision in [Precision::Full, Precision::Bf16] {
        let name = |what: &str| format!("attention::{what} {precision:?}").to_lowercase();
        let scores = Scores {
            precision,
            ..SCORES
        };
        // Two products of a query with every key that it sees forward, five backward.
        let products = |n: usize| Work::Flops(n * 2 * hidden * seen, precision);
        harness.measure(&name("attention"), products(2), || {
            attention::attention(&q, &k, &v, &packing, scores)
        });
        let (y, saved) = attention::attention(&q, &k, &v, &packing, scores)?;
        let mut dqkv = zeros(qkv.dims())?;
        harness.measure(&name("backward"), products(5), || {
            attention::backward(&y, (&q, &k, &v), &saved, &packing, scores, &mut dqkv)
        });
    }
    Ok(())
}

/// One token more for each of many sequences.
fn decoding(harness: &mut Harness, hidden: usize) -> Result<()> {
    const SEQUENCES: usize = 64;
    /// The most calls of one measurement.
    const CALLS: usize = 101;
    let (heads, length) = (hidden / HEAD, 2 * LENGTHS[0]);
    let row = |n: usize| random(&[n, heads, HEAD]);
    let shape = Shape {
        slots: SEQUENCES,
        capacity: length + CALLS,
        kv_heads: heads,
        head_dim: HEAD,
        scores: SCORES,
    };
    let (q, k, v) = (row(SEQUENCES)?, row(SEQUENCES)?, row(SEQUENCES)?);
    let mut cache = KvCache::new(shape, q.dtype(), Precision::Full, q.device())?;
    for slot in 0..SEQUENCES {
        cache.begin(
            slot,
            &Prefix::new(&row(length)?, &row(length)?, Precision::Full)?,
        )?;
    }
    let slots: Vec<usize> = (0..SEQUENCES).collect();
    let mut now = length;
    // Keys and values, at half the tokens that come.
    let work = Work::Bytes(2 * SEQUENCES * (length + CALLS / 2) * hidden * F32);
    harness.measure("kv_cache::extend", work, || {
        let places = Places::new(&slots, &[now; SEQUENCES], q.device())?;
        now += 1;
        cache.extend(&places, &q, &k, &v)
    });
    // Of few rows, every weight once.
    let wide = 4 * hidden;
    let weight = random(&[wide, hidden])?;
    let mut quantizer = Quantizer::new(Format::Q8_0, (wide, hidden));
    quantizer.push(&weight.flatten_all()?.to_vec1()?)?;
    let matrices = [
        packed::pack(&weight, Precision::Full)?,
        packed::pack(&weight, Precision::Bf16)?,
        packed::pack_quantized(&quantizer.finish(weight.device())?)?,
    ];
    for rows in [1, 16] {
        let x = random(&[rows, hidden])?;
        for matrix in &matrices {
            let name = format!("packed::linear {rows} {:?}", matrix.format()).to_lowercase();
            let work = Work::Bytes(matrix.bytes(wide) as usize);
            harness.measure(&name, work, || packed::linear(&x, matrix, 0..wide, None));
        }
    }
    Ok(())
}

fn products(harness: &mut Harness, hidden: usize) -> Result<()> {
    let wide = 4 * hidden;
    let (x, weight, bias) = (
        random(&[TOKENS, hidden])?,
        random(&[wide, hidden])?,
        random(&[wide])?,
    );
    let (dy, mut dweight) = (random(&[TOKENS, wide])?, zeros(&[wide, hidden])?);
    for precision in [Precision::Full, Precision::Bf16] {
        let work = Work::Flops(2 * TOKENS * hidden * wide, precision);
        let name = |kernel: &str| format!("linear::{kernel} {precision:?}").to_lowercase();
        harness.measure(&name("linear"), work, || {
            linear::linear(&x, &weight, Some(&bias), DType::F32, precision)
        });
        harness.measure(&name("backward_input"), work, || {
            linear::backward_input(&dy, &weight, DType::F32, precision)
        });
        harness.measure(&name("backward_weight"), work, || {
            linear::backward_weight(&dy, &x, &mut dweight, precision)
        });
    }
    let mut dbias = zeros(&[wide])?;
    harness.measure("linear::backward_bias", passes(1, wide), || {
        linear::backward_bias(&dy, &mut dbias)
    });
    Ok(())
}

fn activations(harness: &mut Harness, wide: usize) -> Result<()> {
    let (x, up) = (random(&[TOKENS, wide])?, random(&[TOKENS, wide])?);
    let mut dy = random(&[TOKENS, wide])?;
    let [gelu, silu] = [Activation::Gelu, Activation::Silu];
    harness.measure("activation::apply gelu", passes(2, wide), || {
        activation::apply(gelu, &x)
    });
    harness.measure("activation::apply_backward gelu", passes(4, wide), || {
        activation::apply_backward(gelu, &mut dy, &x)
    });
    harness.measure("activation::gated silu", passes(3, wide), || {
        activation::gated(silu, &x, &up)
    });
    harness.measure("activation::gated_backward silu", passes(6, wide), || {
        activation::gated_backward(silu, &mut dy, &x, &up)
    });
    Ok(())
}

fn sums(harness: &mut Harness, hidden: usize) -> Result<()> {
    let (x, mut y) = (random(&[TOKENS, hidden])?, zeros(&[TOKENS, hidden])?);
    let bias = random(&[hidden])?;
    harness.measure("elementwise::add_assign", passes(3, hidden), || {
        elementwise::add_assign(&mut y, &x)
    });
    harness.measure("elementwise::residual", passes(2, hidden), || {
        elementwise::residual(&x, &[&bias, &bias])
    });
    let heads = random(&[TOKENS, hidden / HEAD, HEAD])?;
    let [mut q, ..] = views(&zeros(&[TOKENS, hidden / HEAD, 3 * HEAD])?)?;
    harness.measure("elementwise::assign", passes(2, hidden), || {
        elementwise::assign(&mut q, &heads)
    });
    Ok(())
}
