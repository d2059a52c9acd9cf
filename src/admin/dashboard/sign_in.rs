//! Signing in with an admin key, and out.

use askama::Template;
use axum::http::StatusCode;
use axum::response::Response;

use super::page::{Fragment, Page, PageError, go, render};

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignInPage {
    page: Page,
    error: Option<String>,
    next: String,
}

pub async fn show() -> Result<Response, PageError> {
    let page = SignInPage {
        page: Page::for_anybody("Sign in"),
        error: None,
        next: String::new(),
    };
    render(StatusCode::OK, &page)
}

pub async fn sign_in() -> Result<Response, PageError> {
    show().await
}

pub async fn sign_out() -> Response {
    go(Fragment(false), "/dashboard/sign-in?done=signed-out")
}
