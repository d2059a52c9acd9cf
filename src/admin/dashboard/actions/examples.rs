//! Calls with a new key, as somebody would write them. They are made to be run as they stand.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::config::settings::Source;

/// A program.
#[derive(Debug)]
pub struct Example {
    /// For the ids of what it is shown in.
    pub id: &'static str,
    pub language: &'static str,
    pub code: String,
}

/// The call that all of them make.
struct Call {
    url: String,
    header: Option<(String, String)>,
}

/// `GET` of `path` at `base`, with `key` where `source` looks for it.
fn call(base: &str, path: &str, source: &Source, key: &str) -> Call {
    let mut url = format!("{base}{path}");
    let header = match source {
        Source::Bearer => Some(("Authorization".to_owned(), format!("Bearer {key}"))),
        Source::Basic => {
            let login = STANDARD.encode(format!("{key}:"));
            Some(("Authorization".to_owned(), format!("Basic {login}")))
        }
        Source::Header(name) => Some((name.to_string(), key.to_owned())),
        Source::Cookie(name) => Some(("Cookie".to_owned(), format!("{name}={key}"))),
        Source::Query(name) => {
            let mut query = form_urlencoded::Serializer::new(String::new());
            url = format!("{url}?{}", query.append_pair(name, key).finish());
            None
        }
    };
    Call { url, header }
}

/// The call in several languages.
pub fn examples(base: &str, path: &str, source: &Source, key: &str) -> Vec<Example> {
    let call = call(base, path, source, key);
    vec![
        Example {
            id: "curl",
            language: "curl",
            code: curl(&call),
        },
        Example {
            id: "python",
            language: "Python",
            code: python(&call),
        },
        Example {
            id: "javascript",
            language: "JavaScript",
            code: javascript(&call),
        },
        Example {
            id: "go",
            language: "Go",
            code: go(&call),
        },
    ]
}

/// `text` in single quotes, for a shell.
fn shell(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// `text` in double quotes: what JSON writes is the same text in Python, JavaScript and Go.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn curl(call: &Call) -> String {
    let header = match &call.header {
        Some((name, value)) => format!(" \\\n  -H {}", shell(&format!("{name}: {value}"))),
        None => String::new(),
    };
    format!("curl {}{header}\n", shell(&call.url))
}

fn python(call: &Call) -> String {
    let header = match &call.header {
        Some((name, value)) => format!("    headers={{{}: {}}},\n", quoted(name), quoted(value)),
        None => String::new(),
    };
    format!(
        "import urllib.request\n\n\
         request = urllib.request.Request(\n    {},\n{header})\n\
         with urllib.request.urlopen(request, timeout=10) as response:\n    \
         print(response.status, response.read().decode())\n",
        quoted(&call.url)
    )
}

fn javascript(call: &Call) -> String {
    let options = match &call.header {
        Some((name, value)) => {
            format!(
                ", {{\n  headers: {{ {}: {} }},\n}}",
                quoted(name),
                quoted(value)
            )
        }
        None => String::new(),
    };
    format!(
        "const response = await fetch({}{options});\n\
         console.log(response.status, await response.text());\n",
        quoted(&call.url)
    )
}

fn go(call: &Call) -> String {
    let header = match &call.header {
        Some((name, value)) => {
            format!(
                "\trequest.Header.Set({}, {})\n",
                quoted(name),
                quoted(value)
            )
        }
        None => String::new(),
    };
    format!(
        "package main\n\n\
         import (\n\t\"fmt\"\n\t\"io\"\n\t\"net/http\"\n)\n\n\
         func main() {{\n\
         \trequest, err := http.NewRequest(http.MethodGet, {}, nil)\n\
         \tif err != nil {{\n\t\tpanic(err)\n\t}}\n{header}\
         \tresponse, err := http.DefaultClient.Do(request)\n\
         \tif err != nil {{\n\t\tpanic(err)\n\t}}\n\
         \tdefer response.Body.Close()\n\
         \tbody, _ := io.ReadAll(response.Body)\n\
         \tfmt.Println(response.StatusCode, string(body))\n}}\n",
        quoted(&call.url)
    )
}

/// The key and where it is for, as a file of environment variables.
pub fn environment(base: &str, key: &str) -> String {
    format!("SIDEKEY_API_KEY={key}\nSIDEKEY_API_URL={base}\n")
}

/// Characters of a file's name that come from a key's, at most.
const FILE_NAME_LEN_MAX: usize = 40;

/// A file name made of a key's name: nothing in it means anything to a system.
pub fn file_name(name: &str, id: &str) -> String {
    let words = name.split(|character: char| !character.is_ascii_alphanumeric());
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    let mut stem = words.join("-").to_ascii_lowercase();
    stem.truncate(FILE_NAME_LEN_MAX);
    let stem = stem.trim_end_matches('-');
    format!("{}.env", if stem.is_empty() { id } else { stem })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "https://api.example.com";

    fn codes(source: &Source) -> Vec<String> {
        let all = examples(BASE, "/orders", source, "sk_test_KEY");
        all.into_iter().map(|example| example.code).collect()
    }

    #[test]
    fn each_language_has_the_key_where_the_proxy_looks() {
        let codes = codes(&Source::Bearer);
        assert_eq!(
            codes[0],
            "curl 'https://api.example.com/orders' \\\n  -H 'Authorization: Bearer sk_test_KEY'\n"
        );
        for code in &codes {
            assert!(code.contains("https://api.example.com/orders"), "{code}");
            assert!(code.contains("Bearer sk_test_KEY"), "{code}");
        }
        let header = Source::Header("x-api-key".parse().unwrap());
        for code in self::codes(&header) {
            assert!(
                code.contains("x-api-key") && code.contains("sk_test_KEY"),
                "{code}"
            );
        }
        for code in self::codes(&Source::Query("api key".to_owned())) {
            assert!(code.contains("/orders?api+key=sk_test_KEY"), "{code}");
        }
        for code in self::codes(&Source::Cookie("key".to_owned())) {
            assert!(code.contains("key=sk_test_KEY"), "{code}");
        }
        for code in self::codes(&Source::Basic) {
            assert!(code.contains("Basic c2tfdGVzdF9LRVk6"), "{code}");
        }
    }

    #[test]
    fn quotes_do_not_end_a_text() {
        let all = examples(BASE, "/it's\"$(x)`", &Source::Bearer, "k");
        assert!(
            all[0].code.contains(r#"/it'\''s"$(x)`'"#),
            "{}",
            all[0].code
        );
        for example in &all[1..] {
            assert!(example.code.contains(r#"/it's\"$(x)`"#), "{}", example.code);
        }
    }

    #[test]
    fn a_file_is_named_by_the_key_and_is_only_a_name() {
        for (name, file) in [
            ("Orders of ACME", "orders-of-acme.env"),
            ("../../etc/passwd", "etc-passwd.env"),
            ("-rf *", "rf.env"),
            ("ключ", "4fzN8cQ2pLrT.env"),
            ("\"><script>", "script.env"),
        ] {
            assert_eq!(file_name(name, "4fzN8cQ2pLrT"), file, "{name}");
        }
        assert_eq!(
            file_name(&"x".repeat(200), "id").len(),
            FILE_NAME_LEN_MAX + 4
        );
    }
}
