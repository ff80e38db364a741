//! Addresses that may hold a password, which is never shown. What lies behind their scheme is for those to judge who
//! connect.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

use super::values::REDACTED;

/// The kinds of stores there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreKind {
    /// For any number of processes.
    Postgres,
    /// A file, for one process with all roles.
    Sqlite,
}

/// The address of a store. Its password is never shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct StoreUrl {
    kind: StoreKind,
    /// As it was given.
    url: String,
    /// With the password that a file holds, if one does.
    whole: String,
}

impl StoreUrl {
    /// What kind of store it names.
    pub fn kind(&self) -> StoreKind {
        self.kind
    }

    /// The whole address with its password, for the one place that connects.
    pub fn expose(&self) -> &str {
        &self.whole
    }

    /// Gives the address its password; or says why it takes none.
    pub(super) fn set_password(&mut self, password: &str) -> Result<(), &'static str> {
        if self.kind == StoreKind::Sqlite {
            return Err("is SQLite, which has no password; take the key out");
        }
        if redacted(&self.url) != self.url {
            return Err("holds a password too; set one of the two");
        }
        let sign = if self.url.contains('?') { '&' } else { '?' };
        let encoded: String = password.bytes().map(|byte| format!("%{byte:02X}")).collect();
        self.whole = format!("{}{sign}password={encoded}", self.url);
        Ok(())
    }
}

impl TryFrom<String> for StoreUrl {
    type Error = &'static str;

    fn try_from(url: String) -> Result<StoreUrl, &'static str> {
        let kind = match url.split_once("://") {
            Some(("postgres" | "postgresql", rest)) if !rest.is_empty() => StoreKind::Postgres,
            Some(("sqlite", rest)) if !rest.is_empty() => StoreKind::Sqlite,
            _ => return Err("wants postgres://user@host/database, or sqlite://file for one process with all roles"),
        };
        Ok(StoreUrl { kind, whole: url.clone(), url })
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redacted(&self.url))
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for StoreUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// An address on the web. Its password is never shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct WebUrl(String);

impl WebUrl {
    /// The whole address with its password, for the one place that connects.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for WebUrl {
    type Error = &'static str;

    fn try_from(url: String) -> Result<WebUrl, &'static str> {
        match url.split_once("://") {
            Some(("http" | "https", rest)) if !rest.is_empty() => Ok(WebUrl(url)),
            _ => Err("wants an http:// or https:// address"),
        }
    }
}

impl fmt::Display for WebUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redacted(&self.0))
    }
}

impl fmt::Debug for WebUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for WebUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&redacted(&self.0))
    }
}

/// What the names of an address's parameters that hold secrets have in common.
const SECRET_WORDS: [&str; 6] = ["password", "secret", "token", "apikey", "api_key", "sig"];

/// An address as it may be shown, whether or not it is a good one: without the password before the `@` and in the query.
/// Where it is odd, rather too much is hidden than too little.
pub(super) fn redacted(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
    let (user, place) = rest.rsplit_once('@').unwrap_or(("", rest));
    let mut shown = String::new();
    if rest.len() != url.len() {
        shown.push_str(scheme);
        shown.push_str("://");
    }
    if rest.len() != place.len() {
        match user.split_once(':') {
            Some((name, _)) => shown.push_str(&format!("{name}:{REDACTED}@")),
            None => shown.push_str(&format!("{user}@")),
        }
    }
    let Some((path, query)) = place.split_once('?') else {
        return shown + place;
    };
    let parts = query.split('&').map(|part| match part.split_once('=') {
        Some((name, _)) if SECRET_WORDS.iter().any(|word| name.to_ascii_lowercase().contains(word)) => {
            format!("{name}={REDACTED}")
        }
        _ => part.to_owned(),
    });
    format!("{shown}{path}?{}", parts.collect::<Vec<_>>().join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_never_shown() {
        for (url, shown) in [
            ("postgres://headroom:s3cret@db:5432/headroom", "postgres://headroom:[redacted]@db:5432/headroom"),
            ("postgres://headroom:s3/c@r?e:t@db/headroom", "postgres://headroom:[redacted]@db/headroom"),
            ("postgres://:s3cret@db/headroom", "postgres://:[redacted]@db/headroom"),
            ("postgres://headroom@db/headroom", "postgres://headroom@db/headroom"),
            (
                "postgres:///headroom?host=/run/pg&password=s3cret",
                "postgres:///headroom?host=/run/pg&password=[redacted]",
            ),
            ("mysql://root:s3cret@db/x", "mysql://root:[redacted]@db/x"),
            ("headroom:s3cret@db", "headroom:[redacted]@db"),
            ("sqlite:///var/lib/headroom.db", "sqlite:///var/lib/headroom.db"),
            ("nonsense", "nonsense"),
        ] {
            assert_eq!(redacted(url), shown);
        }
    }
}
