//! What a stretch of work took: a line of `timings.jsonl`.
//!
//! *Why*: on a machine that others use too, CPU seconds can still be compared where seconds
//! cannot. They and the memory are what the system says of the whole process, on Linux alone;
//! elsewhere a line is without them.

use std::time::Instant;

use crate::kernels::device::gpu_peak;
use crate::kernels::memory::peak;
use crate::kernels::profile::cpu_seconds;
use crate::run_dir::Timing;

/// Measures from its start on.
pub struct Stopwatch {
    start: Instant,
    cpu_start: Option<f64>,
    /// Rows worked on.
    pub rows: usize,
    /// Tokens computed.
    pub tokens: usize,
}

impl Stopwatch {
    /// Starts now, with nothing worked on.
    pub fn start() -> Self {
        Self {
            start: Instant::now(),
            cpu_start: cpu_seconds(),
            rows: 0,
            tokens: 0,
        }
    }

    /// Leaves out what was done since the start of `pause`.
    pub fn leave_out(&mut self, pause: &Self) {
        self.start += pause.start.elapsed();
        let paused = cpu_seconds()
            .zip(pause.cpu_start)
            .map(|(now, then)| now - then);
        self.cpu_start = self
            .cpu_start
            .zip(paused)
            .map(|(start, paused)| start + paused);
    }

    /// What it took up to now.
    pub fn read(&self, step: u64) -> Timing {
        let seconds = self.start.elapsed().as_secs_f64();
        let cpu = cpu_seconds()
            .zip(self.cpu_start)
            .map(|(now, then)| now - then);
        Timing {
            step,
            seconds,
            cpu_seconds: cpu,
            rows_per_second: self.rows as f64 / seconds,
            tokens_per_second: self.tokens as f64 / seconds,
            peak_memory_bytes: peak(),
            peak_gpu_memory_bytes: gpu_peak(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_left_out() {
        let mut watch = Stopwatch::start();
        let start = watch.start;
        let pause = Stopwatch::start();
        std::thread::sleep(std::time::Duration::from_millis(20));
        watch.leave_out(&pause);
        assert!((watch.start - start).as_millis() >= 20);
        assert_eq!(watch.cpu_start.is_some(), pause.cpu_start.is_some());
    }
}
