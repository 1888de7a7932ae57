//! Writes what every run begins with into `corpus`: requests that were recorded, in both forms, and stored entries.

use muster_proto::{
    json::{Mesos, from_json},
    mesos,
};
use std::{
    io,
    path::{Path, PathBuf},
};

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn sorted(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut all =
        std::fs::read_dir(dir)?.map(|entry| entry.map(|it| it.path())).collect::<Result<Vec<_>, _>>()?;
    all.sort();
    Ok(all)
}

/// A seed under the name of where it is from.
fn write(target: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
    let dir = here("corpus").join(target);
    std::fs::create_dir_all(&dir)?;
    std::fs::write(dir.join(name), bytes)
}

fn main() -> io::Result<()> {
    for path in sorted(&here("../muster-master/tests/mesos-wire"))? {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = String::from_utf8_lossy(&std::fs::read(&path)?).into_owned();
        let (kind, shape) = match &*name {
            name if name.starts_with("op-") => (1, mesos::master::Call::shape()),
            name if name.contains("executor-") => (2, mesos::executor::Call::shape()),
            _ => (0, mesos::scheduler::Call::shape()),
        };
        let asked = text.split("=== REQUEST").skip(1).filter_map(|part| part.split("=== RESPONSE").next());
        let bodies = asked.flat_map(str::lines).filter(|line| line.starts_with('{'));
        for (n, body) in bodies.enumerate() {
            let name = format!("{name}-{n}");
            write("json", &name, &[&[kind], body.as_bytes()].concat())?;
            if let Ok(bytes) = from_json(shape, body.as_bytes()) {
                write("protobuf", &name, &[&[kind], &bytes[..]].concat())?;
            }
        }
    }
    let mut log = Vec::new();
    for path in sorted(&here("../muster-raft/golden/v1"))? {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if !name.starts_with("entry-") {
            continue;
        }
        let digits: Vec<u8> = std::fs::read_to_string(path)?.bytes().filter(u8::is_ascii_hexdigit).collect();
        let byte = |two: &[u8]| std::str::from_utf8(two).ok().and_then(|it| u8::from_str_radix(it, 16).ok());
        let entry: Vec<u8> = digits.chunks(2).filter_map(byte).collect();
        let length = u16::try_from(entry.len()).map_err(io::Error::other)?;
        let framed = [&length.to_le_bytes()[..], &entry].concat();
        write("apply", &name, &framed)?;
        log.extend(framed);
    }
    write("apply", "all-entries", &log)
}
