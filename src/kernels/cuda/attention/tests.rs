use super::*;
use crate::kernels::attention::{Packing, Scores, attention, backward};
use crate::kernels::cuda::ptx_tests::covering;
use crate::kernels::device::zeros;
use crate::kernels::emulator::{compare, device, scope_on};
use crate::kernels::testing::{here, on, scores, variable};

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
    how: Scores,
) -> Vec<Tensor> {
    let [q, k, v] = parts(whole, shape);
    let packing = Packing::new(segments.into(), whole.device()).unwrap();
    let (y, saved) = attention(&q, &k, &v, &packing, how).unwrap();
    let dqkv = zeros(whole.shape(), whole.dtype(), whole.device()).unwrap();
    backward(dy, (&q, &k, &v), &saved, &packing, how, Dst::shared(&dqkv)).unwrap();
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
    check_scores(segments, shape, scores(shape.2, window), dtype, tolerance);
}

fn check_scores(segments: &[Segment], shape: Shape, how: Scores, dtype: DType, tolerance: f64) {
    let what = format!("{shape:?}, {how:?}, {dtype:?}");
    compare(&what, &inputs(segments, shape, dtype), tolerance, |x| {
        run(segments, (&x[0], &x[1]), shape, how)
    });
}

/// With a cap at which many scores of the tests are bent.
fn capped(dim: usize, window: Option<usize>) -> Scores {
    Scores {
        softcap: Some(0.7),
        ..scores(dim, window)
    }
}

#[test]
fn attention_is_that_of_the_processor() {
    for (dtype, tolerance) in [(DType::F32, 3e-6), (DType::BF16, 1e-2)] {
        for (shape, window) in [
            ((2, 2, 5), None),
            ((4, 1, 5), Some(1)),
            ((4, 2, 16), Some(2)),
            ((2, 1, 16), Some(20)),
        ] {
            check(&short(), shape, window, dtype, tolerance);
        }
        for (shape, window) in [((1, 1, 16), None), ((2, 1, 16), Some(70))] {
            check(&long(), shape, window, dtype, tolerance);
        }
    }
    // Where a warp's rows begin or end a key before or behind a tile of keys, or a window.
    let edges = groups(&[&[1], &[200], &[14, 60], &[64, 64]]);
    for window in [None, Some(64), Some(65), Some(79)] {
        check(&edges, (1, 1, 16), window, DType::F32, 3e-6);
    }
    let mut unread = groups(&[&[5, 3], &[70]]);
    for segment in &mut unread {
        segment.queries = segment.own.start..segment.own.start;
    }
    check(&unread, (2, 1, 16), None, DType::BF16, 0.0);
}

#[test]
fn scores_below_a_soft_cap_are_those_of_the_processor() {
    for (dtype, tolerance) in [(DType::F32, 3e-6), (DType::BF16, 1e-2)] {
        for (shape, window) in [((4, 1, 5), Some(2)), ((2, 2, 80), None)] {
            let how = capped(shape.2, window);
            check_scores(&short(), shape, how, dtype, tolerance);
        }
        check_scores(&long(), (2, 1, 5), capped(5, Some(70)), dtype, tolerance);
        let wide = groups(&[&[5, 33, 17]]);
        check_scores(&wide, (2, 1, 128), capped(128, None), dtype, tolerance);
        check_scores(&wide, (1, 1, 256), capped(256, Some(30)), dtype, tolerance);
    }
}

#[test]
fn heads_have_any_size() {
    let segments = groups(&[&[5, 33, 17]]);
    check(&segments, (1, 1, 80), Some(30), DType::F32, 3e-6);
    for shape in [(8, 1, 8), (1, 1, 64), (2, 2, 80), (2, 1, 128), (1, 1, 130)] {
        check(&segments, shape, None, DType::BF16, 1e-2);
    }
}

#[test]
fn its_ptx_computes_the_same() {
    let segments = groups(&[&[5, 33, 17]]);
    let mut unread = groups(&[&[5, 3], &[70]]);
    for segment in &mut unread {
        segment.queries = segment.own.start..segment.own.start;
    }
    covering(modules(), || {
        for (shape, window) in [
            ((2, 2, 5), Some(20)),
            ((4, 2, 64), None),
            ((1, 1, 80), Some(30)),
            ((2, 1, 128), None),
            ((1, 1, 256), None),
        ] {
            check(&segments, shape, window, DType::BF16, 1e-2);
        }
        check(&long(), (2, 1, 80), Some(70), DType::BF16, 1e-2);
        check(&unread, (2, 1, 80), None, DType::BF16, 0.0);
        check(&short(), (4, 2, 5), Some(2), DType::F32, 3e-6);
        check(&long(), (1, 1, 64), None, DType::F32, 3e-6);
        for shape in [(4, 2, 5), (2, 1, 128), (1, 1, 256)] {
            let how = capped(shape.2, Some(30));
            check_scores(&segments, shape, how, DType::BF16, 1e-2);
        }
        check_scores(&short(), (2, 1, 80), capped(80, None), DType::F32, 3e-6);
    });
}

/// Also where the other rows are in the same tile of keys, or other queries not wanted.
#[test]
fn a_row_does_not_depend_on_what_else_is_there() {
    let shape = (2, 1, 16);
    let alone = groups(&[&[20, 30, 70]]);
    let packed = groups(&[&[3, 40], &[20, 30, 70], &[9]]);
    let mut some = packed.clone();
    some[2].queries = some[2].own.end - 1..some[2].own.end;
    let Some(device) = device() else { return };
    for dtype in [DType::F32, DType::BF16] {
        let [whole, dy] = inputs(&packed, shape, dtype).map(|x| on(&device, &x));
        let rows = |x: &Tensor| x.narrow(0, 43, 120).unwrap();
        let [one, all] = scope_on(&device, || {
            let one = run(
                &alone,
                (&rows(&whole), &rows(&dy)),
                shape,
                scores(shape.2, None),
            );
            let all = run(&packed, (&whole, &dy), shape, scores(shape.2, None));
            [one, all]
        });
        for (one, all) in one.iter().zip(&all) {
            assert_eq!(values(one), values(&rows(all)), "{dtype:?}");
        }
        let less = scope_on(&device, || {
            let [q, k, v] = parts(&whole, shape);
            let packing = Packing::new(some.clone(), whole.device()).unwrap();
            attention(&q, &k, &v, &packing, scores(q.dims()[2], None))
                .unwrap()
                .0
        });
        let after = |x: &Tensor, from: usize| x.narrow(0, from, 100).unwrap();
        assert_eq!(values(&after(&less, 44)), values(&after(&all[0], 63)));
    }
}

fn values(x: &Tensor) -> Vec<f32> {
    let x = here(x).to_dtype(DType::F32).unwrap();
    x.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn every_query_is_in_one_tile_and_a_run_visits_what_sees_it() {
    let mut segments = groups(&[&[130, 50, 1, 100], &[21, 9], &[3]]);
    segments[0].queries = 100..130;
    segments[3].queries = 190..190;
    // A prefix that is not the whole prompt.
    segments.push(Segment::new(0..0, 314..400));
    segments.push(Segment::new(320..350, 400..480));
    let checked = Segments::new(segments.clone()).unwrap();
    let Tiles {
        queries,
        runs,
        visits,
    } = Tiles::new(&checked, &Device::Cpu).unwrap();
    let (tiles, runs): (Vec<Vec<u32>>, Vec<Vec<u32>>) =
        (queries.to_vec2().unwrap(), runs.to_vec2().unwrap());
    let visits: Vec<u32> = visits.to_vec1().unwrap();
    let mut row = 0;
    let mut seen = std::collections::BTreeSet::new();
    for segment in &segments {
        for query in segment.queries.clone() {
            let of: Vec<usize> = (0..tiles.len())
                .filter(|&at| (tiles[at][2]..tiles[at][2] + tiles[at][1]).contains(&row))
                .collect();
            let [at] = of[..] else {
                panic!("row {row} is in {of:?}")
            };
            let [first, _, start, prefix, before, own] = tiles[at][..] else {
                panic!("{tiles:?}")
            };
            let token = |n: usize| n as u32;
            assert_eq!(first + row - start, token(query));
            let (p, o) = (&segment.prefix, &segment.own);
            assert_eq!(
                [prefix, before, own],
                [p.start, p.len(), o.start].map(token)
            );
            let keys = p.clone().chain(o.start..query + 1);
            seen.extend(keys.map(|key| (token(key), at as u32)));
            row += 1;
        }
    }
    let mut covered = vec![0; 480];
    let mut visited = std::collections::BTreeSet::new();
    for run in &runs {
        for key in run[0]..run[0] + run[1] {
            covered[key as usize] += 1;
            let of = &visits[run[2] as usize..(run[2] + run[3]) as usize];
            visited.extend(of.iter().map(|&at| (key, at)));
            assert!(of.is_sorted_by_key(|&at| tiles[at as usize][2]));
        }
    }
    assert!(covered.iter().all(|&n| n == 1));
    assert!(seen.is_subset(&visited));
}

#[test]
fn what_no_kernel_serves_is_refused() {
    let segments = groups(&[&[4]]);
    let Some(device) = device() else { return };
    let refused = |dim: usize, dtype: DType| {
        let shape = (1, 1, dim);
        let [whole, _] = inputs(&segments, shape, dtype).map(|x| on(&device, &x));
        let [q, k, v] = parts(&whole, shape);
        let packing = Packing::new(segments.clone(), whole.device()).unwrap();
        attention(&q, &k, &v, &packing, scores(q.dims()[2], None))
            .unwrap_err()
            .to_string()
    };
    let (wide, double) = scope_on(&device, || {
        (refused(257, DType::F32), refused(8, DType::F64))
    });
    assert!(wide.contains("heads of 257"), "{wide}");
    assert!(double.contains("F64"), "{double}");
}
