//! The statements of a page, for both databases. Everything put into them is a number that was read as one.
//!
//! Which index a statement walks is settled here, not left to what a planner estimates: where few rows are to be found by
//! customer or site, the part that finds them is fenced off from the order and the page. Rows of the contract owners of a
//! token have indexes in that order.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::Filters;
use super::sources::{self, Group, Kind, Source};
use super::terms::{Shape, Terms};

/// What the databases say in different words.
#[derive(Debug)]
pub(in crate::store) struct Dialect {
    /// Keeps a subquery apart from what is around it.
    pub(in crate::store) fence: &'static str,
    /// A date as days since 1970-01-01.
    pub(in crate::store) days: fn(&str) -> String,
    /// An instant as microseconds since 1970-01-01.
    pub(in crate::store) micros: fn(&str) -> String,
    /// Microseconds since 1970-01-01 as an instant.
    pub(in crate::store) instant: fn(&str) -> String,
    /// Whether a column of ids and a list have one in common.
    pub(in crate::store) any_of: fn(&str, &str) -> String,
    /// Whether one part of a statement can be made for each row of another.
    pub(in crate::store) lateral: bool,
    /// The parts of a stored row `s`, as rows `n` of assignment, plan and component.
    pub(in crate::store) parts: &'static str,
}

/// By what the rows of a source are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Way {
    /// By customers, each with its partition.
    Customers(Vec<(i32, i64)>),
    /// By customers, each with its partition, too many to name: so many at most, of this statement.
    ManyCustomers { named: String, count: i64 },
    /// Of such customers among the first so many of the order, which may be turned.
    First { named: String, rows: i64, turned: bool },
    /// By the sites of the filter.
    Sites,
    /// By the order in which they stand.
    Order,
}

/// What all statements of a question share.
#[derive(Debug)]
pub(super) struct Statements<'a> {
    pub(super) dialect: &'a Dialect,
    pub(super) filters: &'a Filters,
    pub(super) owners: Option<&'a [i64]>,
    /// How many partitions may have rows.
    pub(super) partitions: usize,
    /// By what live rows are found, and stored ones.
    pub(super) ways: (Way, Way),
}

/// Numbers as a list.
pub(super) fn list<T: ToString>(numbers: impl IntoIterator<Item = T>) -> String {
    let texts: Vec<String> = numbers.into_iter().map(|number| number.to_string()).collect();
    texts.join(", ")
}

/// Lists as a list of rows.
pub(super) fn tuples<'a>(lists: impl IntoIterator<Item = &'a String>) -> String {
    list(lists.into_iter().map(|list| format!("({list})")))
}

/// Pairs as a list.
fn pairs(pairs: impl IntoIterator<Item = (i32, i64)>) -> String {
    list(pairs.into_iter().map(|(one, other)| format!("({one}, {other})")))
}

/// How many rows of the order may be looked at for each of many customers before rows are looked for by these: that takes as
/// long as half a dozen rows of one.
const FIRST: i64 = 20;

/// The most parts that SQLite takes one after the other.
const MOST_PARTS: usize = 500;

/// The first so many rows of the order, ...
fn first_of_order(rows: i64, turned: bool) -> String {
    let turned = if turned { " DESC" } else { "" };
    format!(" ORDER BY s.usage_product_inventory_id{turned}, s.customer_id LIMIT {rows}")
}

/// ... and that one of them is of these customers. A condition that is no join, so that the order stays.
fn of_these(customers: &str) -> String {
    format!(" AND ((s.partition, s.customer_id) IN (SELECT partition, customer_id FROM {customers})) IS TRUE")
}

/// The rows of all branches.
fn union(branches: Vec<String>) -> String {
    const ALL: &str = " UNION ALL ";
    if branches.len() <= MOST_PARTS {
        return branches.join(ALL);
    }
    let part = |part: &[String]| format!("SELECT * FROM ({}) p", part.join(ALL));
    branches.chunks(MOST_PARTS).map(part).collect::<Vec<String>>().join(ALL)
}

impl Statements<'_> {
    /// How many rows each of these groups has, if it has any: its place among them, and the number. Of a source no more are
    /// counted than one more than `most`.
    pub(super) fn count(&self, groups: &[Group], most: Option<i64>) -> String {
        let (group, by) = if groups.len() == 1 { ("0", "") } else { ("k.in_group", " GROUP BY k.in_group") };
        let cut = most.map_or_else(String::new, |most| format!(" LIMIT {}", most.saturating_add(1)));
        format!(
            "{}SELECT CAST({group} AS bigint), CAST(count(*) AS bigint) FROM ({}) k{by}",
            self.customers(),
            union(self.branches(groups, &cut))
        )
    }

    /// Rows of groups: the place of the source among theirs, partition, customer, line, site, product, and of a stored row
    /// what is nested.
    pub(super) fn page(&self, groups: &[Group], skip: i64, limit: i64) -> String {
        let turned = if groups.iter().any(|group| group.turned) { " DESC" } else { "" };
        // Within one source there is nothing to rank. Of several each comes in its order and no further than the page, so that
        // an index gives it.
        let (rank, cut) = match sources::places(groups).count() {
            1 => ("", String::new()),
            _ => (", k.rank", format!(" ORDER BY upi{turned}, customer_id LIMIT {}", skip.saturating_add(limit))),
        };
        let group = if groups.len() == 1 { "" } else { "k.in_group, " };
        let order = format!("{group}k.upi{turned}{rank}, k.customer_id");
        let stored = sources::places(groups).any(|place| place.source.kind == Kind::Stored);
        let (entries, joined) = match stored {
            true => (
                "r.entries",
                " LEFT JOIN stored_row r ON r.partition = k.partition AND r.bill_run_id = k.bill_run_id \
                 AND r.customer_id = k.customer_id AND r.usage_product_inventory_id = k.upi",
            ),
            false => ("NULL", ""),
        };
        format!(
            "{}SELECT CAST(k.source AS bigint), CAST(k.partition AS bigint), k.customer_id, k.upi, s.site_id, \
             s.usage_product_id, {entries} FROM (SELECT * FROM ({}) k ORDER BY {order} LIMIT {limit} OFFSET {skip}) k \
             LEFT JOIN standing_row s ON s.partition = k.partition AND s.customer_id = k.customer_id \
             AND s.usage_product_inventory_id = k.upi AND s.from_micros = k.from_micros{joined} ORDER BY {order}",
            self.customers(),
            union(self.branches(groups, &cut))
        )
    }

    /// To look for a page that ends with this row at the beginning of the order, before it is looked for among many
    /// customers: half as much work at most, and little where these have much of what there is. `None` where it cannot be
    /// told that all rows of the page are there: of several sources, or where an owner's index is better than the order.
    pub(super) fn of_first(&self, groups: &[Group], last: i64) -> Option<Statements<'_>> {
        let mut places = sources::places(groups);
        let (Some(place), None) = (places.next(), places.next()) else { return None };
        let way = if place.source.kind == Kind::Stored { &self.ways.1 } else { &self.ways.0 };
        let (Way::ManyCustomers { named, count }, None) = (way, self.owners) else { return None };
        let (rows, turned) = (count.saturating_mul(FIRST), groups.iter().any(|group| group.turned));
        let first = Way::First { named: named.clone(), rows, turned };
        (last <= rows).then(|| Statements { ways: (first.clone(), first), ..*self })
    }

    /// The billing cycles in which anything that is asked for may stand now.
    pub(super) fn cycles(&self, cycles: &[i64]) -> String {
        let mut text = format!(
            "{}SELECT DISTINCT s.billing_cycle_id FROM {} WHERE s.billing_cycle_id IN ({})",
            self.customers(),
            self.live_base("s.billing_cycle_id"),
            list(cycles)
        );
        self.push_lines(&mut text);
        text
    }

    /// The customers by which rows are found, named once however many sources there are.
    fn customers(&self) -> String {
        let named = |name: &str, way: &Way| match way {
            Way::Customers(customers) if !customers.is_empty() => {
                let customers = pairs(customers.iter().copied());
                Some(format!("{name} (partition, customer_id) AS (VALUES {customers})"))
            }
            Way::ManyCustomers { named, .. } | Way::First { named, .. } => {
                Some(format!("{name} (partition, customer_id) AS ({named})"))
            }
            _ => None,
        };
        let (live, stored) = &self.ways;
        let lists = [named("live_customer", live), named("stored_customer", stored)];
        let lists: Vec<String> = lists.into_iter().flatten().collect();
        if lists.is_empty() { String::new() } else { format!("WITH {} ", lists.join(", ")) }
    }

    /// The rows of these groups' sources, of each as far as `cut` leaves them. A database that can takes all sources of a shape
    /// in one branch: it plans branch by branch, and hundreds take it longer than their rows.
    fn branches(&self, groups: &[Group], cut: &str) -> Vec<String> {
        let sources = || sources::places(groups).enumerate().map(|(at, place)| (Terms::of(at, &place), place.source));
        if !self.dialect.lateral || sources().count() == 1 {
            let cut_off = |branch: String| match cut {
                "" => branch,
                cut => format!("SELECT * FROM ({branch}{cut}) b"),
            };
            return sources().map(|(terms, source)| cut_off(self.branch(&terms, source))).collect();
        }
        // Of each shape one source, for what they share, and the rows that tell them apart.
        let mut shapes: BTreeMap<_, (&Source, Vec<String>)> = BTreeMap::new();
        for (terms, source) in sources() {
            let shape = (Shape::of(source), source.partitions.as_slice());
            shapes.entry(shape).or_insert_with(|| (source, Vec::new())).1.push(terms.into_row());
        }
        let branch = |(source, rows): &(&Source, Vec<String>)| {
            let branch = self.branch(&Terms::columns(), source);
            format!("SELECT b.* FROM (VALUES {}) {} CROSS JOIN LATERAL ({branch}{cut}) b", rows.join(", "), Terms::LIST)
        };
        shapes.values().map(branch).collect()
    }

    fn branch(&self, terms: &Terms, source: &Source) -> String {
        let Terms { source: at, group, rank, run, cycle, from, until, done } = terms;
        let from_micros = match source.kind {
            Kind::Live { .. } => "s.from_micros",
            Kind::Stored => "CAST(NULL AS bigint)",
        };
        let mut text = format!(
            "SELECT {at} AS source, {group} AS in_group, {rank} AS rank, CAST({run} AS bigint) AS bill_run_id, s.partition AS partition, \
             s.customer_id AS customer_id, s.usage_product_inventory_id AS upi, {from_micros} AS from_micros FROM ",
        );
        match source.kind {
            Kind::Live { storing, .. } => {
                text.push_str(&self.live_base(cycle));
                let _ = write!(
                    text,
                    " WHERE s.billing_cycle_id = {cycle} AND s.from_micros < {until} AND s.until_micros > {from} \
                     AND (s.after_micros IS NULL OR s.after_micros <= {from})"
                );
                if storing.is_some() {
                    let _ = write!(
                        text,
                        " AND s.customer_id > {done} AND NOT EXISTS (SELECT 1 FROM stored_ahead h \
                         WHERE h.partition = s.partition AND h.bill_run_id = {run} AND h.customer_id = s.customer_id)"
                    );
                }
                if let Way::First { .. } = self.ways.0 {
                    text.push_str(&of_these("live_customer"));
                }
                if self.filters.prune() {
                    text.push_str(&self.covered(terms));
                }
            }
            Kind::Stored => {
                text.push_str(&self.stored_base(run));
                let _ = write!(text, " WHERE s.bill_run_id = {run}");
                if let Way::First { .. } = self.ways.1 {
                    text.push_str(&of_these("stored_customer"));
                }
                self.push_parts(&mut text);
            }
        }
        if source.partitions.len() < self.partitions {
            let _ = write!(text, " AND s.partition IN ({})", list(&source.partitions));
        }
        self.push_lines(&mut text);
        if let Some(sites) = &self.filters.sites {
            let _ = write!(text, " AND s.site_id IN ({})", list(sites));
        }
        if let Some(owners) = self.owners {
            let _ = write!(text, " AND s.contract_owner_id IN ({})", list(owners));
        }
        text
    }

    fn push_lines(&self, text: &mut String) {
        if let Some(lines) = &self.filters.lines {
            let _ = write!(text, " AND s.usage_product_inventory_id IN ({})", list(lines));
        }
    }

    /// That a part of the stored row is asked for.
    fn push_parts(&self, text: &mut String) {
        let Filters { assignments, plans, components, .. } = self.filters;
        let asked: Vec<(&str, &str, String)> = [
            ("assignment_ids", "assignment", assignments),
            ("inclusive_usage_plan_ids", "plan", plans),
            ("component_ids", "component", components),
        ]
        .into_iter()
        .filter_map(|(column, name, ids)| Some((column, name, list(ids.as_ref()?))))
        .collect();
        for (column, _, ids) in &asked {
            let _ = write!(text, " AND {}", (self.dialect.any_of)(&format!("s.{column}"), ids));
        }
        if asked.len() > 1 {
            let together: Vec<String> = asked.iter().map(|(_, name, ids)| format!("n.{name} IN ({ids})")).collect();
            let _ = write!(text, " AND EXISTS (SELECT 1 FROM {} WHERE {})", self.dialect.parts, together.join(" AND "));
        }
    }

    /// Where live rows of a cycle are looked for.
    fn live_base(&self, cycle: &str) -> String {
        let fence = self.dialect.fence;
        match &self.ways.0 {
            Way::Order => "standing_row s".to_owned(),
            Way::Sites => {
                let sites = list(self.filters.sites.iter().flatten());
                format!("(SELECT s.* FROM standing_row s WHERE s.site_id IN ({sites}){fence}) s")
            }
            Way::First { rows, turned, .. } => {
                let order = first_of_order(*rows, *turned);
                format!("(SELECT s.* FROM standing_row s WHERE s.billing_cycle_id = {cycle}{order}) s")
            }
            Way::Customers(_) | Way::ManyCustomers { .. } => format!(
                "(SELECT s.* FROM live_customer c JOIN standing_row s ON s.partition = c.partition \
                 AND s.customer_id = c.customer_id{fence}) s"
            ),
        }
    }

    /// Where stored rows of a run are looked for.
    fn stored_base(&self, run: &str) -> String {
        let fence = self.dialect.fence;
        match &self.ways.1 {
            Way::Order => "stored_row s".to_owned(),
            Way::Sites => {
                let sites = list(self.filters.sites.iter().flatten());
                format!(
                    "(SELECT s.* FROM stored_row s WHERE s.bill_run_id = {run} AND s.site_id IN ({sites}){fence}) s"
                )
            }
            Way::First { rows, turned, .. } => {
                let order = first_of_order(*rows, *turned);
                format!("(SELECT s.* FROM stored_row s WHERE s.bill_run_id = {run}{order}) s")
            }
            Way::Customers(_) | Way::ManyCustomers { .. } => format!(
                "(SELECT s.* FROM stored_customer c JOIN stored_row s ON s.partition = c.partition \
                 AND s.bill_run_id = {run} AND s.customer_id = c.customer_id{fence}) s"
            ),
        }
    }

    /// That an assignment which is asked for covers the row in this span.
    fn covered(&self, Terms { from, until, .. }: &Terms) -> String {
        let Filters { assignments, plans, components, .. } = self.filters;
        // Asked row by row where few of the rows looked at come so far: then no planner reads all assignments beforehand.
        let (begin, end) = match self.ways.0 {
            Way::First { .. } => ("(", " LIMIT 1) IS NOT NULL"),
            _ => ("EXISTS (", ")"),
        };
        let mut text = format!(
            " AND {begin}SELECT 1 FROM assignment a WHERE a.partition = s.partition AND a.customer_id = s.customer_id \
             AND a.from_micros < {until} AND a.until_micros > {from} AND (a.usage_product_id IS NULL \
             OR s.usage_product_id IS NULL OR a.usage_product_id = s.usage_product_id) \
             AND (a.level = 2 OR a.level = 1 AND a.scope = s.site_id \
             OR a.level = 0 AND a.scope = s.usage_product_inventory_id)"
        );
        if let Some(ids) = assignments {
            let _ = write!(text, " AND a.assignment_id IN ({})", list(ids));
        }
        if let Some(ids) = plans {
            let _ = write!(text, " AND a.inclusive_usage_plan_id IN ({})", list(ids));
        }
        if let Some(ids) = components {
            let _ = write!(text, " AND {}", (self.dialect.any_of)("a.component_ids", &list(ids)));
        }
        text.push_str(end);
        text
    }
}
