//! The same run on other numbers of threads.

use super::Report;
use super::folders::{differences, steps};
use super::program::{Stage, memory};

#[test]
#[ignore = "run by scripts/torture.sh"]
fn the_number_of_threads_changes_nothing() {
    let mut report = Report::new("threads");
    let stage = Stage::new(&memory(), 24);
    let numbers = [1, 2, 3, 4, 8];
    for threads in numbers {
        let run = stage.path(&format!("run-{threads}"));
        let ended = stage.start(&[], &run, threads).wait();
        assert_eq!(ended.code, Some(0), "{}", ended.err);
        let place = format!("{threads} threads");
        report.fail_all(&place, differences(&run, &stage.whole, true));
        if steps(&run) != steps(&stage.whole) {
            report.fail(format!("{place}: mismatch: {:?}", steps(&run)));
        }
    }
    report.count("threads", numbers.map(|n| n.to_string()).join(","));
    report.count("mismatches", report.failed("mismatch"));
    report.finish();
}
