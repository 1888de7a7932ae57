//! What several tests of the kit share.

use std::time::{Duration, Instant};

/// Whether the machine lacks something. It is said, and the test passes there, but fails under `CI=true`.
pub(crate) fn lacks(missing: Option<String>) -> bool {
    let Some(missing) = missing else { return false };
    assert!(std::env::var("CI").as_deref() != Ok("true"), "skipped under CI: {missing}");
    eprintln!("skipped: {missing}");
    true
}

/// Waits until it is so.
pub(crate) async fn eventually(mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < until, "never");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
