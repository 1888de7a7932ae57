//! The sandboxes and the log that an agent shows: each sandbox by its own path, as `/state` tells it, and by the names
//! that Mesos has for it. All of it is looked up on the disk, so that what is over is shown as long as it is kept.
//!
//! ```text
//! <work-dir>/sandboxes/<framework>/<executor or task>/<launch>
//! /agents/<agent>/frameworks/<framework>/executors/<executor or task>/runs/<container>
//! /frameworks/<framework>/executors/<executor or task>/runs/latest
//! ```

use super::about::About;
use muster_http::files::{Exposes, Place, below, is_name};
use muster_model::LaunchNumber;
use muster_proto::executor_api::container_id;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The most sandboxes that are listed at once.
const LISTED_MAX: usize = 50_000;
/// Stands for the newest run.
const LATEST: &str = "latest";

/// What an agent shows.
#[derive(Debug)]
pub(super) struct Exposed {
    sandboxes: PathBuf,
    log: Option<PathBuf>,
}

impl Exposed {
    pub(super) fn of(about: &About) -> Self {
        Self { sandboxes: about.sandboxes.clone(), log: about.log_file.clone() }
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

    fn place(&self, [framework, name, run]: [&str; 3], rest: &[&str]) -> Option<Place> {
        if !(is_name(framework) && is_name(name)) {
            return None;
        }
        let run = match run {
            LATEST => *self.runs(framework, name).last()?,
            run => run.parse::<LaunchNumber>().ok()?,
        };
        let root = format!("{framework}/{name}/{run}");
        Some(Place::Dir { within: self.sandboxes.clone(), root, rest: rest.join("/") })
    }

    /// By the names of Mesos.
    fn named(&self, parts: &[&str]) -> Option<Place> {
        let parts = match parts {
            ["agents" | "slaves", _, rest @ ..] => rest,
            parts => parts,
        };
        let ["frameworks", framework, "executors", name, "runs", run, rest @ ..] = parts else { return None };
        if !(is_name(framework) && is_name(name)) {
            return None;
        }
        let launch = match *run {
            LATEST => None,
            container => {
                Some(self.runs(framework, name).into_iter().find(|it| container_id(*it) == container)?)
            }
        };
        let launch = launch.map_or_else(|| LATEST.to_owned(), |launch| launch.to_string());
        self.place([framework, name, &launch], rest)
    }
}

impl Exposes for Exposed {
    fn find(&self, path: &str) -> Option<Place> {
        if path == "/slave/log" {
            return self.log.clone().map(Place::File);
        }
        if let Some(rest) = below(path, &self.sandboxes) {
            let parts: Vec<&str> = rest.split('/').collect();
            let [framework, name, run, rest @ ..] = parts.as_slice() else { return None };
            return self.place([framework, name, run], rest);
        }
        let parts: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
        self.named(&parts)
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

    #[test]
    fn a_sandbox_has_several_names_and_nothing_else_has_one() {
        let dir = tempfile::tempdir().unwrap();
        let sandboxes = dir.path().join("sandboxes");
        for run in ["1.9.0", "1.10.0", "1.2.3"] {
            fs::create_dir_all(sandboxes.join("f/t").join(run)).unwrap();
        }
        std::os::unix::fs::symlink("1.9.0", sandboxes.join("f/t/1.99.0")).unwrap();
        fs::write(dir.path().join("secret"), "x").unwrap();
        let exposed = Exposed { sandboxes: sandboxes.clone(), log: Some("/var/log/m".into()) };
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
