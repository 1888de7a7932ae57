//! Where the binary is that the tests start.

use anyhow::{Context, bail};
use std::path::PathBuf;

/// The variable that names it.
const VARIABLE: &str = "MUSTER_BIN";

/// The binary, or what to do to have one.
pub(crate) fn find() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os(VARIABLE).map(PathBuf::from) {
        if !path.is_file() {
            bail!("{VARIABLE} names {}, which is no file; run scripts/test, which builds it", path.display());
        }
        return Ok(std::path::absolute(path)?);
    }
    // A test is <target>/<profile>/deps/NAME-HASH, an example <target>/<profile>/examples/NAME.
    let exe = std::env::current_exe().context("cannot find this test's own file")?;
    let beside = exe.parent().and_then(|dir| dir.parent()).map(|dir| dir.join("muster"));
    match beside {
        Some(path) if path.is_file() => Ok(path),
        _ => bail!("there is no muster binary to test: run scripts/test, or build it and set {VARIABLE}"),
    }
}
