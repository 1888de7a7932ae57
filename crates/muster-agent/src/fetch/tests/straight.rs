//! What is fetched without the cache.

use super::{
    Bench,
    server::{Answer, secured, server},
    uri,
};
use flate2::{Compression, write::GzEncoder};
use muster_image::Digest;
use muster_proto::mesos::command_info::Uri;
use std::{
    fs,
    io::Write,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    time::Duration,
};

fn tarred(name: &str, content: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o4755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_cksum();
    let mut archive = tar::Builder::new(Vec::new());
    archive.append(&header, content).unwrap();
    archive.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A zip archive of one file that says hello, not compressed.
fn zipped(name: &str) -> Vec<u8> {
    let (crc, length) = (0x3610_a686_u32.to_le_bytes(), 5_u32.to_le_bytes());
    let name_length = u16::try_from(name.len()).unwrap().to_le_bytes();
    let about = [&[0; 8][..], &crc, &length, &length, &name_length, &[0; 2]].concat();
    let local = [b"PK\x03\x04\x0a\x00", &about[..], name.as_bytes(), b"hello"].concat();
    let central = [b"PK\x01\x02\x0a\x00\x0a\x00", &about[..], &[0; 14], name.as_bytes()].concat();
    let sizes = [central.len(), local.len()].map(|size| u32::try_from(size).unwrap().to_le_bytes()).concat();
    let end = [b"PK\x05\x06\0\0\0\0\x01\0\x01\0", &sizes[..], &[0; 2]].concat();
    [local, central, end].concat()
}

#[tokio::test]
async fn files_of_this_machine_are_copied() {
    let bench = Bench::new(|_| {});
    let tool = bench.dir.path().join("tool");
    fs::write(&tool, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o640)).unwrap();
    let mode = |name: &str| fs::metadata(bench.sandbox().join(name)).unwrap().mode() & 0o7777;
    bench.fetch(uri(tool.display())).await.unwrap();
    assert_eq!((bench.text("tool").as_deref(), mode("tool")), (Some("#!/bin/sh\n"), 0o640));
    let named = Uri {
        executable: Some(true),
        output_file: Some("bin/run".into()),
        ..uri(format!("file://{}", tool.display()))
    };
    bench.fetch(named).await.unwrap();
    assert_eq!((mode("bin/run"), mode("bin")), (0o755, 0o755));
    for (value, part) in [
        (bench.dir.path().join("none"), "none': No such file"),
        (bench.dir.path().to_owned(), "no regular file"),
    ] {
        let why = bench.refused(Uri { output_file: Some("x".into()), ..uri(value.display()) }).await;
        assert!(why.contains(part), "{why}");
    }
    fs::write(&tool, vec![0; (1 << 20) + 1]).unwrap();
    let why = bench.refused(uri(tool.display())).await;
    assert!(why.contains("more than 1 MB") && why.contains("fetch-mb-max"), "{why}");
}

#[tokio::test]
async fn a_file_replaces_what_is_there_and_is_not_written_through_links() {
    let bench = Bench::new(|_| {});
    let (from, other) = (bench.dir.path().join("a"), bench.dir.path().join("other"));
    fs::write(&from, "new").unwrap();
    fs::create_dir(&other).unwrap();
    fs::write(other.join("a"), "old").unwrap();
    fs::create_dir(bench.sandbox()).unwrap();
    symlink(other.join("a"), bench.sandbox().join("a")).unwrap();
    symlink(&other, bench.sandbox().join("dir")).unwrap();
    bench.fetch(uri(from.display())).await.unwrap();
    assert_eq!(bench.text("a").as_deref(), Some("new"));
    let why = bench.refused(Uri { output_file: Some("dir/a".into()), ..uri(from.display()) }).await;
    assert!(why.contains("goes through \"dir\""), "{why}");
    assert_eq!(fs::read_to_string(other.join("a")).unwrap(), "old");
}

#[tokio::test]
async fn archives_are_unpacked_unless_they_are_not_to_be() {
    let bench = Bench::new(|_| {});
    let served = server(|path| match path {
        "/a.tgz" => Answer::whole(&gzip(&tarred("d/inner", b"hello"))),
        "/a.zip" => Answer::whole(&zipped("zipped")),
        "/text.gz" => Answer::whole(&gzip(b"hello")),
        "/bad.tar" => Answer::whole(&tarred("../out", b"hello")),
        "/large.gz" => Answer::whole(&gzip(&vec![0; 3 << 20])),
        "/large.tgz" => Answer::whole(&gzip(&tarred("zeros", &vec![0; 3 << 20]))),
        _ => Answer::whole(b"no archive"),
    })
    .await;
    let at = |name: &str| uri(format!("http://{}/{name}", served.address));
    for (name, inner) in [("a.tgz", "d/inner"), ("a.zip", "zipped"), ("text.gz", "text")] {
        bench.fetch(Uri { extract: Some(false), ..at(name) }).await.unwrap();
        assert_eq!(bench.text(inner), None, "{name}");
        bench.fetch(at(name)).await.unwrap();
        assert_eq!(bench.text(inner).as_deref(), Some("hello"), "{name}");
        assert!(bench.sandbox().join(name).exists(), "{name} stays beside what was in it");
    }
    let mode = fs::metadata(bench.sandbox().join("d/inner")).unwrap().mode();
    assert_eq!(mode & 0o7777, 0o755, "no rights come with an archive");
    let small = Bench::new(|config| config.fetch_unpacked_mb_max = 1);
    for (bench, name, part) in [
        (&bench, "bad.tar", ".. in its name"),
        (&bench, "none.tar", "cannot read the archive"),
        (&small, "large.gz", "fetch-unpacked-mb-max"),
        (&small, "large.tgz", "fetch-unpacked-mb-max"),
    ] {
        let why = bench.refused(at(name)).await;
        assert!(why.contains(part) && why.contains(name), "{name}: {why}");
    }
    assert!(!bench.dir.path().join("out").exists());
}

#[tokio::test]
async fn a_server_is_followed_so_far() {
    let bench = Bench::new(|_| {});
    let served = server(|path| match path {
        "/a" => Answer::elsewhere("/there"),
        "/there" => Answer::whole(b"hello"),
        "/file" => Answer::elsewhere("file:///etc/passwd"),
        "/again" => Answer::elsewhere("again"),
        _ => Answer::none(),
    })
    .await;
    let at = |name: &str| uri(format!("http://me:pass%21@{}/{name}", served.address));
    bench.fetch(at("a")).await.unwrap();
    assert_eq!(bench.text("a").as_deref(), Some("hello"));
    // base64 of me:pass!
    assert!(served.last.lock().unwrap().to_lowercase().contains("authorization: basic bwu6cgfzcye="));
    for (name, part) in
        [("b", "404"), ("file", "a path of this machine"), ("again", "elsewhere more than 5 times")]
    {
        let why = bench.refused(at(name)).await;
        assert!(why.contains(part) && !why.contains("pass%21"), "{why}");
    }
}

#[tokio::test]
async fn what_is_not_whole_or_not_what_was_named_fails() {
    let bench = Bench::new(|config| config.fetch_ms_max = 60_000);
    let served = server(|path| match path {
        "/half" => Answer::of(10, b"hello"),
        "/long" => Answer::of(2 << 20, b"hello"),
        // It would never end.
        "/endless" => Answer {
            stays: true,
            text: {
                let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n200000\r\n";
                [&head[..], &vec![0; 2 << 20]].concat()
            },
        },
        _ => Answer::whole(b"hello"),
    })
    .await;
    let at = |name: &str| uri(format!("http://{}/{name}", served.address));
    let right = Digest::of(b"hello").hex();
    bench.fetch(at(&format!("right#sha256={right}"))).await.unwrap();
    assert_eq!(bench.text("right").as_deref(), Some("hello"));
    let wrong = format!("wrong#sha256={}", Digest::of(b"other").hex());
    for (name, parts) in [
        ("half", &["before all was there"] as &[_]),
        ("long", &["fetch-mb-max"]),
        ("endless", &["fetch-mb-max"]),
        (wrong.as_str(), &["its digest is", right.as_str()]),
    ] {
        let why = bench.refused(at(name)).await;
        assert!(parts.iter().all(|part| why.contains(part)), "{name}: {why}");
        assert_eq!(bench.text(name.split('#').next().unwrap()), None, "{name}: a part of it stays");
    }
    assert_eq!(bench.fetcher.counts().failed.load(std::sync::atomic::Ordering::Relaxed), 4);
}

#[tokio::test]
async fn a_server_that_stands_still_is_given_up() {
    let bench = Bench::new(|config| (config.fetch_ms_max, config.fetches_max) = (300, 1));
    let served = server(|_| Answer { stays: true, ..Answer::of(10, b"hello") }).await;
    let why = bench.refused(uri(format!("http://{}/a", served.address))).await;
    assert!(why.contains("within 300 ms"), "{why}");
    // Whoever wrote it has ended, and took it away; and somebody else may have a turn.
    tokio::time::timeout(Duration::from_secs(30), async {
        while bench.text("a").is_some() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    assert_eq!(bench.fetcher.turns.available_permits(), 1);
}

#[tokio::test]
async fn a_server_is_trusted_by_its_certificate_alone() {
    let plain = server(|_| Answer::whole(b"plain")).await;
    let to = format!("http://{}/plain", plain.address);
    let (served, certificate) = secured(move |path| match path {
        "/down" => Answer::elsewhere(&to),
        _ => Answer::whole(b"hello"),
    })
    .await;
    let at = |name: &str| uri(format!("https://localhost:{}/{name}", served.address.port()));
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, certificate).unwrap();
    let bench = Bench::new(|config| config.fetch_ca_file = file.path().to_owned());
    bench.fetch(at("a")).await.unwrap();
    assert_eq!(bench.text("a").as_deref(), Some("hello"));
    let why = bench.refused(at("down")).await;
    assert!(why.contains("from https to plain http"), "{why}");
    bench.fetch(at(&format!("down#sha256={}", Digest::of(b"plain").hex()))).await.unwrap();
    assert_eq!(bench.text("down").as_deref(), Some("plain"));
    // Another name than that of the certificate.
    let why = bench.refused(uri(format!("https://{}/a", served.address))).await;
    assert!(why.contains("no TLS with 127.0.0.1"), "{why}");
    let (others, _) = secured(|_| Answer::whole(b"hello")).await;
    let why = bench.refused(uri(format!("https://localhost:{}/x", others.address.port()))).await;
    assert!(why.contains("no TLS with localhost"), "{why}");
    assert_eq!(others.times(), 0);
}

#[tokio::test]
async fn a_file_that_the_user_may_not_read_is_not_fetched() {
    let bench = Bench::new(|_| {});
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root fetches for other users");
        return;
    }
    let dir = bench.dir.path();
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(dir.join("ours"), "secret").unwrap();
    fs::set_permissions(dir.join("ours"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(dir.join("all.tar"), tarred("d/inner", b"hello")).unwrap();
    let user = Some((65_534, 65_534));
    let sandbox = bench.sandbox();
    for cache in [false, true] {
        let uris = [Uri { cache: Some(cache), ..uri(dir.join("ours").display()) }];
        let why = bench.fetcher.fetch(&uris, &sandbox, user).await.unwrap_err();
        assert!(why.contains("Permission denied"), "{why}");
        let uris = [Uri { cache: Some(cache), ..uri(dir.join("all.tar").display()) }];
        bench.fetcher.fetch(&uris, &sandbox, user).await.unwrap();
        for name in ["d/inner", "d"] {
            assert_eq!(fs::metadata(sandbox.join(name)).unwrap().uid(), 65_534, "{name}");
        }
        fs::remove_dir_all(sandbox.join("d")).unwrap();
    }
    // Nobody else has become another.
    assert!(fs::read(dir.join("ours")).is_ok());
}

#[test]
fn a_wrong_file_of_certificates_is_said_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.pem");
    let open = || {
        let config = crate::AgentConfig { fetch_ca_file: path.clone(), ..Default::default() };
        super::Fetcher::open(&config, dir.path()).map(drop).unwrap_err().to_string()
    };
    let none = open();
    fs::write(&path, "no certificate").unwrap();
    for error in [none, open()] {
        assert!(error.contains("fetch-ca-file") && error.contains("ca.pem"), "{error}");
    }
}
