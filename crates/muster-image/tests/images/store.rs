//! What the store keeps, and what it refuses.

use super::{
    layout::{Made, dir, file, image, pack},
    pull, store,
};
use muster_image::{Digest, Keep, Settings, Store};
use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

fn app() -> Made {
    image(&[vec![dir("bin"), file("bin/run", "run")], vec![dir("srv"), file("srv/data", "data")]])
}

#[test]
fn every_form_of_an_image_is_the_same_image() {
    let at = tempfile::tempdir().unwrap();
    let path = |name: &str| at.path().join(name);
    let made = app();
    made.write_oci(&path("layout"), "1.0");
    made.write_docker(&path("saved.tar"), "team/app:1.0");
    pack(&path("layout"), &path("layout.tar"));
    let store = store(at.path());
    let at = at.path().display();
    let mut ids = BTreeSet::new();
    for name in [
        format!("oci:{at}/layout:1.0"),
        format!("oci:{at}/layout"),
        format!("oci-archive:{at}/layout.tar:1.0"),
        format!("docker-archive:{at}/saved.tar:team/app:1.0"),
        format!("docker-archive:{at}/saved.tar"),
    ] {
        let image = pull(&store, &name).unwrap();
        assert_eq!(image.config().cmd, ["/bin/run"], "{name}");
        assert_eq!(fs::read_to_string(image.layers()[1].content().join("srv/data")).unwrap(), "data");
        ids.insert((image.id().cloned(), image.used()));
    }
    assert_eq!(ids.len(), 1, "all are of the same layers");
    let kept = fs::read_dir(format!("{at}/store/layers")).unwrap().count();
    assert_eq!(kept, 2, "each layer is kept once");
    assert_eq!(fs::read_dir(format!("{at}/store/tmp")).unwrap().count(), 0);
    for (name, part) in [
        (format!("oci:{at}/layout:2.0"), "the layout has 1.0"),
        (format!("docker-archive:{at}/saved.tar:other:1"), "the archive has team/app:1.0"),
        (format!("oci:{at}/none:1"), "No such file"),
        ("oci:/etc:1".into(), "images.roots"),
        ("dir:/".into(), "images.roots"),
        (format!("dir:{at}/.."), "images.roots"),
    ] {
        let why = pull(&store, &name).unwrap_err().told();
        assert!(why.contains(part), "{name}: {why}");
    }
}

/// Of what is damaged nothing is kept.
#[test]
fn damage_is_found_and_named() {
    let at = tempfile::tempdir().unwrap();
    let layout = at.path().join("layout");
    let store = store(at.path());
    let made = app();
    let blob = |bytes: &[u8]| layout.join("blobs/sha256").join(Digest::of(bytes).hex());
    let name = format!("oci:{}:1", layout.display());
    let change = |bytes: &[u8]| {
        made.write_oci(&layout, "1");
        let mut other = bytes.to_vec();
        let middle = other.len() / 2;
        other[middle] ^= 1;
        fs::write(blob(bytes), &other).unwrap();
        pull(&store, &name).unwrap_err().told()
    };
    for document in [&made.manifest, &made.config] {
        let why = change(document);
        assert!(why.contains("was promised"), "{why}");
    }
    // What follows a packed layer counts, too.
    made.write_oci(&layout, "1");
    fs::write(blob(&made.blobs[0]), [&made.blobs[0][..], &super::layout::gzip(b"x")].concat()).unwrap();
    let why = pull(&store, &name).unwrap_err().told();
    assert!(why.contains("was promised"), "{why}");
    for (layer, kept) in made.blobs.iter().zip(0..) {
        change(layer);
        assert_eq!(fs::read_dir(at.path().join("store/layers")).unwrap().count(), kept);
    }
    assert_eq!(fs::read_dir(at.path().join("store/tmp")).unwrap().count(), 0);
    made.write_oci(&layout, "1");
    pull(&store, &name).unwrap();
}

#[test]
fn what_was_not_finished_goes_when_the_store_is_opened() {
    let at = tempfile::tempdir().unwrap();
    let layout = at.path().join("layout");
    app().write_oci(&layout, "1");
    let name = format!("oci:{}:1", layout.display());
    let first = store(at.path());
    let settings = || Settings { roots: vec![at.path().to_owned()], ..Settings::default() };
    let again = Store::open(&at.path().join("store"), settings());
    let why = again.unwrap_err().told();
    assert!(why.contains("for this agent alone"), "{why}");
    let diff_id = pull(&first, &name).unwrap().used()[0].clone();
    drop(first);
    fs::create_dir_all(at.path().join("store/tmp/7/fs/half")).unwrap();
    // A record that is damaged: the layer is made again.
    let record = at.path().join("store/layers").join(diff_id.hex()).join("layer.json");
    fs::write(&record, "{").unwrap();
    let second = store(at.path());
    assert_eq!(fs::read_dir(at.path().join("store/tmp")).unwrap().count(), 0);
    let image = pull(&second, &name).unwrap();
    assert!(image.layers()[0].content().join("bin/run").exists());
}

#[test]
fn layers_go_that_nothing_uses() {
    let at = tempfile::tempdir().unwrap();
    let (one, two) = (at.path().join("one"), at.path().join("two"));
    let base = vec![dir("base"), file("base/x", "x")];
    image(&[base.clone(), vec![file("one", "1")]]).write_oci(&one, "1");
    image(&[base, vec![file("two", "2")]]).write_oci(&two, "1");
    let store = store(at.path());
    let name = |path: &Path| format!("oci:{}:1", path.display());
    let (one, two) = (pull(&store, &name(&one)).unwrap(), pull(&store, &name(&two)).unwrap());
    let later = SystemTime::now() + Duration::from_secs(100);
    let keep = |seconds, free_bytes| Keep { unused: Duration::from_secs(seconds), free_bytes };
    let none = BTreeSet::new();
    let done = store.collect(&none, keep(10, 0), later).unwrap();
    assert_eq!((done.layers.len(), done.unused), (0, 3), "what is in somebody's hand stays");
    let (used, two_layer) = (one.used(), two.used()[1].clone());
    drop((one, two));
    let done = store.collect(&none, keep(1_000, 0), later).unwrap();
    assert_eq!(done.layers, [], "nothing is old");
    let containers: BTreeSet<Digest> = used.iter().cloned().collect();
    let done = store.collect(&containers, keep(10, 0), later).unwrap();
    assert_eq!(done.layers, [two_layer]);
    let images = || fs::read_dir(at.path().join("store/images")).unwrap().count();
    assert_eq!(images(), 1);
    let done = store.collect(&none, keep(1_000, u64::MAX), later).unwrap();
    assert_eq!((done.layers.len(), images()), (2, 0), "a full disk takes also what is not old");
}

/// Two that want the same layer at once unpack it once, and both have it.
#[test]
fn one_layer_is_unpacked_once() {
    let at = tempfile::tempdir().unwrap();
    let layout = at.path().join("layout");
    let files: Vec<_> = (0..500).map(|i| file(&format!("f{i}"), "content")).collect();
    image(&[files]).write_oci(&layout, "1");
    let store = store(at.path());
    let name = format!("oci:{}:1", layout.display());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let pulls: Vec<_> = (0..8)
            .map(|_| {
                let (store, name) = (store.clone(), name.clone());
                tokio::spawn(async move { store.pull(&name).await })
            })
            .collect();
        for pulled in pulls {
            let image = pulled.await.unwrap().unwrap();
            assert!(image.layers()[0].content().join("f499").exists());
        }
    });
    assert_eq!(fs::read_dir(at.path().join("store/layers")).unwrap().count(), 1);
    assert_eq!(fs::read_dir(at.path().join("store/tmp")).unwrap().count(), 0);
}
