//! Who asks, and whether it may: authentication by credentials or tokens, authorization by Mesos' ACLs. All of it is off
//! unless it is configured.
//!
//! # Laws
//! - Where a realm is closed, nobody passes without a principal or the claims of a token.
//! - Who has claims and no principal is allowed nothing by rules: its claims say what it may.
//! - A secret is neither logged nor shown, nor does the time of an answer tell of it.

mod acls;
mod action;
mod credentials;
mod token;

pub use acls::{Acls, Approver, Entity};
pub use action::Action;
pub use token::Claims;

use crate::answer::plain;
use axum::body::Body;
use credentials::{Credentials, authorization};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};
use token::Key;

/// The longest file of credentials, rules or a key, in bytes.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// A part of an API, for which to show who one is can be required by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Realm {
    /// What only reads.
    Readonly,
    /// What sets something, and the operator API.
    Readwrite,
    /// Schedulers.
    Scheduler,
    /// Executors.
    Executor,
    /// Resource providers.
    ResourceProvider,
}

impl Realm {
    fn name(self) -> &'static str {
        match self {
            Self::Readonly => "readonly",
            Self::Readwrite => "readwrite",
            Self::Scheduler => "scheduler",
            Self::Executor => "executor",
            Self::ResourceProvider => "resource-provider",
        }
    }

    /// The setting that closes it.
    fn setting(self) -> &'static str {
        match self {
            Self::Readonly => "readonly",
            Self::Readwrite => "readwrite",
            Self::Scheduler => "frameworks",
            Self::Executor | Self::ResourceProvider => "executors",
        }
    }
}

/// Who asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    /// Its name; none where nobody asked for it.
    pub principal: Option<Arc<str>>,
    /// What its token says, if it came with one.
    pub claims: Option<Claims>,
}

impl Subject {
    /// Its name.
    pub fn principal(&self) -> Option<&str> {
        self.principal.as_deref()
    }
}

/// What is configured. A path that is empty is not set.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Realms where who asks must show who it is.
    pub closed: BTreeSet<Realm>,
    /// The file of principals and their secrets.
    pub credentials: PathBuf,
    /// The file of rules.
    pub acls: PathBuf,
    /// The file of the key that tokens are signed with.
    pub token_key: PathBuf,
}

/// A file is not as it must be. Names the setting.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// It cannot be read.
    #[error("auth.{key}: cannot read {}", path.display())]
    Read {
        /// The setting.
        key: &'static str,
        /// What it names.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is wrong.
    #[error("auth.{key}: {}: {problem}", path.display())]
    Wrong {
        /// The setting.
        key: &'static str,
        /// What it names.
        path: PathBuf,
        /// What, and what to do.
        problem: String,
    },
    /// It is needed and not set.
    #[error("auth.{needs} is on and needs auth.{key}: name a file there")]
    Missing {
        /// The setting.
        key: &'static str,
        /// What needs it.
        needs: &'static str,
    },
}

/// Tells who asks, and what it may.
#[derive(Debug)]
pub struct Auth {
    process: &'static str,
    closed: BTreeSet<Realm>,
    credentials: Credentials,
    key: Option<Key>,
    acls: Acls,
}

impl Auth {
    /// Asks nobody who it is, and allows everything.
    pub fn open(process: &'static str) -> Self {
        Self {
            process,
            closed: BTreeSet::new(),
            credentials: Credentials::default(),
            key: None,
            acls: Acls::default(),
        }
    }

    /// Reads the files, for a process of this name in realms (`mesos-master`). Blocks.
    ///
    /// # Errors
    /// A file is missing, or wrong.
    pub fn load(process: &'static str, settings: &Settings) -> Result<Self, AuthError> {
        let mut auth = Self { closed: settings.closed.clone(), ..Self::open(process) };
        let needs =
            |realms: &[Realm]| realms.iter().find(|it| auth.closed.contains(it)).map(|it| it.setting());
        let (by_secret, by_token) = (
            needs(&[Realm::Readonly, Realm::Readwrite, Realm::Scheduler]),
            needs(&[Realm::Executor, Realm::ResourceProvider]),
        );
        if let Some(text) = read("credentials", &settings.credentials, by_secret, true)? {
            let wrong = |problem| wrong("credentials", &settings.credentials, problem);
            auth.credentials = Credentials::parse(&utf8(text).map_err(wrong)?).map_err(wrong)?;
        }
        if let Some(bytes) = read("jwt-secret-key", &settings.token_key, by_token, true)? {
            let key = Key::new(&bytes);
            auth.key = Some(key.map_err(|problem| wrong("jwt-secret-key", &settings.token_key, problem))?);
        }
        if let Some(text) = read("acls", &settings.acls, None, false)? {
            let wrong = |problem| wrong("acls", &settings.acls, problem);
            auth.acls = Acls::parse(&utf8(text).map_err(wrong)?).map_err(wrong)?;
        }
        Ok(auth)
    }

    /// With these rules instead.
    pub fn with_acls(self, acls: Acls) -> Self {
        Self { acls, ..self }
    }

    /// The rules.
    pub fn acls(&self) -> &Acls {
        &self.acls
    }

    /// Whether who asks in a realm must show who it is.
    pub fn is_closed(&self, realm: Realm) -> bool {
        self.closed.contains(&realm)
    }

    /// Whether a token is taken in a realm. Executors use the operator API of their agent, too.
    fn takes_tokens(&self, realm: Realm) -> bool {
        match realm {
            Realm::Executor | Realm::ResourceProvider => true,
            Realm::Readwrite => self.key.is_some(),
            Realm::Readonly | Realm::Scheduler => false,
        }
    }

    /// Who sent a request; none where it does not show that and must.
    pub fn known(&self, realm: Realm, headers: &HeaderMap) -> Option<Subject> {
        if !self.is_closed(realm) {
            return Some(Subject::default());
        }
        if self.takes_tokens(realm)
            && let Some(claims) = self.claims(headers)
        {
            return Some(Subject { principal: None, claims: Some(claims) });
        }
        let takes_secrets = !matches!(realm, Realm::Executor | Realm::ResourceProvider);
        let principal = self.credentials.basic(headers).filter(|_| takes_secrets)?;
        Some(Subject { principal: Some(principal), claims: None })
    }

    fn claims(&self, headers: &HeaderMap) -> Option<Claims> {
        self.key.as_ref()?.read(authorization(headers, "bearer")?)
    }

    /// Who sent a request.
    ///
    /// # Errors
    /// 401: it does not show who it is, and must.
    pub fn who(&self, realm: Realm, headers: &HeaderMap) -> Result<Subject, Box<Response<Body>>> {
        self.known(realm, headers).ok_or_else(|| Box::new(self.unauthorized(realm, headers)))
    }

    fn unauthorized(&self, realm: Realm, headers: &HeaderMap) -> Response<Body> {
        let name = format!("{}-{}", self.process, realm.name());
        let mut challenges = Vec::new();
        if !matches!(realm, Realm::Executor | Realm::ResourceProvider) {
            challenges.push(format!("Basic realm=\"{name}\""));
        }
        if self.takes_tokens(realm) {
            let is_wrong = authorization(headers, "bearer").is_some();
            let error = if is_wrong { ", error=\"invalid_token\"" } else { "" };
            challenges.push(format!("Bearer realm=\"{name}\"{error}"));
        }
        let text = format!("Realm {name} is for those who show who they are");
        let mut response = plain(StatusCode::UNAUTHORIZED, text);
        if let Ok(value) = HeaderValue::try_from(challenges.join(", ")) {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
        }
        response
    }

    /// What the rules of an action say to who asks.
    pub fn approver(&self, subject: &Subject, action: Action) -> Approver {
        match subject.claims {
            Some(_) => Approver::NOTHING,
            None => self.acls.approver(action, subject.principal()),
        }
    }

    /// Whether who asks may do something to this; none stands for nothing in particular.
    pub fn may(&self, subject: &Subject, action: Action, object: Option<&str>) -> bool {
        self.approver(subject, action).allows(object)
    }

    /// The token of an executor; none where executors need none.
    pub fn token(&self, claims: &Claims) -> Option<String> {
        self.key.as_ref().filter(|_| self.is_closed(Realm::Executor)).map(|key| key.sign(claims))
    }
}

/// The answer to what is not allowed.
pub fn forbidden() -> Response<Body> {
    plain(StatusCode::FORBIDDEN, "")
}

fn wrong(key: &'static str, path: &Path, problem: String) -> AuthError {
    AuthError::Wrong { key, path: path.into(), problem }
}

fn utf8(bytes: Vec<u8>) -> Result<String, String> {
    String::from_utf8(bytes).map_err(|_| "it is no UTF-8 text; write JSON".to_owned())
}

/// Reads a file that is set; `needs` names what cannot be without it.
fn read(
    key: &'static str,
    path: &Path,
    needs: Option<&'static str>,
    is_secret: bool,
) -> Result<Option<Vec<u8>>, AuthError> {
    if path.as_os_str().is_empty() {
        return needs.map_or(Ok(None), |needs| Err(AuthError::Missing { key, needs }));
    }
    let failed = |source| AuthError::Read { key, path: path.into(), source };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode();
    if is_secret && mode & 0o007 != 0 {
        tracing::warn!(path = %path.display(), "a file of secrets is open to others: take their rights to it away");
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(wrong(key, path, format!("it has more than {FILE_BYTES_MAX} bytes")));
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests;
