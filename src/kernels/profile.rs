//! Where the time of a step goes: seconds by part, and the floating-point operations of products.
//!
//! Hides the clocks. A kernel says at its top which [`Part`] it is; what is not said is
//! [`Part::Other`], so that the parts add up to the time that went by.
//!
//! *Why*: the part that a slow step spends its time in is a fact about one machine, one model and
//! one batch, and only that run can tell it. While nothing is measured a kernel pays one load.

use std::cell::Cell;
use std::ops::AddAssign;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use super::device::synchronize;

/// What a step spends its time on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Products of matrices, those of the head included and those of attention not.
    Gemm,
    /// Statistics and gradients of logits.
    Head,
    /// Attention.
    Attention,
    /// Norms, activations, rotations, embeddings and sums.
    Elementwise,
    /// Gradient norms and updates.
    Optimizer,
    /// Making of batches.
    Data,
    /// Everything else: losses, memory, clearing.
    Other,
}

impl Part {
    /// All parts.
    pub const ALL: [Self; 7] = [
        Self::Gemm,
        Self::Head,
        Self::Attention,
        Self::Elementwise,
        Self::Optimizer,
        Self::Data,
        Self::Other,
    ];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gemm => "gemm",
            Self::Head => "head",
            Self::Attention => "attention",
            Self::Elementwise => "elementwise",
            Self::Optimizer => "optimizer",
            Self::Data => "data",
            Self::Other => "other",
        }
    }
}

/// What was measured.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Report {
    seconds: [f64; Part::ALL.len()],
    /// Seconds that all threads together were at work, where the system tells.
    pub cpu: Option<f64>,
    /// Floating-point operations of products: 2 m n k each.
    pub flops: u64,
}

impl Report {
    /// The seconds of one part.
    pub fn seconds(&self, part: Part) -> f64 {
        self.seconds[part as usize]
    }

    /// The seconds of all parts: the time that went by.
    pub fn wall(&self) -> f64 {
        self.seconds.iter().sum()
    }
}

impl AddAssign for Report {
    fn add_assign(&mut self, other: Self) {
        for (sum, seconds) in self.seconds.iter_mut().zip(other.seconds) {
            *sum += seconds;
        }
        self.cpu = match (self.cpu, other.cpu) {
            (Some(a), Some(b)) => Some(a + b),
            (a, b) => a.or(b),
        };
        self.flops += other.flops;
    }
}

static ON: AtomicBool = AtomicBool::new(false);
/// Of all threads, as small products are each made on one.
static FLOPS: AtomicU64 = AtomicU64::new(0);

/// The clock of the thread that measures.
#[derive(Clone, Copy)]
struct Clock {
    part: Part,
    since: Instant,
    /// Of whole spans so far.
    report: Report,
    /// The threads' time at the start.
    cpu: Option<f64>,
}

thread_local! {
    static CLOCK: Cell<Option<Clock>> = const { Cell::new(None) };
}

/// Measures what this thread does from here to [`take`]. Only one thread may measure at a time.
pub fn start() {
    FLOPS.store(0, Relaxed);
    ON.store(true, Relaxed);
    CLOCK.set(Some(Clock {
        part: Part::Other,
        since: Instant::now(),
        report: Report::default(),
        cpu: cpu_seconds(),
    }));
}

/// Ends measuring and returns what was measured since [`start`]; nothing, if that was not called.
pub fn take() -> Report {
    ON.store(false, Relaxed);
    enter(Part::Other);
    let Some(clock) = CLOCK.take() else {
        return Report::default();
    };
    Report {
        cpu: clock.cpu.zip(cpu_seconds()).map(|(from, to)| to - from),
        flops: FLOPS.swap(0, Relaxed),
        ..clock.report
    }
}

/// Makes the time until the value is dropped that of `part`, but for what is inside of it another's.
#[must_use]
pub fn part(part: Part) -> Span {
    Span(match ON.load(Relaxed) {
        true => enter(part),
        false => None,
    })
}

/// Counts the operations of a product of (m, k) and (k, n).
pub(super) fn product(m: usize, n: usize, k: usize) {
    if ON.load(Relaxed) {
        FLOPS.fetch_add(2 * (m * n * k) as u64, Relaxed);
    }
}

/// A run of time that belongs to a part.
#[derive(Debug)]
pub struct Span(Option<Part>);

impl Drop for Span {
    fn drop(&mut self) {
        if let Some(outer) = self.0 {
            enter(outer);
        }
    }
}

/// Gives the time so far to the part it was in. Returns that part, if this thread measures.
fn enter(part: Part) -> Option<Part> {
    let mut clock = CLOCK.get()?;
    // What a GPU was given belongs to the part that gave it; a device that fails says so later.
    let _ = synchronize();
    let (now, outer) = (Instant::now(), clock.part);
    clock.report.seconds[outer as usize] += (now - clock.since).as_secs_f64();
    (clock.part, clock.since) = (part, now);
    CLOCK.set(Some(clock));
    Some(outer)
}

/// The threads that kernels may use.
pub fn threads() -> usize {
    rayon::current_num_threads()
}

/// The seconds that the threads of this process have been at work, where the system tells.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn cpu_seconds() -> Option<f64> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the call writes to `time` and to nothing else.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    (status == 0).then_some(time.tv_sec as f64 + 1e-9 * time.tv_nsec as f64)
}

/// The seconds that the threads of this process have been at work: this system does not tell.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn cpu_seconds() -> Option<f64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const NAP: Duration = Duration::from_millis(20);

    /// Another thread's parts are its own.
    #[test]
    fn time_belongs_to_the_innermost_part() {
        start();
        let before = Instant::now();
        {
            let _outer = part(Part::Head);
            std::thread::sleep(NAP);
            {
                let _inner = part(Part::Gemm);
                std::thread::sleep(2 * NAP);
            }
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let _elsewhere = part(Part::Attention);
                    std::thread::sleep(NAP);
                });
            });
            product(2, 3, 5);
        }
        let least = before.elapsed().as_secs_f64();
        let report = take();
        let nap = NAP.as_secs_f64();
        assert!(report.seconds(Part::Head) >= 2.0 * nap);
        assert!(report.seconds(Part::Gemm) >= 2.0 * nap);
        assert_eq!(report.seconds(Part::Attention), 0.0);
        let sum: f64 = Part::ALL.iter().map(|&part| report.seconds(part)).sum();
        assert!(sum >= least && sum == report.wall());
        // Tests beside this one make products, too.
        assert!(report.flops >= 60);

        let _nothing = part(Part::Gemm);
        assert_eq!(take(), Report::default());
        let mut twice = report;
        twice += report;
        assert_eq!(twice.wall(), 2.0 * report.wall());
        assert_eq!(twice.flops, 2 * report.flops);
    }
}
