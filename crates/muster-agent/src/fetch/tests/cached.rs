//! What is kept.

use super::{
    Bench, Cache, Fetched, Opened, cache,
    server::{Answer, server},
    uri,
};
use muster_proto::mesos::command_info::Uri;
use std::{
    fs,
    io::{self, Read},
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime},
};

fn kept(value: impl std::fmt::Display) -> Uri {
    Uri { cache: Some(true), ..uri(value) }
}

#[tokio::test]
async fn two_that_ask_at_once_have_one_download() {
    let bench = Bench::new(|_| {});
    let served = server(|_| Answer::whole(b"hello")).await;
    served.gate.forget_permits(usize::MAX);
    let uris =
        |name: &str| [Uri { output_file: Some(name.into()), ..kept(format!("http://{}/a", served.address)) }];
    let (one, other) = (uris("one"), uris("other"));
    let mut asked = served.asked.clone();
    let sandbox = bench.sandbox();
    let (first, second, _) = tokio::join!(
        bench.fetcher.fetch(&one, &sandbox, None),
        bench.fetcher.fetch(&other, &sandbox, None),
        async {
            // By now both were asked for: each went as far as it could before this began.
            asked.wait_for(|times| *times > 0).await.unwrap();
            served.gate.add_permits(2);
        }
    );
    assert_eq!((first, second), (Ok(()), Ok(())));
    assert_eq!(
        (bench.text("one").as_deref(), bench.text("other").as_deref()),
        (Some("hello"), Some("hello"))
    );
    assert_eq!(served.times(), 1);
    let counts = bench.fetcher.counts();
    assert_eq!(counts.cache_used.load(Ordering::Relaxed), 5);
    assert_eq!(counts.cache_total.load(Ordering::Relaxed), 1 << 20);
}

#[tokio::test]
async fn what_fails_is_not_kept_and_tried_again() {
    let bench = Bench::new(|_| {});
    let times = std::sync::atomic::AtomicUsize::new(0);
    let served = server(move |_| match times.fetch_add(1, Ordering::Relaxed) {
        0 => Answer::of(10, b"hello"),
        1 => Answer::none(),
        _ => Answer::whole(b"hello"),
    })
    .await;
    let at = || kept(format!("http://{}/a", served.address));
    for part in ["before all was there", "404"] {
        let why = bench.refused(at()).await;
        assert!(why.contains(part), "{why}");
        assert_eq!(bench.fetcher.counts().cache_used.load(Ordering::Relaxed), 0);
    }
    bench.fetch(at()).await.unwrap();
    bench.fetch(at()).await.unwrap();
    assert_eq!(served.times(), 3);
    // Another user's is another, and so is what is not to be kept.
    bench.fetch(uri(at().value)).await.unwrap();
    assert_eq!(served.times(), 4);
    assert_ne!(cache::key("a", None), cache::key("a", Some((1, 1))));
}

#[tokio::test]
async fn what_is_longer_than_the_cache_is_fetched_without_it() {
    let bench = Bench::new(|config| config.fetch_mb_max = 4);
    let served = server(|path| match path {
        "/chunked" => Answer::chunked(&vec![b'x'; 2 << 20]),
        _ => Answer::whole(&vec![b'x'; 2 << 20]),
    })
    .await;
    for name in ["whole", "chunked"] {
        bench.fetch(kept(format!("http://{}/{name}", served.address))).await.unwrap();
        assert_eq!(bench.text(name).unwrap().len(), 2 << 20);
    }
    assert_eq!(bench.fetcher.counts().cache_used.load(Ordering::Relaxed), 0);
    let none = Bench::new(|config| config.fetch_cache_mb = 0);
    let times = served.times();
    for _ in 0..2 {
        let small = server(|_| Answer::whole(b"hello")).await;
        none.fetch(kept(format!("http://{}/small", small.address))).await.unwrap();
        assert_eq!(none.text("small").as_deref(), Some("hello"));
    }
    assert_eq!(served.times(), times);
}

#[tokio::test]
async fn an_archive_is_unpacked_from_where_it_is_kept() {
    let bench = Bench::new(|_| {});
    let from = bench.dir.path().join("text.gz");
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    io::Write::write_all(&mut encoder, b"hello").unwrap();
    fs::write(&from, encoder.finish().unwrap()).unwrap();
    bench.fetch(kept(from.display())).await.unwrap();
    // From now on only the cache has it.
    fs::remove_file(&from).unwrap();
    fs::remove_file(bench.sandbox().join("text")).unwrap();
    bench.fetch(kept(from.display())).await.unwrap();
    assert_eq!((bench.text("text").as_deref(), bench.text("text.gz")), (Some("hello"), None));
    let again = Uri { extract: Some(false), ..kept(from.display()) };
    bench.fetch(again).await.unwrap();
    assert!(bench.sandbox().join("text.gz").exists());
}

fn open(dir: &Path, bytes_max: u64) -> (Arc<Cache>, Arc<Fetched>) {
    let counts = Arc::<Fetched>::default();
    (Cache::open(dir, bytes_max, counts.clone()).unwrap(), counts)
}

/// Keeps a file of so many bytes.
fn fill(cache: &Arc<Cache>, key: &str, bytes: u64) -> Option<cache::Entry> {
    let room = cache.room(key.to_owned(), bytes)?;
    let read = Box::new(io::repeat(b'x').take(bytes));
    Some(room.fill(Opened { bytes: Some(bytes), mode: 0o644, read }).unwrap())
}

fn name(of: char) -> String {
    of.to_string().repeat(64)
}

#[test]
fn what_was_used_longest_ago_goes_first_and_nothing_that_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let (cache, counts) = open(dir.path(), 10);
    for key in ['a', 'b', 'c'] {
        fill(&cache, &name(key), 3).unwrap();
    }
    drop(cache.find(&name('a')).unwrap());
    let held = fill(&cache, &name('d'), 3).unwrap();
    assert!(cache.find(&name('b')).is_none(), "b was used longest ago");
    assert!(!dir.path().join(name('b')).exists());
    // All but what is held would go for this, and it would not do.
    assert!(fill(&cache, &name('e'), 8).is_none());
    assert!(cache.find(&name('a')).is_some() && cache.find(&name('c')).is_some());
    assert!(fill(&cache, &name('e'), 7).is_some());
    assert_eq!(counts.cache_used.load(Ordering::Relaxed), 10);
    let mut text = String::new();
    held.file().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "xxx");
    drop(held);
    assert!(fill(&cache, &name('f'), 10).is_some());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_restart_finds_what_is_whole_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (cache, _) = open(dir.path(), 100);
    for (key, age) in [('a', 30), ('b', 10), ('c', 20)] {
        let entry = fill(&cache, &name(key), 10).unwrap();
        entry.file().unwrap().set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
    }
    // Cut off while it was written, by the end of this process or of the machine.
    std::mem::forget(cache.room(name('d'), 5).unwrap());
    fs::write(dir.path().join("new-99"), "torn").unwrap();
    fs::create_dir(dir.path().join("dir")).unwrap();
    let (cache, counts) = open(dir.path(), 25);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    assert_eq!(counts.cache_used.load(Ordering::Relaxed), 20);
    assert!(cache.find(&name('a')).is_none(), "the oldest went, since there is less room now");
    assert!(cache.find(&name('b')).is_some() && cache.find(&name('c')).is_some());
    // Removed by somebody else: it is fetched again.
    fs::remove_file(dir.path().join(name('b'))).unwrap();
    assert!(cache.find(&name('b')).is_none());
    assert_eq!(counts.cache_used.load(Ordering::Relaxed), 10);
}
