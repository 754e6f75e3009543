//! Blobs: large data of a player, changed in the place of what is known.

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, ETAG, HeaderMap, IF_MATCH, IF_NONE_MATCH};
use reqwest::{Method, RequestBuilder};

use super::{CALL_TIMEOUT, Service, ServiceError, sent};
use crate::ErrorCode;

/// A blob as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// Names exactly this content.
    pub tag: String,
    /// As its writer said.
    pub content_type: String,
    /// The content.
    pub body: Bytes,
}

/// What a look found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// This.
    Blob(Blob),
    /// What the caller has already.
    Same,
    /// Nothing.
    None,
}

/// In the place of what a change is made; else it is refused with [`ErrorCode::PreconditionFailed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When<'a> {
    /// Of whatever is there, or of nothing.
    Always,
    /// Of nothing.
    Missing,
    /// Of what has this tag.
    Is(&'a str),
}

impl When<'_> {
    fn on(self, request: RequestBuilder) -> RequestBuilder {
        match self {
            Self::Always => request,
            Self::Missing => request.header(IF_NONE_MATCH, "*"),
            Self::Is(tag) => request.header(IF_MATCH, tag),
        }
    }
}

impl Service {
    /// A blob of a player, unless it is the one of which the caller knows the tag.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub async fn blob(&self, player: &str, name: &str, known: Option<&str>) -> Result<Kept, ServiceError> {
        let request = self.request(Method::GET, &["players", player, "blobs", name], CALL_TIMEOUT)?;
        let request = match known {
            Some(tag) => request.header(IF_NONE_MATCH, tag),
            None => request,
        };
        let response = match sent(request).await {
            Ok(response) if response.status().as_u16() == 304 => return Ok(Kept::Same),
            Err(error) if error.is(ErrorCode::NotFound) => return Ok(Kept::None),
            answer => answer?,
        };
        let tag = tag_of(response.headers())?;
        let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let content_type = content_type.unwrap_or_default().to_owned();
        let body = response.bytes().await.map_err(ServiceError::Unreachable)?;
        Ok(Kept::Blob(Blob { tag, content_type, body }))
    }

    /// Writes a blob of a player; its tag.
    ///
    /// # Errors
    /// [`ServiceError`]; where it is not known whether it was written, a look tells.
    pub async fn put_blob(
        &self,
        (player, name): (&str, &str),
        content_type: &str,
        body: Bytes,
        when: When<'_>,
    ) -> Result<String, ServiceError> {
        let request = self.request(Method::PUT, &["players", player, "blobs", name], CALL_TIMEOUT)?;
        let request = when.on(request.header(CONTENT_TYPE, content_type).body(body));
        tag_of(sent(request).await?.headers())
    }

    /// Deletes a blob of a player.
    ///
    /// # Errors
    /// [`ServiceError`]; [`ErrorCode::NotFound`] where there is none.
    pub async fn delete_blob(&self, player: &str, name: &str, when: When<'_>) -> Result<(), ServiceError> {
        let request = self.request(Method::DELETE, &["players", player, "blobs", name], CALL_TIMEOUT)?;
        sent(when.on(request)).await.map(drop)
    }
}

fn tag_of(headers: &HeaderMap) -> Result<String, ServiceError> {
    let tag = headers.get(ETAG).and_then(|value| value.to_str().ok());
    tag.map(str::to_owned).ok_or_else(|| ServiceError::Unfitting("a blob without a tag".to_owned()))
}
