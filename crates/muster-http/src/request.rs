//! Requests: which codec they speak, which they want, and their body.

use crate::answer::{bad, plain};
use axum::body::{Body, to_bytes};
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header};
use muster_proto::json::Codec;
use muster_proto::limits::FRAME_BYTES_MAX;
use muster_proto::media::{self, Unfit};
use std::io::Read;

/// The codec of a body.
pub fn spoken(headers: &HeaderMap) -> Result<Codec, Box<Response<Body>>> {
    let kind = headers.get(header::CONTENT_TYPE).map(|kind| kind.to_str().unwrap_or_default());
    media::spoken(kind).map_err(unfit)
}

/// The codec of the answer: JSON where both would do.
pub fn wanted(headers: &HeaderMap) -> Result<Codec, Box<Response<Body>>> {
    let accepts: Vec<&str> =
        headers.get_all(header::ACCEPT).iter().map(|value| value.to_str().unwrap_or_default()).collect();
    media::wanted(&accepts).map_err(unfit)
}

fn unfit(why: Unfit) -> Box<Response<Body>> {
    let status = StatusCode::from_u16(why.status()).unwrap_or(StatusCode::BAD_REQUEST);
    Box::new(plain(status, why.text()))
}

/// The whole body, if it is not too long; one that was compressed as it was before.
pub async fn body(headers: &HeaderMap, body: Body) -> Result<Bytes, Box<Response<Body>>> {
    let bytes = whole(body).await?;
    match headers.get(header::CONTENT_ENCODING).map(|encoding| encoding.as_bytes()) {
        None | Some(b"identity") => Ok(bytes),
        Some(b"gzip") => gunzip(&bytes),
        Some(_) => {
            let text = "Expecting 'Content-Encoding' of gzip or none";
            Err(Box::new(plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, text)))
        }
    }
}

fn gunzip(bytes: &[u8]) -> Result<Bytes, Box<Response<Body>>> {
    let mut out = Vec::new();
    // One more than may come tells that it is too long.
    let mut from = flate2::read::MultiGzDecoder::new(bytes).take(FRAME_BYTES_MAX as u64 + 1);
    match from.read_to_end(&mut out) {
        Ok(_) if out.len() > FRAME_BYTES_MAX => Err(Box::new(too_long())),
        Ok(_) => Ok(out.into()),
        Err(error) => Err(Box::new(bad(format!("The body is no gzip: {error}")))),
    }
}

fn too_long() -> Response<Body> {
    let text = format!("The body has more than {FRAME_BYTES_MAX} bytes; send less at once");
    plain(StatusCode::PAYLOAD_TOO_LARGE, text)
}

async fn whole(body: Body) -> Result<Bytes, Box<Response<Body>>> {
    to_bytes(body, FRAME_BYTES_MAX).await.map_err(|error| {
        // The library tells a body that is too long from one that broke off by its source only.
        let too_long = std::error::Error::source(&error)
            .is_some_and(|source| source.is::<http_body_util::LengthLimitError>());
        Box::new(if too_long { self::too_long() } else { bad(format!("The body broke off: {error}")) })
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn headers(name: http::HeaderName, values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_body_says_what_it_is() {
        let spoken = |values: &[&str]| {
            spoken(&headers(header::CONTENT_TYPE, values)).map_err(|answer| answer.status().as_u16())
        };
        assert_eq!(spoken(&["application/json"]), Ok(Codec::Json));
        assert_eq!(spoken(&["Application/JSON; charset=utf-8"]), Ok(Codec::Json));
        assert_eq!(spoken(&["application/x-protobuf"]), Ok(Codec::Protobuf));
        assert_eq!(spoken(&[]), Err(400));
        assert_eq!(spoken(&["text/plain"]), Err(415));
    }

    #[test]
    fn an_answer_is_what_is_asked_for() {
        let wanted = |values: &[&str]| {
            wanted(&headers(header::ACCEPT, values)).map_err(|answer| answer.status().as_u16())
        };
        assert_eq!(wanted(&[]), Ok(Codec::Json));
        assert_eq!(wanted(&["*/*"]), Ok(Codec::Json));
        assert_eq!(wanted(&["application/x-protobuf"]), Ok(Codec::Protobuf));
        assert_eq!(wanted(&["text/html, application/x-protobuf;q=0.5"]), Ok(Codec::Protobuf));
        assert_eq!(wanted(&["application/json;q=0, application/*"]), Ok(Codec::Json));
        assert_eq!(wanted(&["text/html"]), Err(406));
    }
}
