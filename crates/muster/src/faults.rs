//! Faults on purpose, in a build with the feature `faults`: what the environment plants and sets at the start, and the
//! debug endpoint that sets fail points later.
//!
//! ```text
//! GET    /fail-points         every point: its name, where it is, what it is set to, how often it was reached and fired
//! PUT    /fail-points/NAME    the body is a setting: error, delay=50, panic or crash, then ,chance= ,after= ,count= ,seed=
//! DELETE /fail-points/NAME    it lets everybody pass again
//! POST   /time/advance        the body is a number of ms, at most an hour: the next entry that this master writes as a
//!                             leader is so much later, and what expires by then does
//! GET    /bugs                every bug that can be planted, and whether it is
//! ```

use anyhow::{Context, bail};
use axum::{
    Json, Router,
    extract::Path,
    http::StatusCode,
    routing::{get, post, put},
};
use muster_fault::{Bug, Point, Setting};
use serde_json::{Value, json};
use std::net::{SocketAddr, TcpListener};

/// Names a bug to plant.
const PLANT: &str = "MUSTER_PLANT";
/// Names fail points to set, `POINT:SETTING` separated by semicolons.
const POINTS: &str = "MUSTER_FAIL_POINTS";
/// Names the loopback address of the debug endpoint; without it there is none.
const ADDRESS: &str = "MUSTER_DEBUG_ADDRESS";

/// The furthest that time can be advanced at once.
const ADVANCE_MS_MAX: u64 = 60 * 60 * 1_000;

fn named(variable: &str) -> anyhow::Result<Option<String>> {
    match std::env::var(variable) {
        Ok(text) if text.is_empty() => Ok(None),
        Ok(text) => Ok(Some(text)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {variable}")),
    }
}

/// Does what the environment says. Called within the runtime, before anything is served.
pub(crate) fn start() -> anyhow::Result<()> {
    if let Some(name) = named(PLANT)? {
        let bug: Bug = name.parse().map_err(|why: String| anyhow::anyhow!(why).context(PLANT))?;
        muster_fault::plant(bug);
        tracing::warn!(%bug, about = bug.about(), "a bug is planted in this process");
    }
    set_points()?;
    if let Some(text) = named(ADDRESS)? {
        let address: SocketAddr =
            text.parse().with_context(|| format!("{ADDRESS}={text:?} is no address"))?;
        if !address.ip().is_loopback() {
            bail!(
                "{ADDRESS}={text}: whoever reaches the debug endpoint can break this process, so it must be a loopback address"
            );
        }
        let listener =
            TcpListener::bind(address).with_context(|| format!("cannot listen at {ADDRESS}={text}"))?;
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        tracing::warn!(address = %listener.local_addr()?, "fail points can be set at this address");
        tokio::spawn(async move { axum::serve(listener, router()).await });
    }
    Ok(())
}

/// Sets the fail points that the environment names: all that there is for a supervisor, which has its agent's.
pub(crate) fn set_points() -> anyhow::Result<()> {
    if let Some(text) = named(POINTS)? {
        for (point, setting) in muster_fault::settings(&text).context(POINTS)? {
            set(point, Some(setting));
        }
    }
    Ok(())
}

fn set(point: Point, setting: Option<Setting>) {
    match setting {
        Some(setting) => tracing::warn!(%point, %setting, "a fail point is set"),
        None => tracing::warn!(%point, "a fail point is off"),
    }
    muster_fault::set(point, setting);
}

fn router() -> Router {
    Router::new()
        .route("/fail-points", get(list))
        .route("/fail-points/{name}", put(set_named).delete(clear_named))
        .route("/time/advance", post(advance))
        .route("/bugs", get(bugs))
}

async fn list() -> Json<Value> {
    let one = |it: muster_fault::Standing| {
        json!({
            "name": it.point.name(),
            "about": it.point.about(),
            "setting": it.setting.map(|setting| setting.to_string()),
            "reached": it.reached,
            "fired": it.fired,
        })
    };
    Json(muster_fault::standing().into_iter().map(one).collect())
}

async fn bugs() -> Json<Value> {
    let one = |bug: &Bug| json!({"name": bug.name(), "about": bug.about(), "planted": muster_fault::is_planted(*bug)});
    Json(Bug::ALL.iter().map(one).collect())
}

type Answer = Result<StatusCode, (StatusCode, String)>;

async fn set_named(Path(name): Path<String>, body: String) -> Answer {
    let point = point(&name)?;
    let setting = body.trim().parse().map_err(|why| (StatusCode::BAD_REQUEST, format!("{why}\n")))?;
    set(point, Some(setting));
    Ok(StatusCode::NO_CONTENT)
}

async fn clear_named(Path(name): Path<String>) -> Answer {
    set(point(&name)?, None);
    Ok(StatusCode::NO_CONTENT)
}

async fn advance(body: String) -> Answer {
    let ms = body.trim().parse().ok().filter(|ms| *ms <= ADVANCE_MS_MAX);
    let help =
        || (StatusCode::BAD_REQUEST, format!("{body:?}: write a number of ms, at most {ADVANCE_MS_MAX}\n"));
    let ms = ms.ok_or_else(help)?;
    tracing::warn!(ms, "time is advanced");
    muster_fault::advance(ms);
    Ok(StatusCode::NO_CONTENT)
}

fn point(name: &str) -> Result<Point, (StatusCode, String)> {
    name.parse().map_err(|why| (StatusCode::NOT_FOUND, format!("{why}\n")))
}
