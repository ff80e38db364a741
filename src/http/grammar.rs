//! The parameters of the query, read to the letter (`domain.md section 8`).

use std::borrow::Cow;

use crate::store::{Filters, SortKey};

/// The most ids that one filter takes.
const MOST_IDS: usize = 1_000;
/// The most rows of a page.
const MOST_ROWS: i32 = 1_000;
/// The most of a value that a message shows, in characters.
const SHOWN: usize = 60;

/// A query, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Query {
    /// From 1.
    pub(super) page: i32,
    /// Rows of a page.
    pub(super) page_size: i32,
    /// In this order, each with whether it is turned; without the default ties.
    pub(super) sort: Vec<(SortKey, bool)>,
    /// Which fields to return; all when `None`.
    pub(super) fields: Option<Vec<Field>>,
    pub(super) filters: Filters,
    /// All parameters but `page`, as they came, for links.
    pub(super) others: String,
}

impl Query {
    /// Whether a field is to be returned.
    pub(super) fn wants(&self, field: Field) -> bool {
        self.fields.as_ref().is_none_or(|fields| fields.contains(&field))
    }
}

/// A top-level field of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    BillRunId,
    PeriodStartDate,
    PeriodEndDate,
    UsageProductInventoryId,
    Assignments,
}

impl Field {
    pub(super) const ALL: [Field; 5] = [
        Field::BillRunId,
        Field::PeriodStartDate,
        Field::PeriodEndDate,
        Field::UsageProductInventoryId,
        Field::Assignments,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Field::BillRunId => "billRunId",
            Field::PeriodStartDate => "periodStartDate",
            Field::PeriodEndDate => "periodEndDate",
            Field::UsageProductInventoryId => "usageProductInventoryId",
            Field::Assignments => "inclusiveUsageBalanceAssignments",
        }
    }
}

/// The fields by which rows can be sorted.
pub(super) const SORT_KEYS: [(SortKey, Field); 4] = [
    (SortKey::BillRunId, Field::BillRunId),
    (SortKey::PeriodStartDate, Field::PeriodStartDate),
    (SortKey::PeriodEndDate, Field::PeriodEndDate),
    (SortKey::UsageProductInventoryId, Field::UsageProductInventoryId),
];

/// Every parameter there is.
pub(super) const PARAMETERS: [&str; 11] = [
    "page",
    "pageSize",
    "sort",
    "fields",
    "customerId",
    "siteId",
    "usageProductInventoryId",
    "billRunId",
    "assignmentId",
    "inclusiveUsagePlanId",
    "componentId",
];

/// Reads a raw query string; the error is a message that names parameter, value and rule.
pub(super) fn read(raw: &str) -> Result<Query, String> {
    let mut values: [Option<String>; PARAMETERS.len()] = Default::default();
    let mut others: Vec<&str> = Vec::new();
    for pair in raw.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name =
            decoded(name).ok_or_else(|| format!("{}: the name is no percent-encoded UTF-8 text", shown(name)))?;
        let Some(at) = PARAMETERS.iter().position(|known| *known == name) else {
            return Err(format!("{}: is no parameter; known are {}", shown(&name), PARAMETERS.join(", ")));
        };
        let value =
            decoded(value).ok_or_else(|| format!("{name}: \"{}\" is no percent-encoded UTF-8 text", shown(value)))?;
        if value.is_empty() {
            return Err(format!("{name}: is empty"));
        }
        if let Some(first) = values[at].replace(value.into_owned()) {
            let second = values[at].as_deref().unwrap_or_default();
            return Err(format!("{name}: is given twice, \"{}\" and \"{}\"", shown(&first), shown(second)));
        }
        if name != "page" {
            others.push(pair);
        }
    }
    let mut values = values.into_iter();
    let mut next = || values.next().flatten();
    Ok(Query {
        page: count("page", next(), i32::MAX)?,
        page_size: count("pageSize", next(), MOST_ROWS)?,
        sort: next().map_or(Ok(Vec::new()), |value| sort(&value))?,
        fields: next().map(|value| fields(&value)).transpose()?,
        filters: Filters {
            customers: ids("customerId", next())?,
            sites: ids("siteId", next())?,
            lines: ids("usageProductInventoryId", next())?,
            bill_runs: ids("billRunId", next())?,
            assignments: ids("assignmentId", next())?,
            plans: ids("inclusiveUsagePlanId", next())?,
            components: ids("componentId", next())?,
        },
        others: others.join("&"),
    })
}

/// Undoes percent-encoding; `None` for a broken escape or for bytes that are no UTF-8.
fn decoded(text: &str) -> Option<Cow<'_, str>> {
    if !text.bytes().any(|byte| byte == b'%' || byte == b'+') {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let (high, low) = (rest.next()?, rest.next()?);
                hex(high)? << 4 | hex(low)?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// A value for a message, shortened.
fn shown(value: &str) -> String {
    let mut shown: String = value.chars().take(SHOWN).collect();
    if value.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

/// The most digits of a number.
const MOST_DIGITS: usize = 19;

fn digits(text: &str) -> Option<i64> {
    let plain = (1..=MOST_DIGITS).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

fn count(name: &str, value: Option<String>, most: i32) -> Result<i32, String> {
    let value = value.ok_or_else(|| format!("{name}: is missing; give a number from 1 to {most}"))?;
    let number = digits(&value).and_then(|number| i32::try_from(number).ok());
    let number = number.filter(|number| (1..=most).contains(number));
    number.ok_or_else(|| format!("{name}: {} is no number from 1 to {most}", shown(&value)))
}

fn ids(name: &str, value: Option<String>) -> Result<Option<Vec<i64>>, String> {
    let Some(value) = value else { return Ok(None) };
    let list: Vec<&str> = match value.strip_prefix("in:") {
        Some(list) => list.split(',').collect(),
        None => vec![&value],
    };
    if list.len() > MOST_IDS {
        return Err(format!("{name}: {} ids are more than {MOST_IDS}; ask several times", list.len()));
    }
    let id = |text: &&str| {
        digits(text).ok_or_else(|| {
            format!("{name}: \"{}\" is no id; give an integer from 0 to {}, or in:1,2,3", shown(text), i64::MAX)
        })
    };
    let mut ids = list.iter().map(id).collect::<Result<Vec<i64>, _>>()?;
    ids.sort_unstable();
    if let Some(twice) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(format!("{name}: {} is named twice", twice[0]));
    }
    Ok(Some(ids))
}

fn sort(value: &str) -> Result<Vec<(SortKey, bool)>, String> {
    let mut keys: Vec<(SortKey, bool)> = Vec::new();
    for part in value.split(',') {
        let (name, turned) = match part.split_once(':') {
            None | Some((_, "asc")) => (part.split(':').next().unwrap_or_default(), false),
            Some((name, "desc")) => (name, true),
            Some((_, order)) => return Err(format!("sort: \"{}\" is neither asc nor desc", shown(order))),
        };
        let known = SORT_KEYS.into_iter().find(|(_, field)| field.name() == name);
        let Some((key, field)) = known else {
            let names = SORT_KEYS.map(|(_, field)| field.name()).join(", ");
            return Err(format!("sort: \"{}\" cannot be sorted by; known are {names}", shown(name)));
        };
        if keys.iter().any(|(known, _)| *known == key) {
            return Err(format!("sort: {} is named twice", field.name()));
        }
        keys.push((key, turned));
    }
    Ok(keys)
}

fn fields(value: &str) -> Result<Vec<Field>, String> {
    let mut fields = Vec::new();
    for name in value.split(',') {
        let Some(field) = Field::ALL.into_iter().find(|field| field.name() == name) else {
            let names = Field::ALL.map(Field::name).join(", ");
            return Err(format!("fields: \"{}\" is no field; known are {names}", shown(name)));
        };
        if fields.contains(&field) {
            return Err(format!("fields: {name} is named twice"));
        }
        fields.push(field);
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_good_query_is_read() {
        let query = read("pageSize=10&page=2&sort=periodEndDate:desc,billRunId:asc&fields=billRunId&siteId=in:3,1")
            .expect("good");
        assert_eq!((query.page, query.page_size), (2, 10));
        assert_eq!(query.sort, [(SortKey::PeriodEndDate, true), (SortKey::BillRunId, false)]);
        assert_eq!(query.fields, Some(vec![Field::BillRunId]));
        assert_eq!(query.filters, Filters { sites: Some(vec![1, 3]), ..Filters::default() });
        assert_eq!(query.others, "pageSize=10&sort=periodEndDate:desc,billRunId:asc&fields=billRunId&siteId=in:3,1");
        assert_eq!(
            read("page=1&pageSize=1000&customerId=in%3A1%2c2").expect("good").filters.customers,
            Some(vec![1, 2])
        );
    }

    #[test]
    fn messages_name_parameter_value_and_rule() {
        let long = format!("page=1&pageSize=1&customerId=in:{}", ["1"; 1001].join(","));
        for (raw, message) in [
            ("pageSize=1", "page: is missing; give a number from 1 to 2147483647"),
            ("page=1", "pageSize: is missing; give a number from 1 to 1000"),
            ("page=0&pageSize=1", "page: 0 is no number from 1 to 2147483647"),
            ("page=2147483648&pageSize=1", "page: 2147483648 is no number from 1 to 2147483647"),
            ("page=-1&pageSize=1", "page: -1 is no number from 1 to 2147483647"),
            ("page=+1&pageSize=1", "page:  1 is no number from 1 to 2147483647"),
            ("page=1&pageSize=1001", "pageSize: 1001 is no number from 1 to 1000"),
            ("page=1&page=2&pageSize=1", "page: is given twice, \"1\" and \"2\""),
            ("page=1&p%61ge=1&pageSize=1", "page: is given twice, \"1\" and \"1\""),
            ("page=&pageSize=1", "page: is empty"),
            ("page&pageSize=1", "page: is empty"),
            ("page=%ff&pageSize=1", "page: \"%ff\" is no percent-encoded UTF-8 text"),
            ("page=%4&pageSize=1", "page: \"%4\" is no percent-encoded UTF-8 text"),
            (
                "page=1&pageSize=1&siteId=-1",
                "siteId: \"-1\" is no id; give an integer from 0 to 9223372036854775807, or in:1,2,3",
            ),
            (
                "page=1&pageSize=1&siteId=in:",
                "siteId: \"\" is no id; give an integer from 0 to 9223372036854775807, or in:1,2,3",
            ),
            (
                "page=1&pageSize=1&siteId=in:1,%202",
                "siteId: \" 2\" is no id; give an integer from 0 to 9223372036854775807, or in:1,2,3",
            ),
            (
                "page=1&pageSize=1&siteId=1,2",
                "siteId: \"1,2\" is no id; give an integer from 0 to 9223372036854775807, or in:1,2,3",
            ),
            (
                "page=1&pageSize=1&siteId=00000000000000000001",
                "siteId: \"00000000000000000001\" is no id; give an integer from 0 to 9223372036854775807, or in:1,2,3",
            ),
            ("page=1&pageSize=1&siteId=in:1,1", "siteId: 1 is named twice"),
            ("page=1&pageSize=1&sort=billRunId,billRunId:desc", "sort: billRunId is named twice"),
            ("page=1&pageSize=1&sort=billRunId:up", "sort: \"up\" is neither asc nor desc"),
            (
                "page=1&pageSize=1&sort=siteId",
                "sort: \"siteId\" cannot be sorted by; known are billRunId, periodStartDate, periodEndDate, usageProductInventoryId",
            ),
            ("page=1&pageSize=1&fields=billRunId,billRunId", "fields: billRunId is named twice"),
            (
                "page=1&pageSize=1&fields=x",
                "fields: \"x\" is no field; known are billRunId, periodStartDate, periodEndDate, usageProductInventoryId, inclusiveUsageBalanceAssignments",
            ),
            (&long, "customerId: 1001 ids are more than 1000; ask several times"),
        ] {
            assert_eq!(read(raw).expect_err(raw), message);
        }
        let unknown = read("page=1&pageSize=1&colour=red").expect_err("unknown");
        assert!(unknown.starts_with("colour: is no parameter; known are page, pageSize"), "{unknown}");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(raw in "\\PC{0,80}") {
            let _ = read(&raw);
        }

        #[test]
        fn near_valid_queries_are_read_or_refused(
            pairs in prop::collection::vec(("(page|pageSize|sort|fields|siteId|billRunId)", "(in:)?[0-9a-zA-Z:,%+]{0,12}"), 0..6),
        ) {
            let raw: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
            if let Ok(query) = read(&raw.join("&")) {
                prop_assert!(query.page >= 1 && (1..=1000).contains(&query.page_size));
            }
        }
    }
}
