//! Somebody who is signed in, without a browser: pages as they are sent.

use reqwest::header::{CONTENT_TYPE, COOKIE, SET_COOKIE};
use reqwest::{Method, RequestBuilder};

use crate::harness::api::Reply;
use crate::harness::sidekey::Sidekey;

pub struct Visit<'s> {
    sidekey: &'s Sidekey,
    cookie: String,
}

impl<'s> Visit<'s> {
    /// Signs in with `key`.
    pub async fn of(sidekey: &'s Sidekey, key: &str) -> Self {
        let request = sidekey.client.request(
            Method::POST,
            format!("http://{}/dashboard/sign-in", sidekey.admin),
        );
        let reply = Reply::to(form(request, &[("key", key)])).await;
        assert_eq!(reply.status, 303, "{reply:?}");
        let set = reply.headers.get(SET_COOKIE).expect("a cookie");
        let set = set.to_str().expect("text");
        let cookie = set.split(';').next().expect("a pair").to_owned();
        Visit { sidekey, cookie }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("http://{}{path}", self.sidekey.admin);
        let request = self.sidekey.client.request(method, url);
        request.header(COOKIE, &self.cookie)
    }

    pub async fn get(&self, path: &str) -> Reply {
        Reply::to(self.request(Method::GET, path)).await
    }

    /// A page that has to be there.
    pub async fn page(&self, path: &str) -> String {
        let reply = self.get(path).await;
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        reply.text
    }

    /// Sends a form without anything else that a page would add.
    pub async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Reply {
        Reply::to(form(self.request(Method::POST, path), fields)).await
    }
}

fn form(request: RequestBuilder, fields: &[(&str, &str)]) -> RequestBuilder {
    let mut body = form_urlencoded::Serializer::new(String::new());
    body.extend_pairs(fields);
    request
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(body.finish())
}

/// What stands in `text` between `before` and `after`, each time.
pub fn between<'t>(text: &'t str, before: &str, after: &str) -> Vec<&'t str> {
    let parts = text.split(before).skip(1);
    parts
        .map(|part| part.split(after).next().unwrap_or_default())
        .collect()
}

/// The field with which a page's forms prove that they are its own.
pub fn csrf(page: &str) -> &str {
    between(page, "name=\"csrf\" value=\"", "\"")[0]
}

/// A text as it stands in the attributes of a page, read.
pub fn unescaped(text: &str) -> String {
    text.replace("&#38;", "&").replace("&amp;", "&")
}
