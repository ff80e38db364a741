//! The types of usage-events: `usage.recorded` and `usage.reversed`.

use std::borrow::Cow;
use std::time::Duration;

use super::envelope::{self, Envelope};
use super::fields::{Faults, Field, object, shown, text};
use super::object::raw_object;
use super::{Record, Reversal, Rules, UsageFact};
use crate::domain::{ChargingType, EventKey, Instant, Position, Quantity, Reason, Refusal, Usage};

raw_object! {
    /// What data say, of either type.
    Data {
        customer = "customerId", site = "siteId", upi = "usageProductInventoryId", product = "usageProductId",
        start = "startTime", charging_type = "chargingType", quantity = "quantity", price = "price",
        timeband = "timeband", charge_group = "chargeGroupId", charge_group_category = "chargeGroupCategoryId",
        destination = "destination", reverses = "reverses",
    }
}

raw_object! {
    Reverses { source = "source", id = "id", start = "startTime" }
}

type Opened<'a> = Envelope<'a, Data<'a>>;

/// `usage.recorded`, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded<'a> {
    /// Whose usage.
    pub customer: i64,
    /// The event's source.
    pub source: Cow<'a, str>,
    id: Cow<'a, str>,
    position: Position,
    site: i64,
    upi: i64,
    product: i64,
    charging_type: ChargingType,
    quantity: Quantity,
    price: Quantity,
    timeband: Option<Cow<'a, str>>,
    charge_group: Option<i64>,
    charge_group_category: Option<i64>,
    destination: Option<Cow<'a, str>>,
}

impl Recorded<'_> {
    /// The usage, in the domain's words.
    pub fn usage(&self) -> Usage<'_> {
        Usage {
            position: self.position,
            site: self.site,
            upi: self.upi,
            product: self.product,
            charging_type: self.charging_type,
            quantity: self.quantity,
            price: self.price,
            timeband: self.timeband.as_deref(),
            charge_group: self.charge_group,
            charge_group_category: self.charge_group_category,
            destination: self.destination.as_deref(),
            id: &self.id,
        }
    }
}

/// Reads a record of usage-events.
pub fn decode<'a, H>(record: &Record<'a, H>, rules: &Rules) -> Result<UsageFact<'a>, Refusal>
where
    H: Iterator<Item = (&'a str, Option<&'a [u8]>)> + Clone,
{
    let envelope: Opened<'_> = envelope::open(record)?;
    match &*envelope.kind {
        "usage.recorded" => recorded(record, envelope, rules).map(UsageFact::Recorded),
        "usage.reversed" => reversed(record, &envelope, rules).map(UsageFact::Reversed),
        kind => {
            let detail = format!("type: {} is not taken by this topic", shown(kind));
            Err(Refusal::new(Reason::UnknownType, detail))
        }
    }
}

fn recorded<'a, H>(record: &Record<'a, H>, envelope: Opened<'a>, rules: &Rules) -> Result<Recorded<'a>, Refusal> {
    let data = &envelope.data;
    let mut faults = Faults::default();
    let field = |raw, name| Field::new(raw, "", name);
    let customer = field(data.customer, "customerId").id(&mut faults);
    let site = field(data.site, "siteId").id(&mut faults);
    let upi = field(data.upi, "usageProductInventoryId").id(&mut faults);
    let product = field(data.product, "usageProductId").id(&mut faults);
    let start = field(data.start, "startTime").instant(&mut faults);
    let charging_type = field(data.charging_type, "chargingType").required(charging_type, CHARGING_TYPE, &mut faults);
    let quantity = field(data.quantity, "quantity").quantity(&mut faults);
    let price = field(data.price, "price").optional_quantity(&mut faults);
    let timeband = field(data.timeband, "timeband").optional_text(&mut faults);
    let charge_group = field(data.charge_group, "chargeGroupId").optional_id(&mut faults);
    let charge_group_category = field(data.charge_group_category, "chargeGroupCategoryId").optional_id(&mut faults);
    let destination = field(data.destination, "destination").optional_text(&mut faults);
    faults.judge()?;
    rules.judge_key(record, "customerId", customer)?;
    judge_time(start, record.timestamp, rules)?;
    Ok(Recorded {
        customer,
        position: Position { start, key: EventKey::new(&envelope.source, &envelope.id) },
        source: envelope.source,
        id: envelope.id,
        site,
        upi,
        product,
        charging_type: charging_type.expect("judged"),
        quantity,
        price: price.unwrap_or(Quantity::ZERO),
        timeband,
        charge_group,
        charge_group_category,
        destination,
    })
}

fn reversed<'a, H>(record: &Record<'a, H>, envelope: &Opened<'a>, rules: &Rules) -> Result<Reversal<'a>, Refusal> {
    let data = &envelope.data;
    let mut faults = Faults::default();
    let customer = Field::new(data.customer, "", "customerId").id(&mut faults);
    let (mut source, mut id, mut start) = (Cow::default(), Cow::default(), Instant::from_micros(0));
    if let Some(named) = object::<Reverses<'_>>(Field::new(data.reverses, "", "reverses"), &mut faults)? {
        let field = |raw, name| Field::new(raw, "reverses.", name);
        source = field(named.source, "source").required(filled, FILLED, &mut faults).unwrap_or_default();
        id = field(named.id, "id").required(filled, FILLED, &mut faults).unwrap_or_default();
        start = field(named.start, "startTime").instant(&mut faults);
    }
    faults.judge()?;
    rules.judge_key(record, "customerId", customer)?;
    Ok(Reversal { customer, source, id, start })
}

/// Judges when usage began against the record's timestamp.
fn judge_time(start: Instant, timestamp: Option<i64>, rules: &Rules) -> Result<(), Refusal> {
    let Some(timestamp) = timestamp else { return Ok(()) };
    let ahead = i128::from(start.micros()) - i128::from(timestamp) * 1_000;
    let micros = |duration: Duration| i128::try_from(duration.as_micros()).unwrap_or(i128::MAX);
    let (reason, side, limit) = if ahead > micros(rules.max_future) {
        (Reason::TooFarAhead, "after", rules.max_future)
    } else if -ahead > micros(rules.retention) {
        (Reason::TooOld, "before", rules.retention)
    } else {
        return Ok(());
    };
    let detail = format!(
        "startTime: {start} is more than {} {side} the record's timestamp, {timestamp} ms",
        humantime::format_duration(limit)
    );
    Err(Refusal::new(reason, detail))
}

pub(super) const CHARGING_TYPE: &str = "is none of DURATION, MB, ONE_OFF";

pub(super) fn charging_type(raw: &str) -> Option<ChargingType> {
    ChargingType::from_name(&text(raw)?)
}

const FILLED: &str = "is no text with something in it";

fn filled(raw: &str) -> Option<Cow<'_, str>> {
    text(raw).filter(|text| !text.is_empty())
}
