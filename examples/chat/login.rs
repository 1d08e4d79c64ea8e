//! The login. Here, a name in a cookie is enough: replace it with your own login.

use axum::extract::FromRequestParts;
use axum::http::header::{COOKIE, HeaderName, SET_COOKIE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use tracing_session::Session;

/// A parameter of handlers that require a login.
pub(crate) struct User(pub(crate) String);

impl<S: Sync> FromRequestParts<S> for User {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, StatusCode> {
        let name = name_in(&parts.headers).ok_or(StatusCode::UNAUTHORIZED)?;
        Ok(Self(name))
    }
}

fn name_in(headers: &HeaderMap) -> Option<String> {
    let cookies = headers.get(COOKIE)?.to_str().ok()?;
    let mut cookies = cookies.split("; ");
    let name = cookies.find_map(|cookie| cookie.strip_prefix("user="))?;
    let name = percent_decode_str(name).decode_utf8().ok()?;
    Some(name.into_owned())
}

pub(crate) async fn name(User(name): User) -> String {
    name
}

type Cookie = (StatusCode, [(HeaderName, String); 1]);

pub(crate) async fn log_in(name: String) -> Result<Cookie, (StatusCode, String)> {
    // Refuse a name that isn't a valid user id here, and not at the first question.
    Session::default()
        .with_user(&name)
        .map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?;
    Ok(cookie(name.trim(), ""))
}

pub(crate) async fn log_out() -> Cookie {
    cookie("", "; Max-Age=0")
}

fn cookie(name: &str, age: &str) -> Cookie {
    let name = utf8_percent_encode(name, NON_ALPHANUMERIC);
    let cookie = format!("user={name}; Path=/; HttpOnly; SameSite=Strict{age}");
    (StatusCode::NO_CONTENT, [(SET_COOKIE, cookie)])
}
