//! What the shipped binary must not hold.

#[test]
fn the_shipped_binary_holds_no_fault() {
    let binary = std::fs::read(env!("CARGO_BIN_EXE_muster")).unwrap();
    let binary = String::from_utf8_lossy(&binary);
    // So that a search that finds nothing means something.
    assert!(binary.contains("snapshot-mib"));
    for text in ["MUSTER_PLANT", "MUSTER_FAIL_POINTS", "skip-sync", "store.log.sync", "fail-points"] {
        assert!(!binary.contains(text), "{text:?} is in the binary: was it built with the feature `faults`?");
    }
}
