//! As whom masters are asked.

use crate::SdkError;
use base64::{Engine, engine::general_purpose::STANDARD};
use std::{fmt, path::Path};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};

/// The metadata in which masters look for it.
const AUTHORIZATION: &str = "authorization";

/// A principal and its secret, for masters that want to know who asks. The secret is sent with each stream and each call,
/// and is not shown.
#[derive(Clone)]
pub struct Credential {
    principal: String,
    value: MetadataValue<Ascii>,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential of {:?}", self.principal)
    }
}

impl Credential {
    /// A principal and its secret.
    ///
    /// # Errors
    /// They cannot be told apart, or one is empty.
    pub fn new(principal: &str, secret: &str) -> Result<Self, SdkError> {
        let wrong = |why: &str| Err(SdkError::Argument(format!("credential: {why}")));
        if principal.is_empty() || principal.contains(':') {
            return wrong("the principal is empty or has a colon; use the name that the masters know");
        }
        if secret.is_empty() {
            return wrong("the secret is empty");
        }
        let text = format!("Basic {}", STANDARD.encode(format!("{principal}:{secret}")));
        match MetadataValue::try_from(text) {
            Ok(mut value) => {
                value.set_sensitive(true);
                Ok(Self { principal: principal.to_owned(), value })
            }
            Err(_) => wrong("it cannot be sent"),
        }
    }

    /// A principal and the file with its secret, `PRINCIPAL:FILE`; a line break at its end is not part of it. Blocks.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(text: &str) -> Result<Self, SdkError> {
        let wrong = |why: String| SdkError::Argument(format!("credential: {why}"));
        let (principal, file) = text
            .split_once(':')
            .filter(|(_, file)| !file.is_empty())
            .ok_or_else(|| wrong("write PRINCIPAL:FILE, for example ops:/etc/muster/ops.secret".into()))?;
        let secret = std::fs::read_to_string(Path::new(file))
            .map_err(|error| wrong(format!("cannot read the secret in {file}: {error}")))?;
        Self::new(principal, secret.trim_end_matches(['\r', '\n']))
    }
}

impl Credential {
    /// The value of the header `Authorization`, for who speaks HTTP to masters. It is the secret.
    pub fn header(&self) -> &str {
        self.value.to_str().unwrap_or_default()
    }
}

/// Adds a credential to what is sent, if there is one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shows(pub(crate) Option<Credential>);

impl Interceptor for Shows {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(credential) = &self.0 {
            request.metadata_mut().insert(AUTHORIZATION, credential.value.clone());
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_secret_comes_out_of_a_file_and_is_not_shown() {
        let path = std::env::temp_dir().join(format!("muster-credential-{}", std::process::id()));
        std::fs::write(&path, "secret-1\n").unwrap();
        let read = Credential::read(&format!("ops:{}", path.display())).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(format!("{read:?}"), "Credential of \"ops\"");
        let request = Shows(Some(read)).call(Request::new(())).unwrap();
        assert_eq!(request.metadata().get(AUTHORIZATION).unwrap(), "Basic b3BzOnNlY3JldC0x");
        assert!(!format!("{:?}", request.metadata()).contains("b3Bz"));
        for (text, part) in
            [("ops", "PRINCIPAL:FILE"), ("ops:", "PRINCIPAL:FILE"), ("ops:/none/x", "/none/x")]
        {
            let why = Credential::read(text).unwrap_err().to_string();
            assert!(why.contains(part), "{why}");
        }
        assert!(Credential::new("a:b", "x").is_err() && Credential::new("a", "").is_err());
    }
}
