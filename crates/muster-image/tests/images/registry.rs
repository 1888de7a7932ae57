//! Images of a registry, which is a small one of the test: good ones, and those that lie.

use super::{
    layout::{Made, arch, described, dir, file, image},
    pull, store,
};
use muster_image::{Digest, Limits, Settings, Store};
use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

/// What is answered: a status, headers, a body.
type Answer = (u16, Vec<(&'static str, String)>, Vec<u8>);
/// To a path with its query, and the token that came with it.
type Answers = Box<dyn Fn(&str, Option<&str>) -> Answer + Send + Sync>;

struct Registry {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Registry {
    fn start(answers: impl FnOnce(SocketAddr) -> Answers) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let answers = answers(address);
        let (asked, ends) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (their_asked, their_ends) = (asked.clone(), ends.clone());
        let thread = thread::spawn(move || {
            for client in listener.incoming() {
                if their_ends.load(Ordering::Relaxed) {
                    return;
                }
                // One that went away gets no answer.
                let _ = serve(client.unwrap(), &answers, &their_asked);
            }
        });
        Self { address, asked, ends, thread: Some(thread) }
    }

    fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.address)
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.take().unwrap().join();
    }
}

fn serve(client: TcpStream, answers: &Answers, asked: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(client);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut token = None;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        match header.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("authorization") => {
                token = value.strip_prefix("Bearer ").map(str::to_owned);
            }
            Some(_) => {}
            None => break,
        }
    }
    asked.lock().unwrap().push(path.clone());
    let (status, headers, body) = answers(&path, token.as_deref());
    let mut client = reader.into_inner();
    write!(client, "HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {}\r\n", body.len())?;
    for (name, value) in headers {
        write!(client, "{name}: {value}\r\n")?;
    }
    client.write_all(b"\r\n")?;
    client.write_all(&body)?;
    client.shutdown(std::net::Shutdown::Write)?;
    let _ = client.read(&mut [0]);
    Ok(())
}

fn app() -> Made {
    image(&[vec![dir("bin"), file("bin/run", "run")], vec![dir("srv"), file("srv/data", "data")]])
}

/// All documents and blobs of an image, by path.
fn paths(made: &Made, repository: &str, tag: &str) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for blob in made.blobs.iter().chain([&made.config]) {
        all.insert(format!("/v2/{repository}/blobs/{}", Digest::of(blob)), blob.clone());
    }
    for name in [tag.to_owned(), Digest::of(&made.manifest).to_string()] {
        all.insert(format!("/v2/{repository}/manifests/{name}"), made.manifest.clone());
    }
    all
}

fn found(all: &BTreeMap<String, Vec<u8>>, path: &str) -> Answer {
    match all.get(path) {
        Some(bytes) => (200, Vec::new(), bytes.clone()),
        None => (404, Vec::new(), b"none".to_vec()),
    }
}

fn open(all: BTreeMap<String, Vec<u8>>) -> Registry {
    Registry::start(|_| Box::new(move |path, _| found(&all, path)))
}

fn why(at: &Path, registry: &Registry, rest: &str) -> String {
    pull(&store(at), &registry.name(rest)).unwrap_err().told()
}

#[test]
fn an_image_is_pulled_by_tag_and_by_digest_and_its_layers_once() {
    let at = tempfile::tempdir().unwrap();
    let made = app();
    let registry = open(paths(&made, "team/app", "1.0"));
    let store = store(at.path());
    let image = pull(&store, &registry.name("team/app:1.0")).unwrap();
    assert_eq!(image.config().cmd, ["/bin/run"]);
    assert_eq!(fs::read_to_string(image.layers()[1].content().join("srv/data")).unwrap(), "data");
    let by_digest = registry.name(&format!("team/app@{}", Digest::of(&made.manifest)));
    assert_eq!(pull(&store, &by_digest).unwrap().id(), image.id());
    let blob = format!("/v2/team/app/blobs/{}", Digest::of(&made.blobs[0]));
    assert_eq!(registry.asked().iter().filter(|path| **path == blob).count(), 1, "a layer is fetched once");
    assert!(pull(&store, &registry.name("team/app:2.0")).unwrap_err().told().contains("no such image"));
}

#[test]
fn of_a_list_the_image_of_this_platform_is_chosen() {
    let at = tempfile::tempdir().unwrap();
    let made = app();
    let mut all = paths(&made, "app", "other");
    let other = r#"{"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0,"platform":{"os":"linux","architecture":"s390x"}}"#;
    let this = format!(
        "{{{},\"platform\":{{\"os\":\"linux\",\"architecture\":\"{}\"}}}}",
        described(&made.manifest),
        arch()
    );
    let list = format!(r#"{{"schemaVersion":2,"manifests":[{other},{this}]}}"#);
    all.insert("/v2/app/manifests/latest".into(), list.into_bytes());
    let registry = open(all);
    assert_eq!(pull(&store(at.path()), &registry.name("app")).unwrap().config().cmd, ["/bin/run"]);
}

#[test]
fn a_token_that_anybody_gets_is_asked_for() {
    let at = tempfile::tempdir().unwrap();
    let all = paths(&app(), "team/app", "1.0");
    let registry = Registry::start(|address| {
        Box::new(move |path, token| {
            if path.starts_with("/token?") {
                assert!(path.contains("service=it") && path.contains("scope=repository%3Ateam%2Fapp%3Apull"));
                return (200, Vec::new(), br#"{"token":"open-to-all"}"#.to_vec());
            }
            if token != Some("open-to-all") {
                let challenge = format!(
                    r#"Bearer realm="http://{address}/token",service="it",scope="repository:team/app:pull""#
                );
                return (401, vec![("WWW-Authenticate", challenge)], Vec::new());
            }
            found(&all, path)
        })
    });
    pull(&store(at.path()), &registry.name("team/app:1.0")).unwrap();
    assert_eq!(registry.asked().iter().filter(|path| path.starts_with("/token")).count(), 1);
}

#[test]
fn who_wants_credentials_is_refused_and_nobody_is_asked_for_ever() {
    let at = tempfile::tempdir().unwrap();
    let bearer = Registry::start(|address| {
        Box::new(move |path, _| match path.starts_with("/token") {
            true => (200, Vec::new(), br#"{"access_token":"of-no-use"}"#.to_vec()),
            false => {
                let challenge = format!(r#"Bearer realm="http://{address}/token""#);
                (401, vec![("WWW-Authenticate", challenge)], Vec::new())
            }
        })
    });
    assert!(why(at.path(), &bearer, "app").contains("not for everybody"));
    assert_eq!(bearer.asked().len(), 3);
    for (challenge, part) in
        [("Basic realm=\"x\"", "wants credentials"), ("Bearer service=\"x\"", "does not say where")]
    {
        let registry = Registry::start(|_| {
            Box::new(move |_, _| (401, vec![("WWW-Authenticate", challenge.to_owned())], Vec::new()))
        });
        let at = tempfile::tempdir().unwrap();
        let why = why(at.path(), &registry, "app");
        assert!(why.contains(part), "{why}");
        assert_eq!(registry.asked().len(), 1);
    }
}

#[test]
fn redirects_are_followed_and_not_for_ever() {
    let at = tempfile::tempdir().unwrap();
    let made = app();
    let all = paths(&made, "app", "1");
    let moved = Registry::start(|_| {
        Box::new(move |path, _| match path.strip_prefix("/elsewhere") {
            Some(path) => found(&all, path),
            None if path.contains("/blobs/") => {
                (307, vec![("Location", format!("/elsewhere{path}"))], Vec::new())
            }
            None => found(&all, path),
        })
    });
    pull(&store(at.path()), &moved.name("app:1")).unwrap();
    let round =
        Registry::start(|_| Box::new(|path, _| (302, vec![("Location", path.to_owned())], Vec::new())));
    let at = tempfile::tempdir().unwrap();
    let why = why(at.path(), &round, "app");
    assert!(why.contains("redirect"), "{why}");
    assert!(round.asked().len() < 10);
}

#[test]
fn bytes_that_are_not_what_was_promised_are_refused_and_nothing_is_kept() {
    let made = app();
    let blob = |bytes: &[u8]| format!("/v2/app/blobs/{}", Digest::of(bytes));
    let other = app().blobs[1].clone();
    for path in [blob(&made.config), blob(&made.blobs[0]), blob(&made.blobs[1])] {
        let at = tempfile::tempdir().unwrap();
        let mut all = paths(&made, "app", "1");
        let mut changed = all[&path].clone();
        *changed.last_mut().unwrap() ^= 1;
        if path == blob(&made.blobs[0]) {
            changed = other.clone();
        }
        all.insert(path.clone(), changed);
        let registry = open(all);
        let why = why(at.path(), &registry, "app:1");
        assert!(why.contains("was promised"), "{why}");
        assert_eq!(fs::read_dir(at.path().join("store/images")).unwrap().count(), 0);
    }
    let at = tempfile::tempdir().unwrap();
    let wrong = Digest::of(b"another");
    let mut all = paths(&made, "app", "1");
    all.insert(format!("/v2/app/manifests/{wrong}"), made.manifest.clone());
    assert!(why(at.path(), &open(all), &format!("app@{wrong}")).contains("was promised"));
}

#[test]
fn what_is_too_large_or_cut_short_is_refused() {
    let made = app();
    let limited = |at: &Path, limits: Limits| {
        let settings = Settings { limits, ..Settings::default() };
        Store::open(&at.join("store"), settings).unwrap()
    };
    for (limits, key) in [
        (Limits { document_bytes_max: 64, ..Limits::default() }, "document_bytes_max"),
        (Limits { blob_bytes_max: 16, ..Limits::default() }, "blob_bytes_max"),
    ] {
        let at = tempfile::tempdir().unwrap();
        let registry = open(paths(&made, "app", "1"));
        let why = pull(&limited(at.path(), limits), &registry.name("app:1")).unwrap_err().told();
        assert!(why.contains(key), "{why}");
    }
    let at = tempfile::tempdir().unwrap();
    let all = paths(&made, "app", "1");
    let layer = format!("/v2/app/blobs/{}", Digest::of(&made.blobs[1]));
    let short = Registry::start(|_| {
        Box::new(move |path, _| {
            let (status, headers, mut body) = found(&all, path);
            if path == layer {
                body.truncate(body.len() / 2);
            }
            (status, headers, body)
        })
    });
    assert!(!why(at.path(), &short, "app:1").is_empty());
    assert_eq!(fs::read_dir(at.path().join("store/images")).unwrap().count(), 0);
}

#[test]
fn what_a_registry_says_is_told() {
    let at = tempfile::tempdir().unwrap();
    let registry = Registry::start(|_| Box::new(|_, _| (503, Vec::new(), b"come\nback later".to_vec())));
    let why = why(at.path(), &registry, "app");
    assert!(why.contains("503") && why.contains("comeback later"), "{why}");
}
