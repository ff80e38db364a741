-- The tables of headroom on PostgreSQL. Each table that a batch writes leads with `partition`, and what belongs to one
-- customer lies under the customer's partition. Amounts are millionths. Ids, versions and dates are those of the events.

-- One row: the store's identity, and what its rows depend on (null until a worker has settled it).
CREATE TABLE deployment (
  id          smallint PRIMARY KEY CHECK (id = 1),
  store_id    uuid NOT NULL,
  partitions  int,
  partitioner text,
  time_zone   text
);

-- Where each partition pair goes on, and its control totals, whose sums pass 64 bits; the row that fences its writers.
CREATE TABLE progress (
  partition          int PRIMARY KEY,
  epoch              bigint NOT NULL,
  usage_offset       bigint NOT NULL,
  assignments_offset bigint NOT NULL,
  outbox_number      bigint NOT NULL,
  commits            bigint NOT NULL DEFAULT 0, -- made so far; a store that lost some is noticed by its owner
  usage_gap          boolean NOT NULL DEFAULT false, -- the topic did not have the offset; nobody goes on until that is accepted
  assignments_gap    boolean NOT NULL DEFAULT false,
  applied_at         timestamptz,     -- when all that its topics had was applied; null: never yet
  facts_at           timestamptz,     -- the same for assignment-events alone
  runs_at            timestamptz,     -- the same for bill runs, whichever partition they came in on
  counted            bigint NOT NULL DEFAULT 0,
  held               bigint NOT NULL DEFAULT 0,
  reversed           bigint NOT NULL DEFAULT 0,
  crossed            bigint NOT NULL DEFAULT 0,
  recovered          bigint NOT NULL DEFAULT 0,
  quantity           numeric[] NOT NULL DEFAULT '{0,0,0}', -- by charging type: DURATION, MB, ONE_OFF
  drawn              numeric[] NOT NULL DEFAULT '{0,0,0}',
  drawn_by_value     numeric[] NOT NULL DEFAULT '{0,0,0}'
) WITH (fillfactor = 20);

-- Sources of events, each known in the ledger by its number. bytea: a source may hold any character.
CREATE TABLE source (
  partition int NOT NULL,
  number    int NOT NULL,
  source    bytea NOT NULL,
  PRIMARY KEY (partition, number)
);

-- All usage ever accepted. Columns stand in an order that leaves no gaps.
CREATE TABLE ledger (
  customer_id bigint NOT NULL,
  start_time  timestamptz NOT NULL,
  event_key   uuid NOT NULL,
  partition   int NOT NULL,
  source      int NOT NULL,           -- 0: the source stands at the end of the body
  state       "char" NOT NULL,        -- 0 counted, 1 held, 2 reversed, 3 held and reversed
  body        bytea NOT NULL,         -- the packed event; its first byte is the form's version
  draws       bytea NOT NULL,         -- what it took: pairs of slot and amount
  PRIMARY KEY (partition, customer_id, start_time, event_key)
);

-- What is held: a small part, or nothing.
CREATE INDEX ledger_held ON ledger (partition, customer_id, start_time) WHERE state = 1::int::"char";

-- What was reversed. `pending`: its event has not come.
CREATE TABLE reversal (
  customer_id bigint NOT NULL,
  start_time  timestamptz NOT NULL,
  event_key   uuid NOT NULL,
  partition   int NOT NULL,
  pending     boolean NOT NULL,
  PRIMARY KEY (partition, customer_id, start_time, event_key)
);
CREATE INDEX reversal_pending ON reversal (partition, customer_id) WHERE pending;

-- Every customer ever heard of; version is null without a customer.changed.
CREATE TABLE customer (
  customer_id       bigint NOT NULL,
  version           bigint,
  billing_cycle_id  bigint,
  contract_owner_id bigint,
  partition         int NOT NULL,
  next_slot         int NOT NULL,     -- counts where it is past all slots in bucket: theirs were given, and are gone
  PRIMARY KEY (partition, customer_id)
);
CREATE INDEX customer_owner ON customer (contract_owner_id) WHERE contract_owner_id IS NOT NULL;

-- The highest version of each assignment; fact is null when that version removed it.
CREATE TABLE assignment (
  customer_id   bigint NOT NULL,
  assignment_id bigint NOT NULL,
  version       bigint NOT NULL,
  scope         bigint,               -- the site of a SITE, the line of an INVENTORY assignment
  partition     int NOT NULL,
  level         smallint NOT NULL,    -- 0 INVENTORY, 1 SITE, 2 CUSTOMER
  fact          text,
  -- Of the fact, for the query: in which instants it may be drawn (microseconds since 1970; null: never), of what, and by whom.
  from_micros             bigint,
  until_micros            bigint,
  inclusive_usage_plan_id bigint,
  usage_product_id        bigint,
  component_ids           bigint[],
  PRIMARY KEY (partition, customer_id, level, assignment_id)
);
CREATE INDEX assignment_id ON assignment (assignment_id);
CREATE INDEX assignment_scope ON assignment (partition, customer_id, level, scope);

-- Which customers ever had a plan, and which plans ever had a component: where to look for rows by these, also for those
-- that were stored when a run closed.
CREATE TABLE plan_customer (
  inclusive_usage_plan_id bigint NOT NULL,
  customer_id             bigint NOT NULL,
  partition               int NOT NULL,
  PRIMARY KEY (partition, inclusive_usage_plan_id, customer_id)
);
CREATE TABLE component_plan (
  component_id            bigint NOT NULL,
  inclusive_usage_plan_id bigint NOT NULL,
  partition               int NOT NULL,
  PRIMARY KEY (partition, component_id, inclusive_usage_plan_id)
);

-- Lines (UPIs) known by inventory.changed (version and what it says) or by usage that counts (last_...). As with buckets, all
-- updates stay on their page.
CREATE TABLE line (
  customer_id                bigint NOT NULL,
  usage_product_inventory_id bigint NOT NULL,
  version                    bigint,
  site_id                    bigint,
  usage_product_id           bigint,
  last_start_time            timestamptz,
  last_event_key             uuid,
  last_site_id               bigint,
  last_usage_product_id      bigint,
  partition                  int NOT NULL,
  PRIMARY KEY (partition, customer_id, usage_product_inventory_id)
) WITH (fillfactor = 50);

-- Where lines stand: the instants (microseconds since 1970) in which a bucket that covers the line may be drawn, each row
-- without a gap. A bill run of the cycle has a row of each line that stands in its usage dates. Kept with assignments,
-- lines and customers, so that the query needs no bucket to find, order and count rows.
CREATE TABLE standing_row (
  customer_id                bigint NOT NULL,
  usage_product_inventory_id bigint NOT NULL,
  from_micros                bigint NOT NULL,
  until_micros               bigint NOT NULL,
  after_micros               bigint,         -- where the row before it ends; null for the first
  billing_cycle_id           bigint NOT NULL,
  site_id                    bigint,
  usage_product_id           bigint,         -- null also where all plans that cover the line are for every product
  contract_owner_id          bigint,
  partition                  int NOT NULL,
  PRIMARY KEY (partition, customer_id, usage_product_inventory_id, from_micros)
);
CREATE INDEX standing_row_order ON standing_row (billing_cycle_id, usage_product_inventory_id, customer_id) INCLUDE (partition, from_micros, until_micros, after_micros);
CREATE INDEX standing_row_owner ON standing_row (billing_cycle_id, contract_owner_id, usage_product_inventory_id, customer_id) INCLUDE (partition, from_micros, until_micros, after_micros) WHERE contract_owner_id IS NOT NULL;
CREATE INDEX standing_row_site ON standing_row (site_id) WHERE site_id IS NOT NULL;

-- The buckets that something drew from. No column that changes is indexed, so that all updates stay on their page.
CREATE TABLE bucket (
  customer_id     bigint NOT NULL,
  assignment_id   bigint NOT NULL,
  component_id    bigint NOT NULL,
  window_start    timestamptz NOT NULL,
  allowance       bigint NOT NULL,
  remaining       bigint NOT NULL,
  mark_start_time timestamptz,        -- the greatest position among the events that drew from it
  mark_event_key  uuid,
  partition       int NOT NULL,
  slot            int NOT NULL,
  level           smallint NOT NULL,
  charging_type   smallint NOT NULL,  -- 0 DURATION, 1 MB, 2 ONE_OFF
  by_value        boolean NOT NULL,
  PRIMARY KEY (partition, customer_id, slot)
) WITH (fillfactor = 50);
CREATE INDEX bucket_assignment ON bucket (partition, customer_id, level, assignment_id, window_start);

-- Bill runs, as each partition has applied them.
CREATE TABLE bill_run (
  partition         int NOT NULL,
  bill_run_id       bigint NOT NULL,
  version           bigint NOT NULL,
  billing_cycle_id  bigint NOT NULL,
  period_start_date date NOT NULL,
  period_end_date   date NOT NULL,
  usage_from_date   date NOT NULL,
  usage_until_date  date NOT NULL,
  status            smallint NOT NULL, -- 0 OPEN, 1 CLOSED, 2 FINALIZED
  storing_after     bigint,          -- while its rows are being stored: customers up to this one are done
  letting_in_after  bigint,          -- the same while usage that it held is let in
  PRIMARY KEY (partition, bill_run_id)
);
CREATE INDEX bill_run_open ON bill_run (partition) WHERE status = 0;

-- Facts about bill runs where they came in and held, for all other partitions to apply too. `number`: of the commit, so that
-- those of one partition are in their order.
CREATE TABLE bill_run_fact (
  partition         int NOT NULL,
  number            bigint NOT NULL,
  bill_run_id       bigint NOT NULL,
  version           bigint NOT NULL,
  billing_cycle_id  bigint NOT NULL,
  period_start_date date NOT NULL,
  period_end_date   date NOT NULL,
  usage_from_date   date NOT NULL,
  usage_until_date  date NOT NULL,
  status            smallint NOT NULL, -- as in bill_run
  PRIMARY KEY (partition, number)
);

-- Rows of closed bill runs, as they were when the run closed.
CREATE TABLE stored_row (
  bill_run_id                bigint NOT NULL,
  customer_id                bigint NOT NULL,
  usage_product_inventory_id bigint NOT NULL,
  site_id                    bigint,
  contract_owner_id          bigint,
  partition                  int NOT NULL,
  period_start_date          date NOT NULL,
  period_end_date            date NOT NULL,
  entries                    text NOT NULL, -- what was nested, as JSON
  -- Of the same, for filters: each assignment, its plan and one of its components, side by side.
  assignment_ids             bigint[] NOT NULL,
  inclusive_usage_plan_ids   bigint[] NOT NULL,
  component_ids              bigint[] NOT NULL,
  PRIMARY KEY (partition, bill_run_id, customer_id, usage_product_inventory_id)
);
CREATE INDEX stored_row_order ON stored_row (bill_run_id, usage_product_inventory_id, customer_id) INCLUDE (partition);
CREATE INDEX stored_row_owner ON stored_row (bill_run_id, contract_owner_id, usage_product_inventory_id, customer_id) INCLUDE (partition) WHERE contract_owner_id IS NOT NULL;
CREATE INDEX stored_row_site ON stored_row (bill_run_id, site_id) WHERE site_id IS NOT NULL;

-- Customers whose rows of a bill run that is being stored were stored ahead of their turn.
CREATE TABLE stored_ahead (
  partition   int NOT NULL,
  bill_run_id bigint NOT NULL,
  customer_id bigint NOT NULL,
  PRIMARY KEY (partition, bill_run_id, customer_id)
);

-- Customers whose records are applied later than the partition's others: known usage is folded again meanwhile, in steps.
CREATE TABLE behind (
  partition          int NOT NULL,
  customer_id        bigint NOT NULL,
  usage_offset       bigint NOT NULL,   -- from these offsets on
  assignments_offset bigint NOT NULL,
  from_start_time    timestamptz,          -- from this position on draws in the ledger may be those of the fold; null: none are
  from_event_key     uuid,
  drawn              bytea,         -- what usage from there on drew, as the buckets know it: pairs of slot and amount
  PRIMARY KEY (partition, customer_id)
);

-- Alerts on their way to Kafka, numbered under the progress row.
CREATE TABLE outbox (
  number      bigint NOT NULL,
  customer_id bigint NOT NULL,
  partition   int NOT NULL,
  body        text NOT NULL,
  PRIMARY KEY (partition, number)
);

-- Records refused, whole.
CREATE TABLE dead_letter (
  partition        int NOT NULL,
  topic            text NOT NULL,
  "offset"         bigint NOT NULL,
  record_timestamp bigint,            -- milliseconds since 1970
  created_at       timestamptz NOT NULL DEFAULT now(),
  put_back_at      timestamptz,
  reason           text NOT NULL,
  detail           text NOT NULL,
  key              bytea,
  value            bytea,
  customer_id      bigint,            -- whom it is about, as far as can be told
  headers          text NOT NULL,     -- JSON: pairs of a name and a value in hexadecimal, or null
  PRIMARY KEY (partition, topic, "offset")
);

-- Repairs that a partition's owner is asked for, and what they changed once they are done. Without a customer: of the
-- control totals only.
CREATE TABLE repair_request (
  partition    int NOT NULL,
  request_id   uuid NOT NULL,
  customer_id  bigint,
  requested_at timestamptz NOT NULL DEFAULT now(),
  buckets      bigint,
  usage        bigint,
  lines        bigint,
  PRIMARY KEY (partition, request_id)
);
CREATE INDEX repair_request_open ON repair_request (partition) WHERE buckets IS NULL;

-- Who may be the active relay, and until when.
CREATE TABLE relay_lease (
  id     smallint PRIMARY KEY CHECK (id = 1),
  holder uuid NOT NULL,
  until  timestamptz NOT NULL
);

-- A lower bound of what is on the alerts topic: for each input partition the last alert's number, ...
CREATE TABLE relay_number (
  partition int PRIMARY KEY,
  number    bigint NOT NULL
);

-- ... and for each of the topic's own partitions the offset after those.
CREATE TABLE relay_offset (
  partition   int PRIMARY KEY,
  next_offset bigint NOT NULL
);
