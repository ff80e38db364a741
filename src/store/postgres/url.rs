//! The address of a PostgreSQL database, judged before anything connects.

use std::str::FromStr;

use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;

/// The parameters that an address may have.
const PARAMETERS: [&str; 12] = [
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];
/// Those that name files.
const FILES: [&str; 3] = ["sslrootcert", "sslcert", "sslkey"];
/// What `sslmode` may be.
const SSL_MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

/// What is wrong with an address, as the end of a sentence that begins with its key. Never holds a password.
pub(in crate::store) fn check(url: &str) -> Result<(), String> {
    // A password may hold what ends it for whoever reads on, and must not be shown as a host, a database or a parameter.
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    if rest.split_once(['/', '?', '#']).is_some_and(|(_, behind)| behind.contains('@')) {
        return Err("has an @ behind its host; in a user, a password or a parameter write @ / ? # as %40 %2F %3F %23"
            .to_owned());
    }
    // A parameter that is not known would be passed over, and shown in the log with its value.
    let query = url.split_once('?').map_or("", |(_, query)| query);
    for (name, value) in
        query.split('&').filter(|part| !part.is_empty()).map(|part| part.split_once('=').unwrap_or((part, "")))
    {
        if !PARAMETERS.contains(&name) {
            return Err(format!(
                "has an unknown parameter \"{}\"; there are: {}",
                name.escape_debug(),
                PARAMETERS.join(", ")
            ));
        }
        if name == "sslmode" && !SSL_MODES.contains(&value) {
            return Err(format!("has sslmode=\"{}\"; it wants one of {}", value.escape_debug(), SSL_MODES.join(", ")));
        }
        if FILES.contains(&name) && !value.contains(['%', '+']) {
            std::fs::File::open(value).map_err(|error| format!("has {name}=\"{}\": {error}", value.escape_debug()))?;
        }
    }
    PgConnectOptions::from_str(url)
        .map(drop)
        .map_err(|_| "is no postgres://user:password@host:port/database URL".to_owned())
}

/// What every session is told.
const SESSION: [(&str, &str); 8] = [
    // A batch must never be planned as a join over all rows, and none of its statements is worth compiling.
    ("plan_cache_mode", "force_generic_plan"),
    ("jit", "off"),
    // A worker that stops or vanishes in a transaction holds its partition's progress row: the database lets go of it
    // before the group has named another owner (in a COPY it does not: `holder`).
    ("idle_in_transaction_session_timeout", "5s"),
    // Whoever waits for a lock says so by standing still, not by a statement that is refused again and again.
    ("lock_timeout", "0"),
    // No statement takes minutes but one that waits for such a worker.
    ("statement_timeout", "5min"),
    ("tcp_keepalives_idle", "4"),
    ("tcp_keepalives_interval", "1"),
    ("tcp_keepalives_count", "3"),
];

/// How to connect to an address, and where that is, for errors.
pub(super) fn options(url: &str, key: &str) -> Result<(PgConnectOptions, String), String> {
    let options = PgConnectOptions::from_str(url)
        .map_err(|_| format!("{key} is no postgres://user:password@host:port/database URL"))?
        .application_name("headroom")
        .disable_statement_logging()
        .options(SESSION);
    let place = format!(
        "database \"{}\" at {}:{} as {}",
        options.get_database().unwrap_or(options.get_username()),
        options.get_host(),
        options.get_port(),
        options.get_username()
    );
    Ok((options, place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_judged_before_anything_connects() {
        let refused = |rest: &str| check(&format!("postgres://headroom:s3cret@db/headroom{rest}")).expect_err(rest);
        for (rest, why) in [
            ("?pasword=s3cret", "has an unknown parameter \"pasword\"; there are: sslmode, "),
            ("?sslmode=verify-full&sslpassword=s3cret", "has an unknown parameter \"sslpassword\"; there are: "),
            ("?sslmode=yes", "has sslmode=\"yes\"; it wants one of disable, allow, prefer, require, verify-ca, "),
            ("?sslrootcert=/nowhere.pem", "has sslrootcert=\"/nowhere.pem\": No such file or directory"),
            ("?pass@word=s3cret", "has an @ behind its host; "),
            ("?port=s3cret", "is no postgres://user:password@host:port/database URL"),
        ] {
            let line = refused(rest);
            assert!(line.starts_with(why) && !line.contains("s3cret"), "{line}");
        }
        for url in ["postgres://headroom:s3cret?x@db/headroom", "postgres://headroom:1/s3cret@db/headroom"] {
            let line = check(url).expect_err(url);
            assert!(line.starts_with("has an @ behind its host; ") && !line.contains("s3cret"), "{line}");
        }
        for good in ["", "?sslmode=verify-full", "?host=/run/postgresql&user=x&password=y", "?options=-c%20jit%3Doff"] {
            assert_eq!(check(&format!("postgres://headroom:s3cret@db/headroom{good}")), Ok(()), "{good}");
        }
    }
}
