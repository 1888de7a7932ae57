//! Fetching what a command names into its sandbox, before the command is held.
//!
//! Files of this machine (`file://` or a path) are copied by `cp`, archives unpacked by `tar`, both as the user that the
//! command runs as, so that nobody gets at what is not theirs; plain `http://` is read here. Everything else is refused
//! in words. `cache` is ignored: each command fetches for itself.
//!
//! A fetch that is cut short leaves its files: the launch has failed, and its sandbox goes as any other does.

use http_body_util::BodyExt;
use hyper::{Request, Uri, body::Incoming, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use muster_proto::mesos::command_info;
use std::{
    fs,
    os::unix::fs::{DirBuilderExt, PermissionsExt, chown},
    path::{Component, Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{fs::File, io::AsyncWriteExt, net::TcpStream, process::Command, time::timeout};

/// How often a server may send us elsewhere.
const REDIRECTS_MAX: usize = 5;
/// Things that one command may name.
const URIS_MAX: usize = 256;
/// What `tar` unpacks.
const ARCHIVES: [&str; 8] = [".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst"];

/// How much may be fetched, and for whom.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) time: Duration,
    pub(crate) file_bytes: u64,
    /// User and group to fetch as, if not the agent's.
    pub(crate) user: Option<(u32, u32)>,
}

/// Fetches all of it, in order. The error says which could not be, and why.
pub(crate) async fn fetch(uris: &[command_info::Uri], sandbox: &Path, bounds: Bounds) -> Result<(), String> {
    if uris.is_empty() {
        return Ok(());
    }
    if uris.len() > URIS_MAX {
        return Err(format!(
            "Failed to fetch: {} URIs are named, at most {URIS_MAX} are allowed",
            uris.len()
        ));
    }
    make(sandbox, bounds.user).map_err(|error| format!("Failed to make the sandbox: {error}"))?;
    let all = async {
        for uri in uris {
            one(uri, sandbox, bounds)
                .await
                .map_err(|why| format!("Failed to fetch '{}': {why}", uri.value))?;
        }
        Ok(())
    };
    timeout(bounds.time, all)
        .await
        .unwrap_or_else(|_| Err(format!("Failed to fetch all URIs within {} ms", bounds.time.as_millis())))
}

/// Makes a sandbox of this user's.
pub(crate) fn make(sandbox: &Path, user: Option<(u32, u32)>) -> std::io::Result<()> {
    if let Some(parent) = sandbox.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::DirBuilder::new().recursive(true).mode(0o755).create(sandbox)?;
    match user {
        Some((uid, gid)) => chown(sandbox, Some(uid), Some(gid)),
        None => Ok(()),
    }
}

async fn one(uri: &command_info::Uri, sandbox: &Path, bounds: Bounds) -> Result<(), String> {
    let value = uri.value.trim();
    let to = sandbox.join(output(uri, value)?);
    match source(value)? {
        Source::Path(from) => copy(&from, &to, bounds).await?,
        Source::Http(from) => {
            download(from, &to, bounds.file_bytes).await?;
            if let Some((uid, gid)) = bounds.user {
                chown(&to, Some(uid), Some(gid)).map_err(|error| error.to_string())?;
            }
        }
    }
    if uri.executable() {
        let mode = fs::Permissions::from_mode(0o755);
        return fs::set_permissions(&to, mode).map_err(|error| error.to_string());
    }
    match uri.extract() && ARCHIVES.iter().any(|end| to.to_string_lossy().ends_with(end)) {
        true => unpack(&to, sandbox, bounds).await,
        false if uri.extract() && to.extension().is_some_and(|it| it == "zip") => {
            Err("zip archives are not unpacked here; use a tar archive, or say extract: false".into())
        }
        false => Ok(()),
    }
}

/// Where something is fetched from.
#[derive(Debug, PartialEq, Eq)]
enum Source {
    Path(PathBuf),
    Http(Uri),
}

fn source(value: &str) -> Result<Source, String> {
    if let Some(path) = value.strip_prefix("file://") {
        let path = path.strip_prefix("localhost").unwrap_or(path);
        if path.starts_with('/') {
            return Ok(Source::Path(path.into()));
        }
        return Err("a file:// URI names a path of this machine, as in file:///path".into());
    }
    if value.starts_with('/') {
        return Ok(Source::Path(value.into()));
    }
    if value.starts_with("http://") {
        return value.parse().map(Source::Http).map_err(|error| format!("is no URI: {error}"));
    }
    let scheme = value.split_once("://").map_or("a relative path", |(scheme, _)| scheme);
    Err(format!("{scheme} is not supported: name a path, file:// or http://"))
}

/// The name that it gets in the sandbox: never out of it.
fn output(uri: &command_info::Uri, value: &str) -> Result<PathBuf, String> {
    let named = uri.output_file.as_deref().filter(|name| !name.is_empty());
    let path = value.split(['?', '#']).next().unwrap_or_default();
    let last = if value.starts_with("http://") { path } else { value };
    let after_host = last.split_once("://").map_or(last, |(_, rest)| rest);
    let name = match named {
        Some(name) => name,
        None => after_host.rsplit_once('/').map(|(_, name)| name).unwrap_or_default(),
    };
    // Of one part: a directory could be a link out of the sandbox that came with an archive.
    let path = PathBuf::from(name);
    let mut parts = path.components();
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(_)), None) if !name.contains('\0') => Ok(path),
        _ => Err(format!("{name:?} is no name for a file in the sandbox; give an output_file")),
    }
}

async fn copy(from: &Path, to: &Path, bounds: Bounds) -> Result<(), String> {
    let about = fs::metadata(from).map_err(|error| error.to_string())?;
    if !about.is_file() {
        return Err("is no regular file".into());
    }
    long_enough(about.len(), bounds.file_bytes)?;
    let mut command = Command::new("cp");
    command.args(["--remove-destination", "--"]).arg(from).arg(to);
    run(command, "cp", bounds.user).await
}

async fn unpack(archive: &Path, sandbox: &Path, bounds: Bounds) -> Result<(), String> {
    let mut command = Command::new("tar");
    command.args(["--no-same-owner", "-x", "-f"]).arg(archive).arg("-C").arg(sandbox);
    run(command, "tar", bounds.user).await
}

async fn run(mut command: Command, name: &str, user: Option<(u32, u32)>) -> Result<(), String> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    if let Some((uid, gid)) = user {
        command.uid(uid).gid(gid);
    }
    let done = command.output().await.map_err(|error| format!("cannot run {name}: {error}"))?;
    if done.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&done.stderr);
    Err(why.lines().next().unwrap_or("it failed").to_owned())
}

async fn download(mut from: Uri, to: &Path, bytes_max: u64) -> Result<(), String> {
    for _ in 0..=REDIRECTS_MAX {
        let response = get(&from).await?;
        let status = response.status();
        if status.is_redirection() {
            let location = response.headers().get(header::LOCATION).and_then(|it| it.to_str().ok());
            from = elsewhere(&from, location.ok_or("sent elsewhere without a Location")?)?;
            continue;
        }
        if !status.is_success() {
            return Err(format!("the server answered {status}"));
        }
        return save(response.into_body(), to, bytes_max).await;
    }
    Err(format!("sent elsewhere more than {REDIRECTS_MAX} times"))
}

async fn get(from: &Uri) -> Result<hyper::Response<Incoming>, String> {
    let host = from.host().ok_or("names no host")?;
    let port = from.port_u16().unwrap_or(80);
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await;
    let stream = stream.map_err(|error| format!("cannot connect to {host}:{port}: {error}"))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    tokio::spawn(connection); // ends with the response, or with whoever reads it
    let path = from.path_and_query().map_or("/", |path| path.as_str());
    let authority = from.authority().map(|it| it.as_str()).unwrap_or(host);
    let request = Request::get(path)
        .header(header::HOST, authority)
        .header(header::CONNECTION, "close")
        .body(String::new())
        .map_err(|error| error.to_string())?;
    sender.send_request(request).await.map_err(|error| error.to_string())
}

fn elsewhere(from: &Uri, location: &str) -> Result<Uri, String> {
    if location.starts_with('/') && !location.starts_with("//") {
        let authority = from.authority().map(|it| it.as_str()).unwrap_or_default();
        return format!("http://{authority}{location}").parse().map_err(|error| format!("{error}"));
    }
    match source(location)? {
        Source::Http(uri) => Ok(uri),
        Source::Path(_) => Err("sent to a path of this machine".into()),
    }
}

/// Into a new file: one that is there, or a link, is not written to.
async fn save(mut body: Incoming, to: &Path, bytes_max: u64) -> Result<(), String> {
    let file = File::options().write(true).create_new(true).open(to).await;
    let mut file = file.map_err(|error| error.to_string())?;
    let mut bytes = 0_u64;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| error.to_string())?.into_data() else { continue };
        bytes = bytes.saturating_add(data.len() as u64);
        long_enough(bytes, bytes_max)?;
        file.write_all(&data).await.map_err(|error| error.to_string())?;
    }
    file.flush().await.map_err(|error| error.to_string())
}

fn long_enough(bytes: u64, bytes_max: u64) -> Result<(), String> {
    match bytes > bytes_max {
        true => Err(format!("it has more than {} MB, the limit of this agent", bytes_max >> 20)),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    fn uri(value: &str) -> command_info::Uri {
        command_info::Uri { value: value.into(), ..Default::default() }
    }

    const BOUNDS: Bounds = Bounds { time: Duration::from_secs(30), file_bytes: 1 << 20, user: None };

    #[test]
    fn names_stay_in_the_sandbox() {
        let name = |uri: &command_info::Uri| output(uri, &uri.value).map(|path| path.display().to_string());
        assert_eq!(name(&uri("http://host:1/a/b.sh?x=/y")).as_deref(), Ok("b.sh"));
        assert_eq!(name(&uri("/opt/run?")).as_deref(), Ok("run?"));
        let named = |name: &str| command_info::Uri { output_file: Some(name.into()), ..uri("/a/b") };
        assert_eq!(name(&named("here")).as_deref(), Ok("here"));
        for wrong in [named("../x"), named("/etc/x"), named("a/x"), uri("http://host"), uri("/a/..")] {
            assert!(name(&wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_not_fetched_is_said() {
        for (value, part) in [
            ("https://host/x", "https is not supported"),
            ("hdfs://host/x", "hdfs is not supported"),
            ("relative/x", "a relative path is not supported"),
            ("file://host/x", "file:///path"),
        ] {
            let why = source(value).unwrap_err();
            assert!(why.contains(part), "{value}: {why}");
        }
        assert_eq!(source("file:///a"), Ok(Source::Path("/a".into())));
    }

    #[tokio::test]
    async fn files_are_copied_and_archives_unpacked() {
        let dir = tempfile::tempdir().unwrap();
        let sandbox = dir.path().join("f/e/1.1.0");
        fs::write(dir.path().join("tool"), "#!/bin/sh\n").unwrap();
        fs::write(dir.path().join("inner"), "inner").unwrap();
        let archive = dir.path().join("all.tgz");
        let packed = std::process::Command::new("tar")
            .args(["-c", "-z", "-f"])
            .arg(&archive)
            .arg("-C")
            .arg(dir.path())
            .arg("inner")
            .status();
        assert!(packed.unwrap().success());
        let path = |name: &str| dir.path().join(name).display().to_string();
        let tool = command_info::Uri { executable: Some(true), ..uri(&path("tool")) };
        let archive = uri(&format!("file://{}", path("all.tgz")));
        fetch(&[tool, archive], &sandbox, BOUNDS).await.unwrap();
        assert_eq!(fs::metadata(sandbox.join("tool")).unwrap().permissions().mode() & 0o111, 0o111);
        assert_eq!(fs::read_to_string(sandbox.join("inner")).unwrap(), "inner");
        let small = Bounds { file_bytes: 3, ..BOUNDS };
        let why = fetch(&[uri(&path("tool"))], &sandbox, small).await.unwrap_err();
        assert!(why.contains("more than 0 MB"), "{why}");
        let why = fetch(&[uri(&path("none"))], &sandbox, BOUNDS).await.unwrap_err();
        assert!(why.contains("none") && why.contains("No such file"), "{why}");
    }

    /// Answers each connection with the next of these, whatever is asked.
    async fn server(answers: Vec<String>) -> std::net::SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut asked = [0; 4096];
                assert!(stream.read(&mut asked).await.unwrap() > 0);
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        address
    }

    #[tokio::test]
    async fn http_is_read_and_followed() {
        let dir = tempfile::tempdir().unwrap();
        let address = server(vec![
            "HTTP/1.1 302 Found\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n".into(),
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello".into(),
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".into(),
            "HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n".into(),
        ])
        .await;
        let here = |name: &str| [uri(&format!("http://{address}/{name}"))];
        fetch(&here("a"), dir.path(), BOUNDS).await.unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("a")).unwrap(), "hello");
        let why = fetch(&here("b"), dir.path(), BOUNDS).await.unwrap_err();
        assert!(why.contains("404"), "{why}");
        let why = fetch(&here("c"), dir.path(), BOUNDS).await.unwrap_err();
        assert!(why.contains("a path of this machine"), "{why}");
    }
}
