//! Somebody at a browser, as far as the server sees it: a cookie, and the fields that browsers send.

use reqwest::{Method, RequestBuilder};

use crate::harness::api::Reply;
use crate::harness::sidekey::Sidekey;

pub const HOME: &str = "/dashboard";
pub const SIGN_IN: &str = "/dashboard/sign-in";
pub const SIGN_OUT: &str = "/dashboard/sign-out";
/// Answers 204 to who is signed in.
pub const SESSION: &str = "/dashboard/session";
pub const KEYS_PAGE: &str = "/dashboard/settings/developers/api-keys";
/// An address at which there is nothing.
const NOWHERE: &str = "/dashboard/nowhere";

pub struct Person<'a> {
    sidekey: &'a Sidekey,
    /// What the browser sends back: `name=value`.
    pub cookie: Option<String>,
}

impl<'a> Person<'a> {
    /// One who has never been here.
    pub fn new(sidekey: &'a Sidekey) -> Self {
        Person {
            sidekey,
            cookie: None,
        }
    }

    /// One who has signed in with `key`.
    pub async fn signed_in(sidekey: &'a Sidekey, key: &str) -> Self {
        let mut person = Person::new(sidekey);
        let reply = person.sign_in(key).await;
        assert_eq!(reply.status, 303, "{reply:?}");
        assert!(person.is_signed_in().await);
        person
    }

    /// The same browser, at another instance.
    pub fn at<'b>(&self, sidekey: &'b Sidekey) -> Person<'b> {
        Person {
            sidekey,
            cookie: self.cookie.clone(),
        }
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("http://{}{path}", self.sidekey.admin);
        let request = self.sidekey.client.request(method, url);
        match &self.cookie {
            Some(cookie) => request.header("cookie", cookie),
            None => request,
        }
    }

    pub async fn get(&self, path: &str) -> Reply {
        Reply::to(self.request(Method::GET, path)).await
    }

    /// What a form with these fields sends.
    pub fn form(&self, path: &str, fields: &[(&str, &str)]) -> RequestBuilder {
        let mut body = form_urlencoded::Serializer::new(String::new());
        body.extend_pairs(fields);
        self.request(Method::POST, path)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body.finish())
    }

    pub async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Reply {
        Reply::to(self.form(path, fields)).await
    }

    /// Tries to sign in, and keeps the cookie.
    pub async fn sign_in(&mut self, key: &str) -> Reply {
        let reply = self.post(SIGN_IN, &[("key", key)]).await;
        self.keep(&reply);
        reply
    }

    /// Does with a cookie what a browser does.
    pub fn keep(&mut self, reply: &Reply) {
        if let Some(field) = reply.header("set-cookie") {
            let pair = field.split(';').next().expect("a pair");
            let is_gone = field.contains("Max-Age=0");
            self.cookie = (!is_gone).then(|| pair.to_owned());
        }
    }

    /// What the browser keeps of the session.
    pub fn token(&self) -> &str {
        let cookie = self.cookie.as_deref().expect("a cookie");
        cookie.split_once('=').expect("a pair").1
    }

    pub async fn is_signed_in(&self) -> bool {
        let reply = self.get(SESSION).await;
        match reply.status {
            204 => true,
            303 => false,
            _ => panic!("{reply:?}"),
        }
    }

    /// What a page of this person has in its forms.
    pub async fn csrf(&self) -> String {
        let page = self.get(NOWHERE).await;
        assert_eq!(page.status, 404, "{page:?}");
        let (_, rest) = page
            .text
            .split_once("name=\"csrf\" value=\"")
            .expect("a form");
        rest.split('"').next().expect("its end").to_owned()
    }
}
