use std::rc::Rc;

use candle_core::{DType, Device, Tensor};

use super::*;
use crate::kernels::attention::{Packing, attention, backward};
use crate::kernels::cuda::ptx_tests::toolkit::Toolkit;
use crate::kernels::emulator::scope_on;
use crate::kernels::mix::mix;
use crate::kernels::norm::norm;
use crate::kernels::operands::norm::Norm;
use crate::kernels::tensor::Dst;
use crate::kernels::testing::{scores, variable};
use crate::segment::Segment;

const DIM: usize = 64;

fn random(seed: u64, shape: &[usize], dtype: DType) -> Tensor {
    variable(seed, shape).to_dtype(dtype).unwrap()
}

/// Output and gradients of packed attention, over several tiles of queries and of keys.
fn attend() -> Result<Vec<Vec<f32>>> {
    let segments = vec![Segment::new(0..0, 0..140), Segment::new(0..140, 140..150)];
    let whole = random(1, &[150, 3 * DIM], DType::BF16);
    let dy = random(2, &[150, 1, DIM], DType::BF16);
    let parts = whole.reshape((150, 1, 3, DIM))?;
    let part = |i| parts.narrow(2, i, 1)?.squeeze(2);
    let (q, k, v) = (part(0)?, part(1)?, part(2)?);
    let packing = Packing::new(segments, &Device::Cpu)?;
    let scores = scores(DIM, None);
    let (y, saved) = attention(&q, &k, &v, &packing, scores)?;
    let dqkv = whole.zeros_like()?;
    backward(
        &dy,
        (&q, &k, &v),
        &saved,
        &packing,
        scores,
        Dst::shared(&dqkv),
    )?;
    let numbers = |x: &Tensor| x.to_dtype(DType::F32)?.flatten_all()?.to_vec1();
    Ok(vec![numbers(&y)?, numbers(&dqkv)?])
}

fn normalize() -> Result<()> {
    let [x, weight] = [&[5, 33][..], &[33]].map(|shape| random(1, shape, DType::F32));
    let kind = Norm::Rms {
        epsilon: 1e-5,
        plus_one: false,
    };
    norm(&x, kind, &weight, None).map(|_| ())
}

/// More than a block's elements.
fn mix_numbers() -> Result<()> {
    let [own, other] = [1, 2].map(|seed| random(seed, &[2_064], DType::BF16));
    mix(Dst::shared(&own), &other, 0.3)
}

/// What is said of kernels whose text and PTX are changed; `None` where there is no CUDA toolkit.
fn changed<R>(
    text: impl Fn(&str) -> String + 'static,
    ptx: impl Fn(&str) -> String + 'static,
    f: impl FnOnce() -> Result<R>,
) -> Option<Result<R>> {
    let run = Run {
        text: Some(Rc::new(text)),
        ptx: Some(Rc::new(ptx)),
        ..Run::default()
    };
    scope(run, || scope_on(&Device::Cpu, f)).map(|(_, made)| made)
}

/// Asserts that kernels are at fault as `said` where `from` in their text is `to`.
fn assert_fault<R>(
    from: &'static str,
    to: &'static str,
    said: &str,
    f: impl FnOnce() -> Result<R>,
) {
    let change = move |text: &str| {
        assert!(text.contains(from), "no {from} in the text");
        text.replace(from, to)
    };
    if let Some(made) = changed(change, str::to_owned, f) {
        let found = made.err().map(|error| error.to_string());
        let seen = found.as_ref().is_some_and(|found| found.contains(said));
        assert!(seen, "{to} in place of {from}: {found:?}");
    }
}

#[test]
fn a_copy_that_nobody_waits_for_is_seen() {
    let wait = r#"asm volatile("cp.async.wait_all;" ::: "memory");"#;
    assert_fault(wait, "", "an asynchronous copy still writes", attend);
}

#[test]
fn rows_that_are_misaligned_are_seen() {
    let (from, to) = ("STRIDE = WIDTH + PACKET", "STRIDE = WIDTH + PACKET / 2");
    assert_fault(from, to, "misaligned", attend);
}

#[test]
fn shared_memory_that_nobody_has_written_is_seen() {
    let (from, to) = ("stage<KEYS>(vs, v, v_token, tile, base, end);", "");
    assert_fault(from, to, "nobody has written", attend);
}

#[test]
fn lanes_that_miss_a_product_are_seen() {
    let (from, to) = ("if (busy) scores(s,", "if (busy && lane % 2) scores(s,");
    assert_fault(from, to, "come together", attend);
}

#[test]
fn lanes_that_miss_a_shuffle_are_seen() {
    let (from, to) = (
        "INLINE T warp_sum(T x) {",
        "INLINE T warp_sum(T x) {\n    if (threadIdx.x % 32 < 16)",
    );
    assert_fault(from, to, "lanes that never come", normalize);
}

#[test]
fn an_index_out_of_bounds_is_seen() {
    let (from, to) = ("store(own + i, x, n - i)", "store(own + i, x, n)");
    assert_fault(from, to, "out of bounds", || {
        let [own, other] = [1, 2].map(|seed| random(seed, &[77], DType::BF16));
        mix(Dst::shared(&own), &other, 0.3)
    });
}

#[test]
fn blocks_that_write_one_place_are_seen() {
    let (from, to) = (
        "(i64)blockIdx.x * blockDim.x + threadIdx.x",
        "(i64)threadIdx.x",
    );
    assert_fault(from, to, "a race", mix_numbers);
}

#[test]
fn swapped_halves_give_another_result() {
    let swap = |ptx: &str| {
        let line = |line: &str| match line.trim().strip_prefix("cvt.rn.bf16x2.f32 ") {
            Some(operands) => {
                let operands: Vec<&str> = operands.trim_end_matches(';').split(", ").collect();
                let [to, high, low] = operands[..] else {
                    panic!("{line}")
                };
                format!("cvt.rn.bf16x2.f32 {to}, {low}, {high};\n")
            }
            None => format!("{line}\n"),
        };
        ptx.lines().map(line).collect()
    };
    let Some(right) = changed(str::to_owned, str::to_owned, attend) else {
        return;
    };
    let wrong = changed(str::to_owned, swap, attend).unwrap().unwrap();
    for (right, wrong) in right.unwrap().iter().zip(&wrong) {
        let off = right.iter().zip(wrong).map(|(a, b)| (a - b).abs());
        assert!(off.fold(0.0, f32::max) > 0.1);
    }
}

/// But for the last two of `attention_keys`: of one share, a warp keeps to its own rows there.
#[test]
fn every_barrier_of_attention_is_missed_where_it_is_not() {
    let modules = super::super::super::attention::modules().unwrap();
    let key = format!("attention A=bf16 HEAD_DIM={DIM} ");
    let (module, _) = modules
        .iter()
        .find(|(module, _)| module.key().starts_with(&key))
        .unwrap();
    if Toolkit::find().is_none() || std::env::var_os("EXPO_TEST_GPU").is_some() {
        return;
    }
    const BARRIER: &str = "bar.sync";
    let ptx = compiled(&module.text()).unwrap();
    let mut unseen = Vec::new();
    for (at, _) in ptx.match_indices(BARRIER) {
        let drop = move |ptx: &str| {
            let (before, behind) = ptx.split_at(at);
            format!("{before}{}", behind.split_once(';').unwrap().1)
        };
        if changed(str::to_owned, drop, attend).unwrap().is_ok() {
            let kernel = ptx[..at].rsplit(".entry ").next().unwrap();
            unseen.push(kernel.split('(').next().unwrap().to_owned());
        }
    }
    assert!(ptx.matches(BARRIER).count() >= 8);
    assert!(
        unseen.len() <= 2 && unseen.iter().all(|kernel| kernel == "attention_keys"),
        "{unseen:?}"
    );
}

/// A kernel of one warp with 64 bytes of shared memory and a tensor of 64 bytes.
fn run_alone(body: &str) -> std::result::Result<Vec<u8>, String> {
    let text = format!(".visible .entry f(\n.param .u64 f_param_0\n)\n{{\n{body}\nret;\n\n}}\n");
    let kernels = parse::parse(&text)?;
    let mut global = Global(vec![Memory::of(vec![0; 64])]);
    let size = ([1, 1, 1], 32, 64);
    block::run(
        &kernels["f"],
        &[Global::address(0)],
        size,
        &mut global,
        Order::Forward,
    )?;
    Ok(global.0.remove(0).bytes)
}

#[test]
fn an_instruction_that_is_not_known_is_named() {
    let said = run_alone("ld.param.u64 %rd1, [f_param_0];\natom.global.add.u32 %r1, [%rd1], 1;");
    assert!(said.unwrap_err().contains("atom.global.add.u32"));
}

#[test]
fn lanes_go_their_ways_and_meet_again() {
    let body = "
        ld.param.u64 %rd1, [f_param_0];
        mov.u32 %r1, %tid.x;
        mul.wide.u32 %rd2, %r1, 2;
        add.s64 %rd3, %rd1, %rd2;
        setp.lt.u32 %p1, %r1, 10;
        mov.u32 %r2, 0;
        @%p1 bra $LESS;
        $LOOP: add.s32 %r2, %r2, 3;
        setp.lt.u32 %p2, %r2, %r1;
        @%p2 bra $LOOP;
        bra.uni $END;
        $LESS: mov.u32 %r2, 7;
        $END: shfl.sync.bfly.b32 %r3|%p3, %r2, 1, 31, -1;
        @!%p1 add.s32 %r3, %r3, 100;
        st.global.u16 [%rd3], %r3;";
    let bytes = run_alone(body).unwrap();
    let found = bytes.chunks_exact(2).map(|x| u32::from(x[0]));
    let made = |lane: u32| {
        if lane < 10 {
            7
        } else {
            lane.next_multiple_of(3)
        }
    };
    let want = (0..32).map(|lane| made(lane ^ 1) + if lane < 10 { 0 } else { 100 });
    assert_eq!(found.collect::<Vec<_>>(), want.collect::<Vec<_>>());
}

#[test]
fn faults_of_a_warp_are_told() {
    let address =
        "ld.param.u64 %rd1, [f_param_0];\nmov.u32 %r1, %tid.x;\nsetp.lt.u32 %p1, %r1, 9;\n";
    for (body, said) in [
        ("ld.global.u32 %r2, [%rd1+2];", "misaligned"),
        ("ld.global.u32 %r2, [%rd1+64];", "out of bounds"),
        ("ld.global.u32 %r2, [%rd9];", "out of bounds"),
        ("ld.shared.u32 %r2, [shared];", "nobody has written"),
        ("st.shared.u32 [shared], %r1;", "a race"),
        (
            "st.shared.v4.u32 [shared+56], {%r1, %r1, %r1, %r1};",
            "misaligned",
        ),
        ("st.shared.u32 [shared+64], %r1;", "out of bounds"),
        ("@%p1 bar.sync 0;", "come together"),
        ("@%p1 bar.warp.sync -1;", "never come"),
        ("@%p1 ret;\nbar.warp.sync -1;", "has ended"),
        (
            "@%p1 cp.async.cg.shared.global [shared], [%rd1], 16;",
            "asynchronous copy",
        ),
        ("$L: bra.uni $L;", "no end"),
    ] {
        let found = run_alone(&format!("{address}{body}")).unwrap_err();
        assert!(found.contains(said), "{body}: {found}");
    }
}
