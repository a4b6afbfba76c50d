//! What `expo sample` says of the file that it wrote.

use std::fmt::Write;
use std::path::Path;

use expo::kernels::memory::peak;
use expo::sample::Written;
use serde_json::json;

use crate::cli::grouped;

/// The figures of a file of responses as JSON; `bound` is the plain read of this machine, in bytes per second.
pub fn object(written: &Written, bound: Option<f64>, out: &Path) -> String {
    let mut object = json!({
        "responses": written.responses,
        "found": written.found,
        "tokens": written.tokens,
        "finished": written.finished,
        "seconds": written.seconds,
        "peak_memory_bytes": peak(),
        "out": out,
    });
    if let (Some(bound), true) = (bound, written.bytes > 0) {
        object["bytes"] = written.bytes.into();
        object["read_bytes_per_second"] = bound.into();
    }
    format!("{object}\n")
}

/// The same as a table.
pub fn table(written: &Written, bound: Option<f64>, out: &Path) -> String {
    let mut text = String::new();
    for (name, count) in [
        ("responses", written.responses),
        ("found before", written.found),
        ("drawn now", written.responses - written.found),
        ("  finished", written.finished),
        ("  tokens", written.tokens),
    ] {
        let _ = writeln!(text, "{name:<14}{:>14}", grouped(count));
    }
    if written.tokens > 0 {
        let rate = written.tokens as f64 / written.seconds;
        let _ = writeln!(text, "{:<14}{rate:>14.1}", "tokens/s");
    }
    if let (Some(bound), true) = (bound, written.bytes > 0) {
        let rate = written.bytes as f64 / written.seconds;
        let _ = writeln!(
            text,
            "weights, keys and values were read at {:.1} GB/s, {:.0}% of a plain read's {:.1} GB/s",
            rate / 1e9,
            100.0 * rate / bound,
            bound / 1e9,
        );
    }
    let _ = writeln!(text, "output {}", out.display());
    text
}
