use super::*;
use crate::kernels::precision::Precision;
use crate::kernels::testing::*;
use crate::segment::Segment;
use candle_core::{DType, Device, Var};

/// Over all tokens at once, with a mask.
fn reference([q, k, v]: [&Tensor; 3], segments: &[Segment], how: Scores) -> Tensor {
    let (tokens, heads, _) = q.dims3().unwrap();
    let group = heads / k.dim(1).unwrap();
    let mut mask = vec![f64::NEG_INFINITY; tokens * tokens];
    for segment in segments {
        for i in segment.own.clone() {
            let keys = segment.prefix.clone().chain(segment.own.start..i + 1);
            for j in keys.rev().take(how.window.unwrap_or(tokens)) {
                mask[i * tokens + j] = 0.0;
            }
        }
    }
    let mask = Tensor::from_vec(mask, (tokens, tokens), &Device::Cpu).unwrap();
    let share: Vec<u32> = (0..heads as u32).map(|h| h / group as u32).collect();
    let share = Tensor::new(share, &Device::Cpu).unwrap();
    let repeat = |x: &Tensor| x.contiguous().unwrap().index_select(&share, 1).unwrap();
    let by_head = |x: &Tensor| x.transpose(0, 1).unwrap().contiguous().unwrap();
    let (q, k, v) = (by_head(q), by_head(&repeat(k)), by_head(&repeat(v)));
    let mut scores = (q.matmul(&k.t().unwrap()).unwrap() * how.scale).unwrap();
    if let Some(cap) = how.softcap {
        scores = ((scores / cap).unwrap().tanh().unwrap() * cap).unwrap();
    }
    let p = candle_nn::ops::softmax(&scores.broadcast_add(&mask).unwrap(), 2).unwrap();
    let y = p.matmul(&v).unwrap().transpose(0, 1).unwrap();
    let rows: Vec<u32> = segments
        .iter()
        .flat_map(|s| s.queries.clone())
        .map(|t| t as u32)
        .collect();
    let rows = Tensor::new(rows, &Device::Cpu).unwrap();
    y.contiguous().unwrap().index_select(&rows, 0).unwrap()
}

fn pack(segments: &[Segment]) -> Packing {
    Packing::new(segments.into(), &Device::Cpu).unwrap()
}

fn short() -> Vec<Segment> {
    let segments = [
        (0..0, 0..3),
        (0..3, 3..5),
        (0..3, 5..6),
        (6..6, 6..8),
        (8..8, 8..9),
        (8..9, 9..12),
    ];
    segments
        .map(|(prefix, own)| Segment::new(prefix, own))
        .into()
}

/// Longer than a block of queries, with outputs that nobody wants.
fn long() -> Vec<Segment> {
    let mut segments: Vec<Segment> = [
        (0..0, 0..150),
        (0..150, 150..250),
        (0..150, 250..251),
        (251..251, 251..300),
        (251..300, 300..330),
    ]
    .map(|(prefix, own)| Segment::new(prefix, own))
    .into();
    segments[0].queries = 149..150;
    segments[1].queries = 160..249;
    segments[3].queries = 260..260;
    segments
}

/// Queries, keys and values as parts of one tensor, as a projection lays them out.
fn parts(whole: &Tensor, heads: usize, kv_heads: usize) -> [Tensor; 3] {
    let part = |start, count| whole.narrow(1, start, count).unwrap();
    [
        part(0, heads),
        part(heads, kv_heads),
        part(heads + kv_heads, kv_heads),
    ]
}

fn compare(segments: &[Segment], heads: usize, kv_heads: usize, dim: usize, how: Scores) {
    let what = format!("{heads} heads, {kv_heads} of keys, {how:?}");
    let tokens = segments.last().map_or(0, |s| s.own.end);
    let queries: usize = segments.iter().map(|s| s.queries.len()).sum();
    let whole: Var = variable(1, &[tokens, heads + 2 * kv_heads, dim]);
    let seed = variable(2, &[queries, heads, dim]);
    let [q, k, v] = parts(&whole, heads, kv_heads);
    let want = reference([&q, &k, &v], segments, how);
    let gradient = &autograd(&want, &seed, &[&whole])[0];
    for (dtype, precision, tolerance) in [
        (DType::F64, Precision::Full, 1e-10),
        (DType::F64, Precision::Bf16, 1e-10),
        (DType::F32, Precision::Full, 3e-6),
        (DType::F32, Precision::Bf16, 3e-2),
    ] {
        let how = Scores { precision, ..how };
        let whole = whole.to_dtype(dtype).unwrap();
        let seed = seed.to_dtype(dtype).unwrap();
        let [q, k, v] = parts(&whole, heads, kv_heads);
        let packing = pack(segments);
        let (y, saved) = attention(&q, &k, &v, &packing, how).unwrap();
        assert_near(&y, &want, tolerance, &format!("{what} forward"));
        let dwhole = whole.zeros_like().unwrap();
        backward(
            &seed,
            (&q, &k, &v),
            &saved,
            &packing,
            how,
            Dst::shared(&dwhole),
        )
        .unwrap();
        assert_near(&dwhole, gradient, tolerance, &format!("{what} backward"));
    }
}

#[test]
fn packed_segments_equal_masked_attention() {
    for (heads, kv_heads, window) in [
        (4, 4, None),
        (4, 2, None),
        (6, 1, None),
        (4, 4, Some(1)),
        (4, 2, Some(2)),
        (6, 1, Some(3)),
        (4, 2, Some(4)),
        (4, 2, Some(12)),
    ] {
        compare(&short(), heads, kv_heads, 5, scores(5, window));
    }
    for (heads, kv_heads, window) in [(2, 2, None), (4, 2, Some(70)), (2, 1, Some(20))] {
        compare(&long(), heads, kv_heads, 16, scores(16, window));
    }
}

#[test]
fn scores_below_a_soft_cap_equal_masked_attention() {
    for (cap, window) in [(0.3, None), (2.0, Some(3)), (50.0, None)] {
        let how = |dim| Scores {
            softcap: Some(cap),
            ..scores(dim, window)
        };
        compare(&short(), 4, 2, 5, how(5));
        compare(&long(), 2, 1, 16, how(16));
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    let packing = pack(&long());
    let whole = variable(1, &[330, 8, 16]).to_dtype(DType::F32).unwrap();
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.unwrap().install(|| {
            let [q, k, v] = parts(&whole, 4, 2);
            let (y, saved) = attention(&q, &k, &v, &packing, scores(q.dims()[2], None)).unwrap();
            let dwhole = whole.zeros_like().unwrap();
            backward(
                &y,
                (&q, &k, &v),
                &saved,
                &packing,
                scores(q.dims()[2], None),
                Dst::shared(&dwhole),
            )
            .unwrap();
            let values = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            (values(&y), values(&dwhole))
        })
    };
    let one = run(1);
    assert!(one == run(2) && one == run(5));
}

#[test]
fn segments_that_do_not_cover_the_tokens_are_refused() {
    for (prefix, own, queries) in [(0..0, 1..4, 1..4), (0..0, 0..4, 3..5), (1..2, 0..4, 0..4)] {
        let segment = Segment {
            prefix,
            own,
            queries,
        };
        assert!(Packing::new(vec![segment], &Device::Cpu).is_err());
    }
    let [q, k, v] = parts(&variable(1, &[4, 3, 2]), 1, 1);
    let three = pack(&[Segment::new(0..0, 0..3)]);
    assert!(attention(&q, &k, &v, &three, scores(2, None)).is_err());
}

#[test]
fn operands_that_share_a_place_have_no_gradient() {
    let packing = pack(&[Segment::new(0..0, 0..4)]);
    let [q, k, v] = parts(&variable(1, &[4, 3, 2]), 1, 1);
    let (y, saved) = attention(&q, &k, &v, &packing, scores(q.dims()[2], None)).unwrap();
    let zeros = |width| Tensor::zeros((4, width, 2), DType::F64, &Device::Cpu).unwrap();
    let apart = [&q, &k, &v].map(|x| x.contiguous().unwrap());
    for (operands, into) in [
        ((&apart[0], &apart[1], &apart[2]), zeros(1)),
        ((&q, &k, &k), zeros(3)),
        ((&q, &k, &v), zeros(2)),
    ] {
        assert!(
            backward(
                &y,
                operands,
                &saved,
                &packing,
                scores(q.dims()[2], None),
                Dst::shared(&into)
            )
            .is_err()
        );
    }
}
