//! The Python of `scripts/peer` and `scripts/evidence`, as far as it needs neither PyTorch nor a GPU.

use std::path::Path;
use std::process::Command;

#[test]
fn its_own_tests_pass() {
    let version = "import sys; sys.exit(sys.version_info < (3, 10))";
    let found = Command::new("python3").args(["-c", version]).output();
    if !found.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: needs python3 of 3.10 or newer");
        return;
    }
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    for path in [
        "peer/test_peer.py",
        "peer/test_generate.py",
        "peer/test_startup.py",
        "evidence/test_evidence.py",
    ] {
        let output = Command::new("python3")
            .arg("-B")
            .arg(scripts.join(path))
            .env("EXPO", env!("CARGO_BIN_EXE_expo"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
    }
}
