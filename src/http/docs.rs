//! `/docs`: the description as a page for people. Made here from the same document as `/openapi.json`, without scripts and
//! without anything from elsewhere, so that it can be read where there is no internet.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::openapi;

/// The path of the page.
pub(super) const PATH: &str = "/docs";

/// Nothing is loaded and nothing runs.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'";

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}\
    table{border-collapse:collapse;width:100%;margin:.5rem 0 1.5rem}\
    th,td{text-align:left;vertical-align:top;padding:.3rem .6rem;border-bottom:1px solid #8884}\
    code{font-family:ui-monospace,monospace}:root{color-scheme:light dark}";

static PAGE: LazyLock<String> = LazyLock::new(|| rendered(&openapi::value()));

/// Answers `/docs`.
pub(super) async fn page() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
    ];
    (headers, PAGE.as_str()).into_response()
}

fn rendered(document: &Value) -> String {
    let info = &document["info"];
    let mut html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style><h1>{title} {version}</h1><p>{about}</p>\
         <p>The same for programs: <a href=\"{path}\">{path}</a></p>",
        title = text(&info["title"]),
        version = text(&info["version"]),
        about = text(&info["description"]),
        path = openapi::PATH,
    );
    for (path, methods) in entries(&document["paths"]) {
        for (method, operation) in entries(methods) {
            html.push_str(&format!("<h2><code>{} {}</code></h2>", escaped(&method.to_uppercase()), escaped(path)));
            html.push_str(&format!("<p>{}</p>", text(&operation["summary"])));
            html.push_str(&format!("<p>{}</p>", text(&operation["description"])));
            let parameters = operation["parameters"].as_array().into_iter().flatten().map(|parameter| {
                let name = format!("<code>{}</code>", text(&parameter["name"]));
                let need = if parameter["required"] == true { ", required" } else { "" };
                let place = format!("{}{need}", text(&parameter["in"]));
                [name, place, kind(&parameter["schema"]), text(&parameter["description"])]
            });
            html.push_str(&table(["parameter", "in", "type", ""], parameters));
            let responses = entries(&operation["responses"]).map(|(status, response)| {
                let headers: Vec<String> = entries(&response["headers"])
                    .map(|(name, header)| format!("<code>{}</code>: {}", escaped(name), text(&header["description"])))
                    .collect();
                let body = entries(&response["content"]).map(|(_, content)| kind(&content["schema"])).next();
                [escaped(status), body.unwrap_or_default(), text(&response["description"]), headers.join("<br>")]
            });
            html.push_str(&table(["status", "body", "", "headers"], responses));
        }
    }
    for (name, schema) in entries(&document["components"]["schemas"]) {
        let name = escaped(name);
        html.push_str(&format!("<h3 id=\"{name}\">{name}</h3><p>{}</p>", text(&schema["description"])));
        if let Some(values) = schema["enum"].as_array() {
            let values: Vec<String> = values.iter().map(|value| format!("<code>{}</code>", text(value))).collect();
            html.push_str(&format!("<p>One of {}</p>", values.join(", ")));
        }
        let fields = entries(&schema["properties"]).map(|(name, field)| {
            [format!("<code>{}</code>", escaped(name)), kind(field), text(&field["description"]), String::new()]
        });
        html.push_str(&table(["field", "type", "", ""], fields));
    }
    html.push_str("</html>\n");
    html
}

fn entries(object: &Value) -> impl Iterator<Item = (&String, &Value)> {
    object.as_object().into_iter().flatten()
}

/// A table, if it has rows. The cells are HTML already.
fn table(head: [&str; 4], rows: impl Iterator<Item = [String; 4]>) -> String {
    let rows: String = rows.map(|row| format!("<tr><td>{}</td></tr>", row.join("</td><td>"))).collect();
    if rows.is_empty() {
        return rows;
    }
    format!("<table><tr><th>{}</th></tr>{rows}</table>", head.join("</th><th>"))
}

/// What a value is, in a few words.
fn kind(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        return format!("<a href=\"#{name}\">{name}</a>", name = escaped(name));
    }
    let types = match &schema["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" or "),
        one => one.as_str().unwrap_or_default().to_owned(),
    };
    if schema["items"].is_object() {
        return format!("list of {}", kind(&schema["items"]));
    }
    let format = schema["format"].as_str().map(|format| format!(" ({format})")).unwrap_or_default();
    let pattern = schema["pattern"].as_str().map(|pattern| format!(" <code>{}</code>", escaped(pattern)));
    let bounds = ["minimum", "maximum"].map(|name| match &schema[name] {
        Value::Number(bound) => format!(", {name} {bound}"),
        _ => String::new(),
    });
    format!("{}{}", escaped(&format!("{types}{format}{}", bounds.concat())), pattern.unwrap_or_default())
}

/// A text of the document, as HTML.
fn text(value: &Value) -> String {
    escaped(value.as_str().unwrap_or_default())
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_shows_the_whole_description_and_loads_nothing() {
        for name in super::super::grammar::PARAMETERS {
            assert!(PAGE.contains(&format!("<code>{name}</code>")), "{name}");
        }
        for part in ["<code>GET /inclusive-usage-balances</code>", "id=\"Component\"", ">X-Total-Count<", "ONE_OFF"] {
            assert!(PAGE.contains(part), "{part}");
        }
        for foreign in ["http://", "https://", "<script", "src=", "@import", "url("] {
            assert!(!PAGE.contains(foreign), "{foreign}");
        }
    }
}
