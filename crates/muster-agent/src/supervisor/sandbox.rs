//! A task's directory, and the files that its output goes to.

use super::Spec;
use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, chown},
};

/// Makes the sandbox and opens standard output and standard error in it.
pub(super) fn open(spec: &Spec) -> io::Result<(File, File)> {
    make(spec).map_err(doing(spec, "make the sandbox"))?;
    let log = |name: &str| -> io::Result<File> {
        let path = spec.sandbox.join(name);
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        if let Some((uid, gid)) = spec.user {
            chown(&path, Some(uid), Some(gid))?;
        }
        Ok(file)
    };
    let stdout = log("stdout").map_err(doing(spec, "open stdout in"))?;
    let stderr = log("stderr").map_err(doing(spec, "open stderr in"))?;
    Ok((stdout, stderr))
}

/// Says of an error what could not be done with the sandbox.
pub(super) fn doing(spec: &Spec, what: &str) -> impl FnOnce(io::Error) -> io::Error {
    let what = format!("{what} {}", spec.sandbox.display());
    move |error| io::Error::new(error.kind(), format!("Failed to {what}: {error}"))
}

fn make(spec: &Spec) -> io::Result<()> {
    if let Some(parent) = spec.sandbox.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::DirBuilder::new().mode(0o755).create(&spec.sandbox) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    match spec.user {
        Some((uid, gid)) => chown(&spec.sandbox, Some(uid), Some(gid)),
        None => Ok(()),
    }
}
