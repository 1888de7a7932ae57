//! The sandboxes and the log that an agent shows: each sandbox by its own path, as `/state` tells it, and by the names
//! that Mesos has for it. All of it is looked up on the disk, so that what is over is shown as long as it is kept.
//!
//! ```text
//! <work-dir>/sandboxes/<framework>/<executor or task>/<launch>
//! /agents/<agent>/frameworks/<framework>/executors/<executor or task>/runs/<container>
//! /frameworks/<framework>/executors/<executor or task>/runs/latest
//! ```

use super::about::About;
use crate::history::Shown;
use muster_http::files::{Exposes, Place, below, is_name};
use muster_model::{LaunchNumber, VolumeMount};
use muster_proto::executor_api::container_id;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The most sandboxes that are listed at once.
const LISTED_MAX: usize = 50_000;
/// The path of the log.
pub(super) const LOG: &str = "/slave/log";
/// Stands for the newest run.
const LATEST: &str = "latest";

/// What an agent shows.
pub(super) struct Exposed {
    sandboxes: PathBuf,
    volumes: PathBuf,
    log: Option<PathBuf>,
    shown: Shown,
}

/// What a path stands for.
struct At<'a> {
    framework: &'a str,
    name: &'a str,
    run: LaunchNumber,
    /// What is left of it below the sandbox: no empty names, and none that stand for the directory they are in.
    rest: Vec<&'a str>,
}

impl Exposed {
    pub(super) fn of(about: &About, shown: Shown) -> Self {
        let (sandboxes, volumes) = (about.sandboxes.clone(), about.volumes.clone());
        Self { sandboxes, volumes, log: about.log_file.clone(), shown }
    }

    /// The framework of a path, the executor or task, and which run of that; none if nothing is shown there.
    pub(super) fn whose<'a>(&self, path: &'a str) -> Option<(&'a str, &'a str, LaunchNumber)> {
        self.at(path.trim_end_matches('/')).map(|at| (at.framework, at.name, at.run))
    }

    /// The runs of one name that have a sandbox, by launch.
    fn runs(&self, framework: &str, name: &str) -> Vec<LaunchNumber> {
        let mut runs: Vec<LaunchNumber> = names(&self.sandboxes.join(framework).join(name))
            .iter()
            .take(LISTED_MAX)
            .filter_map(|run| run.parse().ok())
            .collect();
        runs.sort();
        runs
    }

    /// By the path of a sandbox on the disk.
    fn real<'a>(&self, parts: &[&'a str]) -> Option<At<'a>> {
        let [framework, name, run, rest @ ..] = parts else { return None };
        if !(is_name(framework) && is_name(name)) {
            return None;
        }
        let run = match *run {
            LATEST => *self.runs(framework, name).last()?,
            run => run.parse::<LaunchNumber>().ok()?,
        };
        let rest = rest.iter().copied().filter(|name| !matches!(*name, "" | ".")).collect();
        Some(At { framework, name, run, rest })
    }

    /// By the names of Mesos.
    fn named<'a>(&self, parts: &[&'a str]) -> Option<At<'a>> {
        let parts = match parts {
            ["agents" | "slaves", _, rest @ ..] => rest,
            parts => parts,
        };
        let ["frameworks", framework, "executors", name, "runs", run, rest @ ..] = parts else { return None };
        let mut at = self.real(&[&[*framework, *name, LATEST], rest].concat())?;
        if *run != LATEST {
            at.run = self.runs(framework, name).into_iter().find(|it| container_id(*it) == *run)?;
        }
        Some(at)
    }

    fn at<'a>(&self, path: &'a str) -> Option<At<'a>> {
        match below(path, &self.sandboxes) {
            Some(rest) => self.real(&rest.split('/').collect::<Vec<_>>()),
            None => self.named(&path.strip_prefix('/')?.split('/').collect::<Vec<_>>()),
        }
    }

    /// The volumes that are used in a sandbox, as this agent knows them: what is there of them is links, which a task
    /// may have made as well. With what each path has between its slashes.
    fn volumes<'a>(&self, at: &At<'_>, of: &'a mut Vec<VolumeMount>) -> Vec<(Vec<&'a str>, Place)> {
        *of = self.shown.volumes(at.framework, at.name, at.run);
        let place = |volume: &'a VolumeMount| {
            let names = volume.container_path.split('/').filter(|name| !matches!(*name, "" | "."));
            let (within, root) = (self.volumes.clone(), volume.number.to_string());
            (names.collect(), Place::Dir { within, root, rest: String::new() })
        };
        of.iter().map(place).collect()
    }
}

impl Exposes for Exposed {
    fn find(&self, path: &str) -> Option<Place> {
        if path == LOG {
            return self.log.clone().map(Place::File);
        }
        let at = self.at(path)?;
        let mut volumes = Vec::new();
        let mut seen = self.volumes(&at, &mut volumes);
        seen.sort_by_key(|(names, _)| std::cmp::Reverse(names.len())); // one may be seen within another
        for (names, place) in seen {
            if let (Some(left), Place::Dir { within, root, .. }) = (at.rest.strip_prefix(&*names), place) {
                return Some(Place::Dir { within, root, rest: left.join("/") });
            }
        }
        let root = format!("{}/{}/{}", at.framework, at.name, at.run);
        Some(Place::Dir { within: self.sandboxes.clone(), root, rest: at.rest.join("/") })
    }

    fn entries(&self, path: &str) -> Vec<(String, Place)> {
        let Some(at) = self.at(path) else { return Vec::new() };
        let mut volumes = Vec::new();
        let here = self.volumes(&at, &mut volumes).into_iter().filter_map(|(names, place)| {
            let (name, above) = names.split_last()?;
            (above == at.rest).then(|| ((*name).to_owned(), place))
        });
        here.collect()
    }

    fn all(&self) -> Vec<(String, PathBuf)> {
        let mut all: Vec<_> = self.log.iter().map(|log| ("/slave/log".to_owned(), log.clone())).collect();
        for framework in names(&self.sandboxes) {
            for name in names(&self.sandboxes.join(&framework)) {
                let of = self.sandboxes.join(&framework).join(&name);
                let runs = self.runs(&framework, &name);
                for run in &runs {
                    let real = of.join(run.to_string());
                    all.push((real.display().to_string(), real));
                }
                if let Some(run) = runs.last() {
                    let latest = format!("/frameworks/{framework}/executors/{name}/runs/{LATEST}");
                    all.push((latest, of.join(run.to_string())));
                }
                if all.len() >= LISTED_MAX {
                    return all;
                }
            }
        }
        all
    }
}

/// The entries of a directory that are directories themselves.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|it| it.is_dir()));
    directories.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::History;

    #[test]
    fn a_sandbox_has_several_names_and_nothing_else_has_one() {
        let dir = tempfile::tempdir().unwrap();
        let sandboxes = dir.path().join("sandboxes");
        for run in ["1.9.0", "1.10.0", "1.2.3"] {
            fs::create_dir_all(sandboxes.join("f/t").join(run)).unwrap();
        }
        std::os::unix::fs::symlink("1.9.0", sandboxes.join("f/t/1.99.0")).unwrap();
        fs::write(dir.path().join("secret"), "x").unwrap();
        let exposed = Exposed {
            sandboxes: sandboxes.clone(),
            volumes: dir.path().join("volumes"),
            log: Some("/var/log/m".into()),
            shown: Shown::new(History::default()),
        };
        let found = |path: &str| match exposed.find(path) {
            Some(Place::Dir { within, root, rest }) => {
                assert_eq!(within, sandboxes);
                Some((root, rest))
            }
            Some(Place::File(_)) | None => None,
        };
        let own = |rest: &str| format!("{}/f/t/1.9.0{rest}", sandboxes.display());
        let run = |run: &str, rest: &str| Some((format!("f/t/{run}"), rest.to_owned()));
        let container = container_id("1.9.0".parse().unwrap());
        for (path, place) in [
            (own(""), run("1.9.0", "")),
            (own("/a/b"), run("1.9.0", "a/b")),
            (own("/../1.2.3/x"), run("1.9.0", "../1.2.3/x")), // which leads nowhere
            (format!("{}/f/t/latest/x", sandboxes.display()), run("1.10.0", "x")),
            (format!("/agents/any/frameworks/f/executors/t/runs/{container}/x"), run("1.9.0", "x")),
            (format!("/slaves/any/frameworks/f/executors/t/runs/{container}"), run("1.9.0", "")),
            ("/frameworks/f/executors/t/runs/latest/stdout".into(), run("1.10.0", "stdout")),
            ("/frameworks/f/executors/t/runs/other".into(), None),
            ("/frameworks/f/executors/../runs/latest".into(), None),
            ("/frameworks/../executors/t/runs/latest".into(), None),
            (format!("{}/f/t", sandboxes.display()), None),
            (format!("{}/../secret", sandboxes.display()), None),
            (format!("{}/../../1.9.0/x", sandboxes.display()), None),
            (format!("{}/f/../1.9.0/x", sandboxes.display()), None),
            (format!("{}/f/t/../x", sandboxes.display()), None),
            (format!("{}/f/t/meta", sandboxes.display()), None),
            (dir.path().join("secret").display().to_string(), None),
            (sandboxes.display().to_string(), None),
            ("/".into(), None),
            (String::new(), None),
        ] {
            assert_eq!(found(&path), place, "{path}");
        }
        assert_eq!(exposed.find("/slave/log"), Some(Place::File("/var/log/m".into())));
        assert_eq!(exposed.find("/slave/log/x"), None);
        let all = exposed.all();
        assert_eq!(all.len(), 5);
        assert!(
            all.contains(&("/frameworks/f/executors/t/runs/latest".into(), sandboxes.join("f/t/1.10.0")))
        );
    }
}
