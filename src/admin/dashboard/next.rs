//! Where to go after signing in: a page of the dashboard and nothing else, whatever the address says.

use super::HOME_PATH;

/// A longer one is not remembered.
const PATH_LEN_MAX: usize = 2048;
/// Going there after signing in would only ask again.
const NOT_THERE: [&str; 2] = ["/dashboard/sign-in", "/dashboard/sign-out"];

/// `text`, where it is the path of one of our pages, with its query.
pub fn own_path(text: &str) -> Option<&str> {
    let path = text.split('?').next()?;
    let rest = path.strip_prefix(HOME_PATH)?;
    let is_plain = text.len() <= PATH_LEN_MAX
        && text.bytes().all(|b| b.is_ascii_graphic() && b != b'\\')
        && !text.contains(['#', '<', '>', '"'])
        && !text.contains("//");
    let is_below = rest.is_empty() || rest.starts_with('/');
    // A browser would resolve dot segments, also in disguise.
    let lower = path.to_ascii_lowercase();
    let stays = !lower.contains("/.") && !lower.contains("%2e") && !lower.contains("%2f");
    let is_page = !NOT_THERE.iter().any(|page| lower.starts_with(page));
    (is_plain && is_below && stays && is_page).then_some(text)
}

/// The address of the sign-in page that leads on to `next`. `done` is what has happened.
pub fn sign_in_path(next: Option<&str>, done: Option<&str>) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    if let Some(next) = next.and_then(own_path) {
        query.append_pair("next", next);
    }
    if let Some(done) = done {
        query.append_pair("done", done);
    }
    let query = query.finish();
    let mark = if query.is_empty() { "" } else { "?" };
    format!("/dashboard/sign-in{mark}{query}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_pages_are_gone_to() {
        for path in [
            "/dashboard",
            "/dashboard/",
            "/dashboard?a=b",
            "/dashboard/settings/developers/api-keys?q=a+b&cursor=x%2Fy&at=1.5",
            "/dashboard/overview?range=7d",
        ] {
            assert_eq!(own_path(path), Some(path));
        }
        for path in [
            "",
            "/",
            "dashboard",
            "//evil.example",
            "//evil.example/dashboard",
            "/dashboard//evil.example",
            "/dashboardx",
            "/dashboard.evil.example",
            "/dashboard@evil.example",
            "https://evil.example/dashboard",
            "/\\evil.example/dashboard",
            "/dashboard\\..\\x",
            "/dashboard/../metrics",
            "/dashboard/./x",
            "/dashboard/%2E%2e/metrics",
            "/dashboard/%2fevil",
            "/dashboard/a b",
            "/dashboard/\n",
            "/dashboard/\r\nSet-Cookie: a=b",
            "/dashboard/ü",
            "/dashboard/#x",
            "javascript:alert(1)",
            "/dashboard/sign-in",
            "/dashboard/sign-in?next=/dashboard",
            "/dashboard/sign-out",
            "/api/v1/platform/api-keys",
            &format!("/dashboard/{}", "a".repeat(PATH_LEN_MAX)),
        ] {
            assert_eq!(own_path(path), None, "{path:?}");
        }
    }

    #[test]
    fn the_way_to_sign_in_remembers_where_one_was() {
        assert_eq!(sign_in_path(None, None), "/dashboard/sign-in");
        assert_eq!(
            sign_in_path(Some("/dashboard/x?a=b&c=d"), Some("signed-out")),
            "/dashboard/sign-in?next=%2Fdashboard%2Fx%3Fa%3Db%26c%3Dd&done=signed-out"
        );
        assert_eq!(sign_in_path(Some("//evil"), None), "/dashboard/sign-in");
    }
}
