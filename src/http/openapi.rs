//! The query's description, OpenAPI 3.1, at `/openapi.json`: made from the types and parameters below.

use axum::http::StatusCode;
use axum::response::Response;
use utoipa::OpenApi;
use utoipa::openapi::RefOr;
use utoipa::openapi::path::ParameterIn;
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};

use super::answer::json_response;
use super::patterns;

/// The path of the description.
pub(super) const PATH: &str = "/openapi.json";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "headroom",
        description = "Inclusive usage balances: how much is left of each customer's bundles. HEAD is answered as GET is, without the \
body. What cannot be read as an HTTP request at all, or is far larger than what is allowed, is refused with 400, 414 or 431 and no \
body.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    paths(balances, description, page),
    modifiers(&Bearer, &Patterns)
)]
struct Description;

/// The token that the query asks for.
struct Bearer;

impl utoipa::Modify for Bearer {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_with(Default::default);
        let scheme = SecurityScheme::Http(Http::builder().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build());
        components.add_security_scheme("bearer", scheme);
    }
}

/// What a parameter takes.
struct Patterns;

impl utoipa::Modify for Patterns {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let query = openapi.paths.paths.get_mut(super::query::PATH).and_then(|path| path.get.as_mut());
        for parameter in query.into_iter().flat_map(|query| query.parameters.iter_mut().flatten()) {
            let RefOr::T(parameter) = parameter else { continue };
            if let (ParameterIn::Query, Some(pattern)) = (&parameter.parameter_in, patterns::of(&parameter.name)) {
                parameter.schema = Some(ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern)).into());
            }
        }
    }
}

/// Inclusive usage balances, a row for each bill run, customer and UPI
///
/// Without billRunId the rows are those of the open bill runs. Ids are one id each, or `in:1,2,3`, from 0 to 9223372036854775807, none twice and at most
/// 1,000; all given must hold.
#[utoipa::path(
    get,
    path = "/inclusive-usage-balances",
    operation_id = "getInclusiveUsageBalances",
    security(("bearer" = [])),
    params(
        ("page" = i32, Query, minimum = 1, description = "From 1"),
        ("pageSize" = i32, Query, minimum = 1, maximum = 1000, description = "Rows of a page"),
        ("sort" = Option<String>, Query, description = "Comma list of top-level scalar fields, each with `:desc` to turn it or `:asc`; default `billRunId,usageProductInventoryId`, which also break ties; none twice"),
        ("fields" = Option<String>, Query, description = "Comma list of the top-level fields to return, none twice"),
        ("customerId" = Option<String>, Query, description = "Rows of these customers"),
        ("siteId" = Option<String>, Query, description = "Rows of UPIs at these sites"),
        ("usageProductInventoryId" = Option<String>, Query, description = "Rows of these UPIs"),
        ("billRunId" = Option<String>, Query, description = "Rows of these bill runs, whatever their status"),
        ("assignmentId" = Option<String>, Query, description = "Only these assignments; rows left empty go"),
        ("inclusiveUsagePlanId" = Option<String>, Query, description = "Only assignments of these plans; rows left empty go"),
        ("componentId" = Option<String>, Query, description = "Only these components; rows left empty go"),
        ("Prefer" = Option<String>, Header, description = "`count=exact` adds X-Total-Count")
    ),
    responses(
        (status = 200, description = "A page of rows; an empty list past the last one", body = Vec<Row>, headers(
            ("Link" = String, description = "RFC 8288, relative: `first` always, `prev` from page 2, `next` when a further row exists"),
            ("Headroom-Applied" = Option<String>, description = "RFC 3339: all that the inputs held at this time is in the answer; left out as long as that is not known"),
            ("X-Total-Count" = Option<i64>, description = "All rows after filters and token, when preferred"),
            ("Preference-Applied" = Option<String>, description = "`count=exact`, when preferred")
        )),
        (status = 400, description = "A parameter is unknown, given twice, empty or wrong", body = Error),
        (status = 401, description = "No token, or a bad or expired one", body = Error, headers(
            ("WWW-Authenticate" = String, description = "`Bearer`")
        )),
        (status = 403, description = "The token's scope lacks balances:read", body = Error),
        (status = 405, description = "Another method than GET and HEAD", body = Error, headers(
            ("Allow" = String, description = "`GET, HEAD`")
        )),
        (status = 414, description = "The URL is too long", body = Error),
        (status = 431, description = "The headers are too large", body = Error),
        (status = 500, description = "A fault of the service, which stands in its log", body = Error),
        (status = 503, description = "The store or the keys for tokens do not answer, or too many ask", body = Error, headers(
            ("Retry-After" = i32, description = "Seconds after which to ask again")
        ))
    )
)]
#[expect(dead_code, reason = "utoipa describes paths by functions; the answer itself is made in query.rs")]
fn balances() {}

/// This description
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "getDescription",
    responses(
        (status = 200, description = "OpenAPI 3.1", body = Object),
        (status = 405, description = "Another method than GET and HEAD", body = Error, headers(
            ("Allow" = String, description = "`GET, HEAD`")
        )),
        (status = 414, description = "The URL is too long", body = Error),
        (status = 431, description = "The headers are too large", body = Error)
    )
)]
#[expect(dead_code, reason = "utoipa describes paths by functions")]
fn description() {}

/// This description as a page for people
#[utoipa::path(
    get,
    path = "/docs",
    operation_id = "getDocs",
    responses(
        (status = 200, description = "A page without scripts", body = String, content_type = "text/html"),
        (status = 405, description = "Another method than GET and HEAD", body = Error, headers(
            ("Allow" = String, description = "`GET, HEAD`")
        )),
        (status = 414, description = "The URL is too long", body = Error),
        (status = 431, description = "The headers are too large", body = Error)
    )
)]
#[expect(dead_code, reason = "utoipa describes paths by functions")]
fn page() {}

/// What is left for one UPI in one bill run
#[derive(utoipa::ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "a description")]
struct Row {
    // `fields` may leave any of them out; none is ever null.
    #[schema(required = false)]
    bill_run_id: i64,
    #[schema(required = false, format = Date)]
    period_start_date: String,
    #[schema(required = false, format = Date)]
    period_end_date: String,
    #[schema(required = false)]
    usage_product_inventory_id: i64,
    #[schema(required = false)]
    inclusive_usage_balance_assignments: Vec<Assignment>,
}

/// An assignment that covers the UPI
#[derive(utoipa::ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "a description")]
struct Assignment {
    assignment_id: i64,
    assignment_level: Level,
    #[schema(format = Date)]
    assignment_start_date: String,
    /// null when it is open
    #[schema(required, format = Date)]
    assignment_end_date: Option<String>,
    inclusive_usage_plan_id: i64,
    components: Vec<Component>,
}

/// To whom a plan is given
#[derive(utoipa::ToSchema)]
#[schema(rename_all = "UPPERCASE")]
#[expect(dead_code, reason = "a description")]
enum Level {
    Inventory,
    Site,
    Customer,
}

/// A bucket; numbers are exact decimals with at most 6 decimals
#[derive(utoipa::ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "a description")]
struct Component {
    component_id: i64,
    /// Whether the allowance is money, in the minor currency unit
    by_value: bool,
    charging_type: ChargingType,
    #[schema(schema_with = decimal)]
    allowance: f64,
    #[schema(schema_with = decimal)]
    remaining: f64,
    /// `yyyy-MM-dd HH:mm:ss`: the window's first second
    start_date: String,
    /// `yyyy-MM-dd HH:mm:ss`: the last second before expiry
    end_date: String,
}

/// A number that need not fit a double.
fn decimal() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::Number)
        .description(Some("An exact decimal with up to 19 digits, 6 of them decimals"))
        .build()
}

/// Seconds, megabytes of 10^6 bytes, or a count
#[derive(utoipa::ToSchema)]
#[expect(
    dead_code,
    clippy::upper_case_acronyms,
    non_camel_case_types,
    reason = "a description, in the words of the wire"
)]
enum ChargingType {
    DURATION,
    MB,
    ONE_OFF,
}

/// Why a request was not answered
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "a description")]
struct Error {
    error: String,
    message: String,
}

/// The description as JSON.
fn text() -> String {
    Description::openapi().to_json().expect("a description always has a JSON form")
}

/// The description as a value.
pub(super) fn value() -> serde_json::Value {
    serde_json::to_value(Description::openapi()).expect("a description always has a JSON form")
}

/// Answers `/openapi.json`.
pub(super) async fn document() -> Response {
    json_response(StatusCode::OK, text())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use crate::http::grammar::{Field, PARAMETERS};

    #[test]
    fn it_describes_every_parameter_and_field() {
        let document: Value = serde_json::from_str(&super::text()).expect("JSON");
        assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")));
        let parameters =
            document["paths"]["/inclusive-usage-balances"]["get"]["parameters"].as_array().expect("a list");
        let names: Vec<&str> = parameters.iter().filter_map(|parameter| parameter["name"].as_str()).collect();
        for name in PARAMETERS {
            assert!(names.contains(&name), "{name}");
            let described = parameters.iter().find(|parameter| parameter["name"] == name).expect("it is there");
            let pattern = crate::http::patterns::of(name);
            assert_eq!(described["schema"]["pattern"].as_str(), pattern.as_deref(), "{name}");
        }
        let row = &document["components"]["schemas"]["Row"]["properties"];
        for field in Field::ALL {
            assert!(row[field.name()].is_object(), "{}", field.name());
            // A type besides null would be a list of both.
            assert!(row[field.name()]["type"].is_string(), "{} is never null", field.name());
        }
        assert!(document["components"]["schemas"]["Row"]["required"].is_null(), "`fields` may leave any out");
        let remaining = &document["components"]["schemas"]["Component"]["properties"]["remaining"];
        assert_eq!((&remaining["type"], &remaining["format"]), (&Value::from("number"), &Value::Null));
    }
}
