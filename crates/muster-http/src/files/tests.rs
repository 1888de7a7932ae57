//! Sandboxes that want to show more than themselves.

use super::{below::kernel_can, *};
use crate::body::Writers;
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use std::{fs, os::unix::fs::symlink};
use tempfile::TempDir;

/// Exposes `<root>/box` as `/box`.
struct OneBox(PathBuf);

impl Exposes for OneBox {
    fn find(&self, path: &str) -> Option<Place> {
        let rest = path.strip_prefix("/box").filter(|rest| rest.is_empty() || rest.starts_with('/'))?;
        let (within, root) = (self.0.clone(), "inner/box".into());
        Some(Place::Dir { within, root, rest: rest.trim_start_matches('/').into() })
    }
    fn all(&self) -> Vec<(String, PathBuf)> {
        vec![("/box".into(), self.0.join("inner/box"))]
    }
}

/// A directory with a secret, and a box in it.
fn boxed() -> (TempDir, Files) {
    let dir = tempfile::tempdir().unwrap();
    let there = dir.path().join("inner/box");
    fs::create_dir_all(there.join("sub")).unwrap();
    fs::write(dir.path().join("secret"), "secret").unwrap();
    fs::write(dir.path().join("inner/secret"), "secret").unwrap();
    fs::write(there.join("stdout"), "hello").unwrap();
    fs::write(there.join("sub/file"), "below").unwrap();
    let files = Files::new(OneBox(dir.path().to_owned()));
    (dir, files)
}

async fn whole(files: &Files, path: &str) -> Result<Vec<u8>, Refused> {
    files.read(path.into(), Some(0), None).await.map(|part| part.data)
}

#[tokio::test]
async fn nothing_leads_out_of_what_is_exposed() {
    let (dir, files) = boxed();
    let there = dir.path().join("inner/box");
    symlink("../secret", there.join("up")).unwrap();
    symlink(dir.path().join("secret"), there.join("absolute")).unwrap();
    symlink("..", there.join("parent")).unwrap();
    symlink("/", there.join("all")).unwrap();
    symlink("/proc/self/root", there.join("magic")).unwrap();
    symlink("circle", there.join("circle")).unwrap();
    let secret = dir.path().join("secret").display().to_string();
    for path in [
        "/box/../secret",
        "/box/../../secret",
        "/box/sub/../../secret",
        "/box/sub/../../../secret",
        "/box/up",
        "/box/absolute",
        "/box/parent/secret",
        "/box/parent/../secret",
        "/box/magic/etc/passwd",
        "/box/circle",
        "/box/./../secret",
        "/box//..//secret",
        &format!("/box/all{secret}"),
        &format!("/box/{secret}"),
        &secret,
        "/inner/secret",
        "inner/secret",
        "/",
        "",
        "..",
        "/box/stdout/../../secret",
        "/box/a\0b",
        "/boxes",
        &format!("/box/{}", "x/".repeat(5_000)),
    ] {
        let read = whole(&files, path).await;
        assert!(read.is_err(), "{path}: {read:?}");
        let listed = files.list(path.into()).await;
        assert!(listed.is_err(), "{path}: {listed:?}");
        assert!(files.open(path.into()).await.is_err(), "{path}");
    }
}

#[tokio::test]
async fn the_box_itself_is_no_link() {
    let (dir, files) = boxed();
    assert_eq!(whole(&files, "/box/stdout").await.unwrap(), b"hello");
    let real = dir.path().join("inner/box");
    fs::rename(&real, dir.path().join("elsewhere")).unwrap();
    symlink(dir.path(), &real).unwrap();
    assert!(whole(&files, "/box/secret").await.is_err());
    fs::remove_file(&real).unwrap();
    assert_eq!(whole(&files, "/box/stdout").await, Err(Refused::NotFound));
}

#[tokio::test]
async fn links_within_are_followed_where_the_kernel_can() {
    let (dir, files) = boxed();
    symlink("sub/file", dir.path().join("inner/box/link")).unwrap();
    let read = whole(&files, "/box/link").await;
    match kernel_can() {
        true => assert_eq!(read.unwrap(), b"below"),
        false => assert!(read.is_err()),
    }
}

#[test]
fn an_old_kernel_follows_no_links() {
    let (dir, _) = boxed();
    let there = dir.path().join("inner/box");
    symlink("sub", there.join("link")).unwrap();
    symlink("stdout", there.join("out")).unwrap();
    let root = rustix::fs::open(&there, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let open = |names: &[&str]| below::step_by_step(&root, names, READ);
    assert!(open(&["sub", "file"]).is_ok() && open(&[]).is_ok());
    for names in [&["link", "file"][..], &["out"], &["sub", "..", "stdout"], &[".."]] {
        assert!(open(names).is_err(), "{names:?}");
    }
}

#[tokio::test]
async fn only_files_are_read_and_none_that_blocks() {
    let (dir, files) = boxed();
    let pipe = dir.path().join("inner/box/pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
    assert!(
        matches!(whole(&files, "/box/pipe").await, Err(Refused::Invalid(why)) if why.contains("no file"))
    );
    let directory = Err(Refused::Invalid("Cannot read a directory.\n".into()));
    assert_eq!(whole(&files, "/box/sub").await, directory);
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("inner/box/socket")).unwrap();
    assert!(matches!(whole(&files, "/box/socket").await, Err(Refused::Invalid(_))));
}

#[tokio::test]
async fn a_part_is_what_was_asked_for_and_no_more_than_sixteen_pages() {
    let (dir, files) = boxed();
    let most = PAGES_MAX * rustix::param::page_size();
    fs::write(dir.path().join("inner/box/long"), vec![b'x'; most + 10]).unwrap();
    let read = async |offset, length| files.read("/box/long/".into(), offset, length).await.unwrap();
    let size = most as u64 + 10;
    let file = read(None, None).await.file;
    let end = Part { size, offset: size, data: Vec::new(), file };
    assert_eq!(read(None, None).await, end);
    assert_eq!(read(Some(0), None).await.data.len(), most);
    assert_eq!(read(Some(0), Some(u64::MAX)).await.data.len(), most);
    assert_eq!(read(Some(20), None).await.data.len(), most - 10);
    assert_eq!(read(Some(5), Some(7)).await.data, b"xxxxxxx");
    assert_eq!(read(Some(u64::MAX), Some(7)).await, end);
}

/// So that who follows one is not led astray.
#[tokio::test]
async fn a_file_is_known_under_another_name() {
    let (dir, files) = boxed();
    let sandbox = dir.path().join("inner/box");
    let first = whole_part(&files, "/box/stdout").await.file;
    fs::rename(sandbox.join("stdout"), sandbox.join("stdout.1")).unwrap();
    fs::write(sandbox.join("stdout"), "another").unwrap();
    assert_eq!(whole_part(&files, "/box/stdout.1").await.file, first);
    let second = whole_part(&files, "/box/stdout").await.file;
    assert_ne!(second, first);
    let (_, headers, _) = get(&files, What::Read, "path=/box/stdout&offset=0").await;
    assert_eq!(headers["muster-file"], second);
}

async fn whole_part(files: &Files, path: &str) -> Part {
    files.read(path.into(), Some(0), None).await.unwrap()
}

/// Asks as over HTTP.
async fn get(files: &Files, what: What, query: &str) -> (u16, HeaderMap, Vec<u8>) {
    let request = Request::get(format!("/files?{query}")).body(()).unwrap().into_parts().0;
    let (head, body) = answer(files, &Writers::default(), what, &request).await.into_parts();
    (head.status.as_u16(), head.headers, body.collect().await.unwrap().to_bytes().to_vec())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_as_mesos_gives_them() {
    let (dir, files) = boxed();
    fs::write(dir.path().join("inner/box/odd.txt"), b"a\"/\\\n\x01\xff\xc3\xa4").unwrap();
    for (what, query, code, text) in [
        (What::Browse, "", 400, "Expecting 'path=value' in query.\n"),
        (What::Read, "path=", 400, "Expecting 'path=value' in query.\n"),
        (What::Browse, "path=/", 404, ""),
        (What::Download, "path=/nope", 404, ""),
        (What::Browse, "path=/box/stdout", 200, "[]"),
        (What::Read, "path=/box", 400, "Cannot read a directory.\n"),
        (What::Download, "path=/box", 400, "Cannot download a directory.\n"),
        (What::Read, "path=/box/../secret", 400, "'/box/../secret' is inaccessible.\n"),
        (
            What::Read,
            "path=/box/stdout&offset=x",
            400,
            "Failed to parse offset: invalid digit found in string.\n",
        ),
        (What::Read, "path=/box/stdout&length=-2", 400, "Negative length provided: -2.\n"),
        (What::Read, "path=/box/stdout", 200, r#"{"data":"","offset":5}"#),
        (What::Read, "path=%2Fbox%2Fstdout&offset=1&length=3", 200, r#"{"data":"ell","offset":1}"#),
        (What::Read, "path=/box/stdout&offset=-1&jsonp=f", 200, r#"f({"data":"","offset":5})"#),
    ] {
        let (status, headers, body) = get(&files, what, query).await;
        assert_eq!((status, &*String::from_utf8_lossy(&body)), (code, text), "{query}");
        if code == 404 {
            assert_eq!(headers["content-type"], "text/plain; charset=utf-8");
        }
    }
    let (_, _, body) = get(&files, What::Read, "path=/box/odd.txt&offset=0").await;
    assert_eq!(body, b"{\"data\":\"a\\\"\\/\\\\\\n\\u0001\xff\xc3\xa4\",\"offset\":0}");
    let (_, headers, body) = get(&files, What::Download, "path=/box/odd.txt").await;
    assert_eq!(body, b"a\"/\\\n\x01\xff\xc3\xa4");
    assert_eq!(headers["content-disposition"], "attachment; filename=odd.txt");
    assert_eq!(headers["content-type"], "text/plain");

    let (_, _, body) = get(&files, What::Browse, "path=/box/").await;
    let listed: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let of = |key: &str| listed.as_array().unwrap().iter().map(|it| it[key].clone()).collect::<Vec<_>>();
    assert_eq!(of("path"), ["/box/odd.txt", "/box/stdout", "/box/sub"]);
    assert_eq!(of("size")[1], 5);
    assert!(of("mode")[2].as_str().unwrap().starts_with("drwx"), "{listed}");
    let (_, _, body) = get(&files, What::Debug, "").await;
    let all: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(all["/box"], dir.path().join("inner/box").display().to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_is_the_whole_file() {
    let (dir, files) = boxed();
    let long: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    fs::write(dir.path().join("inner/box/long"), &long).unwrap();
    let (_, headers, body) = get(&files, What::Download, "path=/box/long").await;
    assert!(body == long);
    assert_eq!(headers["content-type"], "application/octet-stream");
}

#[test]
fn modes_are_written_as_ls_does() {
    assert_eq!(mode_text(0o100755), "-rwxr-xr-x");
    assert_eq!(mode_text(0o40700), "drwx------");
    assert_eq!(mode_text(0o120777), "lrwxrwxrwx");
}
