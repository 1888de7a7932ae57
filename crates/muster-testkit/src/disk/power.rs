//! A power cut, as far as a file system can tell: ext4 is shut down without its journal or data being flushed.

use super::done;
use std::path::PathBuf;
use std::process::Command;

/// `EXT4_IOC_SHUTDOWN` with `EXT4_GOING_FLAGS_NOLOGFLUSH`. A program of its own issues it, since there is no call
/// of std or rustix for it that would not be unsafe. All disks are opened first, so that the cuts are moments apart.
const SHUTDOWN: &str = "\
import fcntl, os, struct, sys
disks = [os.open(path, os.O_RDONLY) for path in sys.argv[1:]]
for disk in disks:
    fcntl.ioctl(disk, 0x8004587D, struct.pack('I', 2))
";

/// Cuts the power of these mounts.
pub(super) fn cut(mounts: &[PathBuf]) -> anyhow::Result<()> {
    done(Command::new("python3").args(["-I", "-S", "-c", SHUTDOWN]).args(mounts))
}
