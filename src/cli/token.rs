//! `headroom token`: a signed token for trying the query out (`domain.md section 8`).

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::value_parser;
use headroom::config::{Config, Needs, Secret, Span};
use serde::Serialize;

use super::Failure;
use super::demo::span;
use super::output::print;
use super::settings::Settings;

/// What it takes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only rows of these customers, with commas between
    #[arg(long, value_name = "IDS", value_delimiter = ',', value_parser = value_parser!(i64).range(0..))]
    customer_ids: Option<Vec<i64>>,
    /// Only rows of these contract owners, with commas between
    #[arg(long, value_name = "IDS", value_delimiter = ',', value_parser = value_parser!(i64).range(0..))]
    contract_owner_ids: Option<Vec<i64>>,
    /// What it allows, with blanks between
    #[arg(long, default_value = "balances:read")]
    scope: String,
    /// How long it is good
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = span)]
    expires: Span,
    #[command(flatten)]
    settings: Settings,
}

/// What the token says. A claim that is not there limits nothing.
#[derive(Debug, Serialize)]
struct Claims<'a> {
    exp: u64,
    scope: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    customer_ids: Option<&'a [i64]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    contract_owner_ids: Option<&'a [i64]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
}

/// Prints a token that the reader of this config takes.
pub(super) fn run(mut args: Args, file: Option<PathBuf>) -> Result<(), Failure> {
    let config = std::mem::take(&mut args.settings).load(file, Needs::TokenSecret)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let token = sign(&claims(&args, &config, now), config.hs256_secret()?)?;
    Ok(print(&token)?)
}

/// A token that may see everything, for a demo.
pub(super) fn of_demo(config: &Config) -> Result<String, anyhow::Error> {
    let exp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO) + Duration::from_secs(86_400);
    let claims = Claims {
        exp: exp.as_secs(),
        scope: "balances:read",
        customer_ids: None,
        contract_owner_ids: None,
        aud: config.auth.audience.as_deref(),
        iss: config.auth.issuer.as_deref(),
    };
    sign(&claims, config.hs256_secret()?)
}

fn claims<'a>(args: &'a Args, config: &'a Config, now: Duration) -> Claims<'a> {
    Claims {
        exp: (now + args.expires.duration()).as_secs(),
        scope: &args.scope,
        customer_ids: args.customer_ids.as_deref(),
        contract_owner_ids: args.contract_owner_ids.as_deref(),
        aud: config.auth.audience.as_deref(),
        iss: config.auth.issuer.as_deref(),
    }
}

fn sign(claims: &Claims<'_>, secret: &Secret) -> Result<String, anyhow::Error> {
    let key = jsonwebtoken::EncodingKey::from_secret(secret.expose().as_bytes());
    Ok(jsonwebtoken::encode(&jsonwebtoken::Header::default(), claims, &key)?)
}
