use super::*;
use crate::kernels::attention::{Packing, attention, backward};
use crate::kernels::gpu::twin::{compare, scope};
use crate::kernels::testing::variable;

/// Heads, heads of keys, their size.
type Shape = (usize, usize, usize);

/// Queries, keys and values as parts of one tensor, one after the other or, with as many heads of
/// keys, head by head.
fn parts(whole: &Tensor, (heads, kv_heads, dim): Shape) -> [Tensor; 3] {
    if heads == kv_heads {
        let whole = whole.reshape(((), heads, 3, dim)).unwrap();
        return [0, 1, 2].map(|i| whole.narrow(2, i, 1).unwrap().squeeze(2).unwrap());
    }
    let whole = whole.reshape(((), heads + 2 * kv_heads, dim)).unwrap();
    let part = |start, count| whole.narrow(1, start, count).unwrap();
    [
        part(0, heads),
        part(heads, kv_heads),
        part(heads + kv_heads, kv_heads),
    ]
}

/// Output and gradient of all three operands.
fn run(
    segments: &[Segment],
    (whole, dy): (&Tensor, &Tensor),
    shape: Shape,
    window: Option<usize>,
) -> Vec<Tensor> {
    let [q, k, v] = parts(whole, shape);
    let packing = Packing::new(segments.into(), whole.device()).unwrap();
    let (y, saved) = attention(&q, &k, &v, &packing, window).unwrap();
    let dqkv = whole.zeros_like().unwrap();
    backward(dy, (&q, &k, &v), &saved, &packing, window, &dqkv).unwrap();
    vec![y, dqkv]
}

fn inputs(segments: &[Segment], (heads, kv_heads, dim): Shape, dtype: DType) -> [Tensor; 2] {
    let tokens = segments.last().map_or(0, |s| s.own.end);
    let queries: usize = segments.iter().map(|s| s.queries.len()).sum();
    let whole = variable(1, &[tokens, (heads + 2 * kv_heads) * dim]);
    let dy = variable(2, &[queries, heads, dim]);
    [whole, dy].map(|x| x.to_dtype(dtype).unwrap())
}

/// One group after the other, each of a prompt and its responses.
fn groups(lengths: &[&[usize]]) -> Vec<Segment> {
    let (mut segments, mut at) = (Vec::new(), 0);
    for group in lengths {
        let mut prefix = at..at;
        for (i, &length) in group.iter().enumerate() {
            segments.push(Segment::new(prefix.clone(), at..at + length));
            if i == 0 {
                prefix = at..at + length;
            }
            at += length;
        }
    }
    segments
}

fn short() -> Vec<Segment> {
    groups(&[&[3, 2, 1], &[2], &[1, 3], &[5, 33, 17]])
}

/// Longer than tiles, with outputs that nobody wants.
fn long() -> Vec<Segment> {
    let mut segments = groups(&[&[80, 50, 1], &[21, 9]]);
    segments[0].queries = 79..80;
    segments[1].queries = 90..129;
    segments[3].queries = 140..140;
    segments
}

fn check(segments: &[Segment], shape: Shape, window: Option<usize>, dtype: DType, tolerance: f64) {
    let what = format!("{shape:?}, window {window:?}, {dtype:?}");
    compare(&what, &inputs(segments, shape, dtype), tolerance, |x| {
        run(segments, (&x[0], &x[1]), shape, window)
    });
}

#[test]
fn attention_is_that_of_the_processor() {
    for dtype in [DType::F32, DType::BF16] {
        let tolerance = if dtype == DType::F32 { 3e-6 } else { 1e-2 };
        for (shape, window) in [
            ((2, 2, 5), None),
            ((4, 1, 5), Some(1)),
            ((4, 2, 16), Some(2)),
            ((2, 1, 16), Some(20)),
            ((8, 1, 8), None),
        ] {
            check(&short(), shape, window, dtype, tolerance);
        }
        for (shape, window) in [
            ((1, 1, 16), None),
            ((2, 1, 16), Some(70)),
            ((2, 1, 16), Some(9)),
        ] {
            check(&long(), shape, window, dtype, tolerance);
        }
    }
}
