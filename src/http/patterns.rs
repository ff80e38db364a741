//! What `grammar` takes, as regular expressions for the query's description. That nothing is named twice, and how many ids
//! there may be, is left to words: only expressions that look ahead can say the one, and many programs that read descriptions
//! refuse those, as they do long ones that count to a thousand.

use super::grammar::{Field, SORT_KEYS};

/// The pattern of a parameter that is a text.
pub(super) fn of(parameter: &str) -> Option<String> {
    match parameter {
        "page" | "pageSize" => None,
        "sort" => Some(list(&SORT_KEYS.map(|(_, field)| field.name()), "(:asc|:desc)?")),
        "fields" => Some(list(&Field::ALL.map(Field::name), "")),
        _ => Some(ids()),
    }
}

/// A list of these names, each with a suffix or without.
fn list(names: &[&str], suffix: &str) -> String {
    let name = format!("({}){suffix}", names.join("|"));
    format!("^{name}(,{name}){{0,{}}}$", names.len() - 1)
}

/// An id, or a list of them.
fn ids() -> String {
    let id = id();
    format!("^({id}|in:{id}(,{id})*)$")
}

/// A number of at most 19 digits and at most the greatest one.
fn id() -> String {
    let most = i64::MAX.to_string();
    // Below the greatest at one digit, and anything behind it.
    let below = most.char_indices().filter(|(_, digit)| *digit > '0').map(|(at, digit)| {
        let lower = char::from_u32(u32::from(digit) - 1).unwrap_or('0');
        let rest = most.len() - at - 1;
        format!("{}[0-{lower}][0-9]{{{rest}}}", &most[..at])
    });
    let shorter = format!("[0-9]{{1,{}}}", most.len() - 1);
    let all: Vec<String> = [shorter].into_iter().chain(below).chain([most.clone()]).collect();
    format!("({})", all.join("|"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex::Regex;

    use super::*;
    use crate::http::grammar::{PARAMETERS, read};

    /// Holds pattern and grammar to each other, where nothing is named twice.
    fn agree(parameter: &str, value: &str) {
        let pattern = Regex::new(&of(parameter).expect("a text")).expect("an expression");
        let taken = read(&format!("page=1&pageSize=1&{parameter}={value}"));
        if taken.as_ref().is_err_and(|line| line.contains("twice")) {
            return;
        }
        assert_eq!(pattern.is_match(value), taken.is_ok(), "{parameter}={value}: {taken:?}");
    }

    #[test]
    fn the_ends_of_numbers_are_those_of_the_grammar() {
        for value in [
            "0",
            "00",
            "9223372036854775807",
            "9223372036854775808",
            "9223372036854775799",
            "9223372036854775810",
            "9299999999999999999",
            "0000000000000000001",
            "00000000000000000001",
            "in:",
            "in:1",
            "in:1,",
            "in:,1",
            "1,2",
            "in:12,2",
            "-1",
            "",
        ] {
            agree("siteId", value);
        }
        for parameter in PARAMETERS.iter().skip(4) {
            assert_eq!(of(parameter), of("siteId"), "{parameter}");
        }
    }

    proptest! {
        #[test]
        fn what_fits_is_taken_and_nothing_else(
            ids in "(in:)?(0{0,2}[0-9]{1,2}|922337203685477580[0-9]|[0-9]{18,20})(,0?[0-9]{1,2}){0,4},?",
            sort in prop::collection::vec("(billRunId|periodStartDate|periodEndDate|usageProductInventoryId|x)(:asc|:desc|:)?", 1..6),
            fields in prop::collection::vec("(billRunId|periodStartDate|inclusiveUsageBalanceAssignments|Id|)", 1..7),
        ) {
            agree("customerId", &ids);
            agree("sort", &sort.join(","));
            agree("fields", &fields.join(","));
        }
    }
}
