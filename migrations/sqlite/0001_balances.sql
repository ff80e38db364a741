-- The tables of headroom on SQLite: those of PostgreSQL (migrations/postgres says more), with instants as microseconds
-- since 1970, dates as days since then, event keys as 16 bytes, and sums that pass 64 bits as text.

-- One row: the store's identity, and what its rows depend on (null until a worker has settled it).
CREATE TABLE deployment (
  id          INTEGER PRIMARY KEY CHECK (id = 1),
  store_id    BLOB NOT NULL,
  partitions  INTEGER,
  partitioner TEXT,
  time_zone   TEXT
) STRICT;

-- Where each partition pair goes on, and its control totals, whose sums pass 64 bits; the row that fences its writers.
CREATE TABLE progress (
  partition          INTEGER PRIMARY KEY,
  epoch              INTEGER NOT NULL,
  usage_offset       INTEGER NOT NULL,
  assignments_offset INTEGER NOT NULL,
  outbox_number      INTEGER NOT NULL,
  commits            INTEGER NOT NULL DEFAULT 0, -- made so far; a store that lost some is noticed by its owner
  usage_gap          INTEGER NOT NULL DEFAULT 0, -- the topic did not have the offset; nobody goes on until that is accepted
  assignments_gap    INTEGER NOT NULL DEFAULT 0,
  applied_at         INTEGER,         -- when all that its topics had was applied; null: never yet
  facts_at           INTEGER,         -- the same for assignment-events alone
  runs_at            INTEGER,         -- the same for bill runs, whichever partition they came in on
  counted            INTEGER NOT NULL DEFAULT 0,
  held               INTEGER NOT NULL DEFAULT 0,
  reversed           INTEGER NOT NULL DEFAULT 0,
  crossed            INTEGER NOT NULL DEFAULT 0,
  recovered          INTEGER NOT NULL DEFAULT 0,
  quantity           TEXT NOT NULL DEFAULT '0,0,0', -- by charging type: DURATION, MB, ONE_OFF
  drawn              TEXT NOT NULL DEFAULT '0,0,0',
  drawn_by_value     TEXT NOT NULL DEFAULT '0,0,0'
) STRICT;

-- Sources of events, each known in the ledger by its number. BLOB: a source may hold any character.
CREATE TABLE source (
  partition INTEGER NOT NULL,
  number    INTEGER NOT NULL,
  source    BLOB NOT NULL,
  PRIMARY KEY (partition, number)
) STRICT;

-- All usage ever accepted. Columns stand in an order that leaves no gaps.
CREATE TABLE ledger (
  customer_id INTEGER NOT NULL,
  start_time  INTEGER NOT NULL,
  event_key   BLOB NOT NULL,
  partition   INTEGER NOT NULL,
  source      INTEGER NOT NULL,           -- 0: the source stands at the end of the body
  state       INTEGER NOT NULL,        -- 0 counted, 1 held, 2 reversed, 3 held and reversed
  body        BLOB NOT NULL,         -- the packed event; its first byte is the form's version
  draws       BLOB NOT NULL,         -- what it took: pairs of slot and amount
  PRIMARY KEY (partition, customer_id, start_time, event_key)
) STRICT;

-- What is held: a small part, or nothing.
CREATE INDEX ledger_held ON ledger (partition, customer_id, start_time) WHERE state = 1;

-- What was reversed. `pending`: its event has not come.
CREATE TABLE reversal (
  customer_id INTEGER NOT NULL,
  start_time  INTEGER NOT NULL,
  event_key   BLOB NOT NULL,
  partition   INTEGER NOT NULL,
  pending     INTEGER NOT NULL,
  PRIMARY KEY (partition, customer_id, start_time, event_key)
) STRICT;
CREATE INDEX reversal_pending ON reversal (partition, customer_id) WHERE pending;

-- Every customer ever heard of; version is null without a customer.changed.
CREATE TABLE customer (
  customer_id       INTEGER NOT NULL,
  version           INTEGER,
  billing_cycle_id  INTEGER,
  contract_owner_id INTEGER,
  partition         INTEGER NOT NULL,
  next_slot         INTEGER NOT NULL,
  PRIMARY KEY (partition, customer_id)
) STRICT;
CREATE INDEX customer_owner ON customer (contract_owner_id) WHERE contract_owner_id IS NOT NULL;

-- The highest version of each assignment; fact is null when that version removed it.
CREATE TABLE assignment (
  customer_id   INTEGER NOT NULL,
  assignment_id INTEGER NOT NULL,
  version       INTEGER NOT NULL,
  scope         INTEGER,               -- the site of a SITE, the line of an INVENTORY assignment
  partition     INTEGER NOT NULL,
  level         INTEGER NOT NULL,    -- 0 INVENTORY, 1 SITE, 2 CUSTOMER
  fact          TEXT,
  -- Of the fact, for the query: in which instants it may be drawn (microseconds since 1970; null: never), of what, and by whom.
  from_micros             INTEGER,
  until_micros            INTEGER,
  inclusive_usage_plan_id INTEGER,
  usage_product_id        INTEGER,
  component_ids           TEXT,      -- a JSON list
  PRIMARY KEY (partition, customer_id, level, assignment_id)
) STRICT;
CREATE INDEX assignment_id ON assignment (assignment_id);
CREATE INDEX assignment_scope ON assignment (partition, customer_id, level, scope);

-- Which customers ever had a plan, and which plans ever had a component: where to look for rows by these, also for those
-- that were stored when a run closed.
CREATE TABLE plan_customer (
  inclusive_usage_plan_id INTEGER NOT NULL,
  customer_id             INTEGER NOT NULL,
  partition               INTEGER NOT NULL,
  PRIMARY KEY (partition, inclusive_usage_plan_id, customer_id)
) STRICT;
CREATE TABLE component_plan (
  component_id            INTEGER NOT NULL,
  inclusive_usage_plan_id INTEGER NOT NULL,
  partition               INTEGER NOT NULL,
  PRIMARY KEY (partition, component_id, inclusive_usage_plan_id)
) STRICT;

-- Lines (UPIs) known by inventory.changed (version and what it says) or by usage that counts (last_...).
CREATE TABLE line (
  customer_id                INTEGER NOT NULL,
  usage_product_inventory_id INTEGER NOT NULL,
  version                    INTEGER,
  site_id                    INTEGER,
  usage_product_id           INTEGER,
  last_start_time            INTEGER,
  last_event_key             BLOB,
  last_site_id               INTEGER,
  last_usage_product_id      INTEGER,
  partition                  INTEGER NOT NULL,
  PRIMARY KEY (partition, customer_id, usage_product_inventory_id)
) STRICT;

-- Where lines stand: the instants (microseconds since 1970) in which a bucket that covers the line may be drawn, each row
-- without a gap. A bill run of the cycle has a row of each line that stands in its usage dates. Kept with assignments,
-- lines and customers, so that the query needs no bucket to find, order and count rows.
CREATE TABLE standing_row (
  customer_id                INTEGER NOT NULL,
  usage_product_inventory_id INTEGER NOT NULL,
  from_micros                INTEGER NOT NULL,
  until_micros               INTEGER NOT NULL,
  after_micros               INTEGER,         -- where the row before it ends; null for the first
  billing_cycle_id           INTEGER NOT NULL,
  site_id                    INTEGER,
  usage_product_id           INTEGER,         -- null also where all plans that cover the line are for every product
  contract_owner_id          INTEGER,
  partition                  INTEGER NOT NULL,
  PRIMARY KEY (partition, customer_id, usage_product_inventory_id, from_micros)
) STRICT;
CREATE INDEX standing_row_order ON standing_row (billing_cycle_id, usage_product_inventory_id, customer_id);
CREATE INDEX standing_row_owner ON standing_row (billing_cycle_id, contract_owner_id, usage_product_inventory_id, customer_id) WHERE contract_owner_id IS NOT NULL;
CREATE INDEX standing_row_site ON standing_row (site_id) WHERE site_id IS NOT NULL;

-- The buckets that something drew from. No column that changes is indexed, so that all updates stay on their page.
CREATE TABLE bucket (
  customer_id     INTEGER NOT NULL,
  assignment_id   INTEGER NOT NULL,
  component_id    INTEGER NOT NULL,
  window_start    INTEGER NOT NULL,
  allowance       INTEGER NOT NULL,
  remaining       INTEGER NOT NULL,
  mark_start_time INTEGER,        -- the greatest position among the events that drew from it
  mark_event_key  BLOB,
  partition       INTEGER NOT NULL,
  slot            INTEGER NOT NULL,
  level           INTEGER NOT NULL,
  charging_type   INTEGER NOT NULL,  -- 0 DURATION, 1 MB, 2 ONE_OFF
  by_value        INTEGER NOT NULL,
  PRIMARY KEY (partition, customer_id, slot)
) STRICT;
CREATE INDEX bucket_assignment ON bucket (partition, customer_id, level, assignment_id, window_start);

-- Bill runs, as each partition has applied them.
CREATE TABLE bill_run (
  partition         INTEGER NOT NULL,
  bill_run_id       INTEGER NOT NULL,
  version           INTEGER NOT NULL,
  billing_cycle_id  INTEGER NOT NULL,
  period_start_date INTEGER NOT NULL,
  period_end_date   INTEGER NOT NULL,
  usage_from_date   INTEGER NOT NULL,
  usage_until_date  INTEGER NOT NULL,
  status            INTEGER NOT NULL, -- 0 OPEN, 1 CLOSED, 2 FINALIZED
  storing_after     INTEGER,          -- while its rows are being stored: customers up to this one are done
  letting_in_after  INTEGER,          -- the same while usage that it held is let in
  PRIMARY KEY (partition, bill_run_id)
) STRICT;
CREATE INDEX bill_run_open ON bill_run (partition) WHERE status = 0;

-- Facts about bill runs where they came in and held, for all other partitions to apply too. `number`: of the commit, so that
-- those of one partition are in their order.
CREATE TABLE bill_run_fact (
  partition         INTEGER NOT NULL,
  number            INTEGER NOT NULL,
  bill_run_id       INTEGER NOT NULL,
  version           INTEGER NOT NULL,
  billing_cycle_id  INTEGER NOT NULL,
  period_start_date INTEGER NOT NULL,
  period_end_date   INTEGER NOT NULL,
  usage_from_date   INTEGER NOT NULL,
  usage_until_date  INTEGER NOT NULL,
  status            INTEGER NOT NULL, -- as in bill_run
  PRIMARY KEY (partition, number)
) STRICT;

-- Rows of closed bill runs, as they were when the run closed.
CREATE TABLE stored_row (
  bill_run_id                INTEGER NOT NULL,
  customer_id                INTEGER NOT NULL,
  usage_product_inventory_id INTEGER NOT NULL,
  site_id                    INTEGER,
  contract_owner_id          INTEGER,
  partition                  INTEGER NOT NULL,
  period_start_date          INTEGER NOT NULL,
  period_end_date            INTEGER NOT NULL,
  entries                    TEXT NOT NULL, -- what was nested, as JSON
  -- Of the same, for filters: each assignment, its plan and one of its components, side by side in three JSON lists.
  assignment_ids             TEXT NOT NULL,
  inclusive_usage_plan_ids   TEXT NOT NULL,
  component_ids              TEXT NOT NULL,
  PRIMARY KEY (partition, bill_run_id, customer_id, usage_product_inventory_id)
) STRICT;
CREATE INDEX stored_row_order ON stored_row (bill_run_id, usage_product_inventory_id, customer_id);
CREATE INDEX stored_row_owner ON stored_row (bill_run_id, contract_owner_id, usage_product_inventory_id, customer_id) WHERE contract_owner_id IS NOT NULL;
CREATE INDEX stored_row_site ON stored_row (bill_run_id, site_id) WHERE site_id IS NOT NULL;

-- Customers whose rows of a bill run that is being stored were stored ahead of their turn.
CREATE TABLE stored_ahead (
  partition   INTEGER NOT NULL,
  bill_run_id INTEGER NOT NULL,
  customer_id INTEGER NOT NULL,
  PRIMARY KEY (partition, bill_run_id, customer_id)
) STRICT;

-- Customers whose records are applied later than the partition's others: known usage is folded again meanwhile, in steps.
CREATE TABLE behind (
  partition          INTEGER NOT NULL,
  customer_id        INTEGER NOT NULL,
  usage_offset       INTEGER NOT NULL,   -- from these offsets on
  assignments_offset INTEGER NOT NULL,
  from_start_time    INTEGER,          -- from this position on draws in the ledger may be those of the fold; null: none are
  from_event_key     BLOB,
  drawn              BLOB,         -- what usage from there on drew, as the buckets know it: pairs of slot and amount
  PRIMARY KEY (partition, customer_id)
) STRICT;

-- Alerts on their way to Kafka, numbered under the progress row.
CREATE TABLE outbox (
  number      INTEGER NOT NULL,
  customer_id INTEGER NOT NULL,
  partition   INTEGER NOT NULL,
  body        TEXT NOT NULL,
  PRIMARY KEY (partition, number)
) STRICT;

-- Records refused, whole.
CREATE TABLE dead_letter (
  partition        INTEGER NOT NULL,
  topic            TEXT NOT NULL,
  "offset"         INTEGER NOT NULL,
  record_timestamp INTEGER,            -- milliseconds since 1970
  created_at       INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
  put_back_at      INTEGER,
  reason           TEXT NOT NULL,
  detail           TEXT NOT NULL,
  key              BLOB,
  value            BLOB,
  customer_id      INTEGER,           -- whom it is about, as far as can be told
  headers          TEXT NOT NULL,     -- JSON: pairs of a name and a value in hexadecimal, or null
  PRIMARY KEY (partition, topic, "offset")
) STRICT;

-- Repairs that a partition's owner is asked for, and what they changed once they are done. Without a customer: of the
-- control totals only.
CREATE TABLE repair_request (
  partition    INTEGER NOT NULL,
  request_id   BLOB NOT NULL,
  customer_id  INTEGER,
  requested_at INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
  buckets      INTEGER,
  usage        INTEGER,
  lines        INTEGER,
  PRIMARY KEY (partition, request_id)
) STRICT;
CREATE INDEX repair_request_open ON repair_request (partition) WHERE buckets IS NULL;

-- Who may be the active relay, and until when.
CREATE TABLE relay_lease (
  id     INTEGER PRIMARY KEY CHECK (id = 1),
  holder BLOB NOT NULL,
  until  INTEGER NOT NULL
) STRICT;

-- A lower bound of what is on the alerts topic: for each input partition the last alert's number, ...
CREATE TABLE relay_number (
  partition INTEGER PRIMARY KEY,
  number    INTEGER NOT NULL
) STRICT;

-- ... and for each of the topic's own partitions the offset after those.
CREATE TABLE relay_offset (
  partition   INTEGER PRIMARY KEY,
  next_offset INTEGER NOT NULL
) STRICT;
