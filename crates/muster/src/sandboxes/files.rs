//! `muster files`: what is in tasks' sandboxes.

use super::{Agent, Finder, Found};
use crate::{
    cli::{Masters, Output},
    output::{Rows, done},
};
use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use http_body_util::BodyExt;
use muster_proto::mesos::FileInfo;
use serde_json::json;
use std::{
    collections::VecDeque,
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// The bits of a mode that say what something is, and what a directory is.
const KIND: u32 = 0o170_000;
const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
/// Directories within each other that are copied.
const DEPTH_MAX: usize = 64;

/// Ask about files.
#[derive(Debug, Subcommand)]
pub(crate) enum FilesVerb {
    /// List a directory.
    Ls(PathArgs),
    /// Write a file to standard output.
    Cat(PathArgs),
    /// Copy a file, or a directory with all that is in it, to this machine.
    Cp {
        #[command(flatten)]
        from: PathArgs,
        /// Where to: a directory that is there, or the name of the copy.
        #[arg(long = "to", value_name = "PATH", default_value = ".")]
        to: PathBuf,
    },
}

/// A file of a task.
#[derive(Debug, Args)]
pub(crate) struct PathArgs {
    /// The task's id.
    task: String,
    /// The path in its sandbox; none is the sandbox itself.
    #[arg(default_value = "")]
    path: String,
    /// The task's framework, if several have one of this name.
    #[arg(long, value_name = "ID")]
    framework: Option<String>,
    #[command(flatten)]
    masters: Masters,
}

/// A file that was found.
struct There {
    agents: Agent,
    address: String,
    /// As its agent names it.
    path: String,
    task: Found,
}

pub(crate) async fn run(verb: FilesVerb, output: Output) -> anyhow::Result<ExitCode> {
    match verb {
        FilesVerb::Ls(args) => list(&find(&args).await?, output).await,
        FilesVerb::Cat(args) => cat(&find(&args).await?).await,
        FilesVerb::Cp { from, to } => copy(&from, &find(&from).await?, &to, output).await,
    }
}

async fn find(args: &PathArgs) -> anyhow::Result<There> {
    if args.task.ends_with('*') {
        bail!("{:?} may stand for several tasks: name one", args.task);
    }
    let mut finder = Finder::new(&args.masters);
    let names = std::slice::from_ref(&args.task);
    let found = finder.find(&args.masters, args.framework.as_deref(), names).await?;
    let task = found.into_iter().next().with_context(|| format!("no task {:?}", args.task))?;
    let of = || format!("the sandbox of {}", task.name());
    let sandbox = finder.sandbox(&task).await.with_context(of)?;
    let address = finder.address(&task).with_context(of)?.to_owned();
    let path = match args.path.trim_matches('/') {
        "" => sandbox,
        path => format!("{sandbox}/{path}"),
    };
    Ok(There { agents: finder.agents.clone(), address, path, task })
}

impl There {
    async fn entries(&self, path: &str) -> anyhow::Result<Vec<FileInfo>> {
        self.agents.list(&self.address, path).await.with_context(|| self.named(path))
    }

    /// A path for people.
    fn named(&self, path: &str) -> String {
        format!("{path} on {} of {}", self.address, self.task.name())
    }

    /// Writes a file's content to somewhere.
    async fn fetch(&self, path: &str, to: &mut impl Write) -> anyhow::Result<u64> {
        let mut body = self.agents.download(&self.address, path).await.with_context(|| self.named(path))?;
        let mut bytes = 0;
        while let Some(frame) = body.frame().await {
            let frame = frame.with_context(|| format!("{}: it broke off", self.named(path)))?;
            if let Ok(data) = frame.into_data() {
                to.write_all(&data)?;
                bytes += data.len() as u64;
            }
        }
        to.flush()?;
        Ok(bytes)
    }
}

fn kind(info: &FileInfo) -> u32 {
    info.mode() & KIND
}

/// The last part of a path.
fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

async fn list(there: &There, output: Output) -> anyhow::Result<ExitCode> {
    let mut rows = Rows::new(["MODE", "USER", "GROUP", "BYTES", "NAME"]);
    for info in there.entries(&there.path).await? {
        let is_directory = kind(&info) == DIRECTORY;
        let (user, group) = (info.uid().to_owned(), info.gid().to_owned());
        let mtime_ms = info.mtime.as_ref().map(|it| it.nanoseconds / 1_000_000);
        let json = json!({
            "name": name(&info.path), "path": info.path, "directory": is_directory, "mode": info.mode(),
            "size": info.size(), "user": user, "group": group, "mtime_ms": mtime_ms,
        });
        let shown = format!("{}{}", name(&info.path), if is_directory { "/" } else { "" });
        let row = [format!("{:04o}", info.mode() & 0o7_777), user, group, info.size().to_string(), shown];
        rows.push(row, json);
    }
    rows.print(output);
    Ok(ExitCode::SUCCESS)
}

async fn cat(there: &There) -> anyhow::Result<ExitCode> {
    there.fetch(&there.path, &mut std::io::stdout().lock()).await?;
    Ok(ExitCode::SUCCESS)
}

async fn copy(args: &PathArgs, there: &There, to: &Path, output: Output) -> anyhow::Result<ExitCode> {
    let own = match args.path.trim_matches('/') {
        "" => args.task.as_str(),
        path => name(path),
    };
    let to = if to.is_dir() { to.join(checked(own)?) } else { to.to_owned() };
    let (mut files, mut bytes) = (0u64, 0);
    // Whether it is a directory its own listing tells.
    match there.agents.list(&there.address, &there.path).await {
        Ok(entries) => {
            let mut left = VecDeque::from([(entries, to.clone(), 0)]);
            while let Some((entries, to, depth)) = left.pop_front() {
                fs::create_dir_all(&to).with_context(|| format!("cannot make {}", to.display()))?;
                for info in entries {
                    let to = to.join(checked(name(&info.path))?);
                    match kind(&info) {
                        DIRECTORY if depth < DEPTH_MAX => {
                            left.push_back((there.entries(&info.path).await?, to, depth + 1));
                        }
                        FILE => {
                            bytes += save(there, &info.path, &to).await?;
                            files += 1;
                        }
                        _ => eprintln!("muster: {} is neither file nor directory: left out", info.path),
                    }
                }
            }
        }
        Err(_) => {
            bytes = save(there, &there.path, &to).await?;
            files = 1;
        }
    }
    let sentence = format!("{files} files, {bytes} bytes, in {}", to.display());
    done(output, &sentence, &json!({"files": files, "bytes": bytes, "path": to}));
    Ok(ExitCode::SUCCESS)
}

/// Copies a file: whole, or not at all.
async fn save(there: &There, path: &str, to: &Path) -> anyhow::Result<u64> {
    let directory = to.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let doing = || format!("cannot write {}", to.display());
    let permissions = fs::Permissions::from_mode(0o666); // but what the umask takes away
    let mut file =
        tempfile::Builder::new().permissions(permissions).tempfile_in(directory).with_context(doing)?;
    let bytes = there.fetch(path, &mut file).await?;
    file.persist(to).with_context(doing)?;
    Ok(bytes)
}

/// A name that stays in the directory that it is put in, whatever an agent says.
fn checked(name: &str) -> anyhow::Result<&str> {
    match name {
        "" | "." | ".." => bail!("the agent names a file {name:?}: it is not copied"),
        name if name.contains(['/', '\0']) => bail!("the agent names a file {name:?}: it is not copied"),
        name => Ok(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_where_they_are_put() {
        assert_eq!(checked("stdout").unwrap(), "stdout");
        for bad in ["", ".", "..", "a/b", "/etc"] {
            assert!(checked(bad).is_err(), "{bad}");
        }
        assert_eq!(name("/a/b/c"), "c");
    }
}
