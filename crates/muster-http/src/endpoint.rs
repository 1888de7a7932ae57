//! Which of the known paths a request is for.

use http::Uri;

/// Whom a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found<T> {
    /// What stands in the table.
    pub endpoint: T,
    /// The path names the process before the endpoint.
    pub is_prefixed: bool,
    /// It goes on below the endpoint.
    pub is_below: bool,
}

/// A request's path, as it is meant.
pub fn path(uri: &Uri) -> String {
    percent_encoding::percent_decode_str(uri.path()).decode_utf8_lossy().into_owned()
}

/// Finds a path in a table, with or without the name of the process that serves it (`/master`). A path that nobody serves
/// is served by the nearest one above it, as in Mesos.
pub fn find<T: Copy>(table: &[(&str, T)], process: &str, path: &str) -> Option<Found<T>> {
    let prefixed = path.strip_prefix(process).filter(|rest| rest.starts_with('/'));
    let whole = prefixed.unwrap_or(path).trim_end_matches('/');
    let mut path = whole;
    while !path.is_empty() {
        if let Some((_, endpoint)) = table.iter().find(|(known, _)| *known == path) {
            return Some(Found {
                endpoint: *endpoint,
                is_prefixed: prefixed.is_some(),
                is_below: path != whole,
            });
        }
        path = path.rsplit_once('/').map_or("", |(above, _)| above);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_above_serves() {
        let table = [("/api/v1", 1), ("/state", 2)];
        let found =
            |path| find(&table, "/slave(1)", path).map(|it| (it.endpoint, it.is_prefixed, it.is_below));
        assert_eq!(found("/api/v1/operator"), Some((1, false, true)));
        assert_eq!(found("/slave(1)/state/"), Some((2, true, false)));
        for none in ["/", "/slave(1)", "/slave(1)state", "/api", "//"] {
            assert_eq!(found(none), None, "{none}");
        }
        assert_eq!(path(&"/slave%281%29/state".parse().expect("a path")), "/slave(1)/state");
    }
}
