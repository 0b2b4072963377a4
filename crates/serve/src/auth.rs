//! Who is calling: API keys, and whose states a call may see.
//!
//! A key is compared as its SHA-256 with the hashes of all keys, so that how long it takes says nothing about a key. The
//! owner of a call's states follows from the key; without keys everybody is one owner.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use sha2::{Digest as _, Sha256};
use tangelo_engine::Owner;

use crate::app::App;
use crate::error::ApiError;

/// The keys that are let in; none lets everybody in.
#[derive(Debug, Clone, Default)]
pub struct Keys(Vec<[u8; 32]>);

impl Keys {
    /// Takes the keys; empty ones are left out.
    pub fn new(keys: impl IntoIterator<Item = String>) -> Keys {
        let keys = keys.into_iter().filter(|key| !key.is_empty());
        Keys(keys.map(|key| Sha256::digest(key).into()).collect())
    }

    /// Whether a key is asked for.
    pub fn are_required(&self) -> bool {
        !self.0.is_empty()
    }

    /// Who sends these headers.
    ///
    /// # Errors
    /// A key is required, and there is none or a wrong one.
    fn caller(&self, headers: &HeaderMap) -> Result<Caller, ApiError> {
        if self.0.is_empty() {
            return Ok(Caller { owner: Owner(0) });
        }
        let refused = |message: &str| ApiError::with_status(StatusCode::UNAUTHORIZED, message);
        let key = key_of(headers).ok_or_else(|| {
            refused("an API key is required: send it as `Authorization: Bearer KEY` or `x-api-key: KEY`")
        })?;
        let hash: [u8; 32] = Sha256::digest(key).into();
        // Every hash is looked at, whether one was found already or not.
        let is_known = self.0.iter().fold(false, |found, known| found | (*known == hash));
        if !is_known {
            return Err(refused("the API key is not one of this server's"));
        }
        let mut first = [0; 8];
        first.copy_from_slice(hash.first_chunk::<8>().unwrap_or(&[0; 8]));
        Ok(Caller { owner: Owner(u64::from_be_bytes(first)) })
    }
}

fn key_of(headers: &HeaderMap) -> Option<&str> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| {
        let (scheme, key) = value.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
    });
    bearer.or_else(|| headers.get("x-api-key")?.to_str().ok())
}

/// Who is calling. As an argument of a handler it lets only those in who may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// Whose states are used.
    pub owner: Owner,
}

impl FromRequestParts<App> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Caller, ApiError> {
        app.keys().caller(&parts.headers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().expect("a name"), value.parse().expect("a value"))])
    }

    #[test]
    fn keys_are_told_apart_and_none_is_let_in_without_one() {
        let keys = Keys::new(["alpha".to_owned(), String::new(), "beta".to_owned()]);
        assert!(keys.are_required());
        let owner = |headers: HeaderMap| keys.caller(&headers).map(|caller| caller.owner);
        let alpha = owner(headers("authorization", "Bearer alpha")).expect("known");
        assert_eq!(owner(headers("authorization", "bearer alpha")), Ok(alpha));
        assert_eq!(owner(headers("x-api-key", "alpha")), Ok(alpha));
        let beta = owner(headers("x-api-key", "beta")).expect("known");
        assert_ne!(alpha, beta);
        for wrong in [HeaderMap::new(), headers("x-api-key", ""), headers("authorization", "alpha")] {
            assert_eq!(owner(wrong).expect_err("refused").status, StatusCode::UNAUTHORIZED);
        }
        let nobody = Keys::default();
        assert!(!nobody.are_required());
        assert_eq!(nobody.caller(&HeaderMap::new()), Ok(Caller { owner: Owner(0) }));
    }
}
