//! Scripts, styles and pictures: in the binary, compressed once, and kept by browsers for as long as they
//! are the same, for what they are is in their address.

use std::io::Write;
use std::sync::LazyLock;

use axum::body::Bytes;
use axum::extract::Path;
use axum::http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, VARY};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

use super::page::PageError;
use crate::admin::answer::ApiError;
use crate::audit::entry::hexadecimal;
use crate::problem::Kind;

/// Characters of the digest that stands in addresses.
const VERSION_LEN: usize = 16;
const FOR_EVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

/// A file as it stands in `admin/`.
struct File {
    name: &'static str,
    media_type: &'static str,
    text: &'static str,
}

const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const PICTURE: &str = "image/svg+xml";

macro_rules! file {
    ($folder:literal, $name:literal, $media_type:expr) => {
        File {
            name: $name,
            media_type: $media_type,
            text: include_str!(concat!("../../../admin/", $folder, "/", $name)),
        }
    };
}

/// The look that all pages share: of one subject a file, and one request for all.
const DASHBOARD_STYLE: File = {
    macro_rules! joined {
        ($($name:literal)*) => {
            concat!($(include_str!(concat!("../../../admin/styles/dashboard/", $name, ".css")), "\n"),*)
        };
    }
    File {
        name: "dashboard.css",
        media_type: STYLE,
        text: joined!(
            "colours" "frame" "boxes" "buttons" "forms" "tables" "code" "dialogs" "marks"
        ),
    }
};

/// All of them.
const FILES: &[File] = &[
    file!("styles", "charts.css", STYLE),
    DASHBOARD_STYLE,
    file!("styles", "details.css", STYLE),
    file!("styles", "events.css", STYLE),
    file!("styles", "form.css", STYLE),
    file!("styles", "keys.css", STYLE),
    file!("styles", "overview.css", STYLE),
    file!("scripts", "app.js", SCRIPT),
    file!("scripts", "audit.js", SCRIPT),
    file!("scripts", "charts.js", SCRIPT),
    file!("scripts", "content.js", SCRIPT),
    file!("scripts", "copying.js", SCRIPT),
    file!("scripts", "dialogs.js", SCRIPT),
    file!("scripts", "form.js", SCRIPT),
    file!("scripts", "parts.js", SCRIPT),
    file!("scripts", "regions.js", SCRIPT),
    file!("scripts", "sign_in.js", SCRIPT),
    file!("scripts", "times.js", SCRIPT),
    file!("pictures", "sidekey.svg", PICTURE),
];

struct Packed {
    file: &'static File,
    gzip: Option<Bytes>,
}

struct Assets {
    path: String,
    packed: Vec<Packed>,
}

static ASSETS: LazyLock<Assets> = LazyLock::new(|| {
    let mut digest = Sha256::new();
    for file in FILES {
        digest.update(file.name);
        digest.update(file.text);
    }
    let mut version = hexadecimal(&digest.finalize());
    version.truncate(VERSION_LEN);
    let pack = |file| Packed {
        file,
        gzip: compressed(file),
    };
    Assets {
        path: format!("/dashboard/assets/{version}"),
        packed: FILES.iter().map(pack).collect(),
    }
});

fn compressed(file: &File) -> Option<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(file.text.as_bytes()).ok()?;
    encoder.finish().ok().map(Bytes::from)
}

/// What stands before a file's name in its address.
pub fn path() -> &'static str {
    &ASSETS.path
}

/// Serves one. Pages that were made by another version get what there is now, not to be kept.
pub async fn serve(
    Path((version, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, PageError> {
    let assets = &*ASSETS;
    let found = assets.packed.iter().find(|packed| packed.file.name == name);
    let Some(Packed { file, gzip }) = found else {
        return Err(ApiError::new(Kind::NotFound, "There is no such file.").into());
    };
    let mut response = match gzip.as_ref().filter(|_| accepts_gzip(&headers)) {
        Some(gzip) => {
            let encoding = (CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            ([encoding], gzip.clone()).into_response()
        }
        None => file.text.into_response(),
    };
    let is_current = assets.path.ends_with(&version) && version.len() == VERSION_LEN;
    let kept = if is_current {
        FOR_EVER
    } else {
        HeaderValue::from_static("no-store")
    };
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static(file.media_type));
    fields.insert(CACHE_CONTROL, kept);
    fields.insert(VARY, HeaderValue::from_static("accept-encoding"));
    Ok(response)
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(ACCEPT_ENCODING).iter();
    let mut codings = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','));
    codings.any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let is_gzip = parts
            .next()
            .is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        is_gzip && !parts.any(|part| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
    })
}
