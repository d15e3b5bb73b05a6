-- Names compare by bytes: faster, and the same order on every machine.
CREATE TABLE instruments (
    venue text COLLATE "C" NOT NULL,
    symbol text COLLATE "C" NOT NULL,
    calendar text NOT NULL,
    base text NOT NULL,
    quote text NOT NULL,
    can_short boolean NOT NULL,
    borrow_bps double precision NOT NULL CHECK (borrow_bps >= 0),
    lot double precision NOT NULL CHECK (lot >= 0),
    tick double precision NOT NULL CHECK (tick >= 0),
    min_notional double precision NOT NULL CHECK (min_notional >= 0),
    listed_at timestamptz,
    delisted_at timestamptz,
    PRIMARY KEY (venue, symbol),
    CHECK (delisted_at > listed_at)
);

-- One row for each version of a bar. A reader at time T sees the newest version with known_at <= T.
CREATE TABLE bars (
    venue text COLLATE "C" NOT NULL,
    symbol text COLLATE "C" NOT NULL,
    interval text COLLATE "C" NOT NULL,
    open_time timestamptz NOT NULL,
    known_at timestamptz NOT NULL,
    open double precision NOT NULL,
    high double precision NOT NULL,
    low double precision NOT NULL,
    close double precision NOT NULL,
    volume double precision NOT NULL,
    quote_volume double precision,
    recorded_at timestamptz NOT NULL,
    vintage_unknown boolean NOT NULL,
    PRIMARY KEY (venue, interval, symbol, open_time, known_at),
    -- NaN is greater than every number in PostgreSQL, so an upper bound refuses it.
    CONSTRAINT bars_prices CHECK (low > 0 AND low <= open AND low <= close AND high >= open AND high >= close AND high < 'Infinity'),
    CONSTRAINT bars_volume CHECK (volume >= 0 AND volume < 'Infinity'),
    CONSTRAINT bars_quote_volume CHECK (quote_volume >= 0 AND quote_volume < 'Infinity'),
    CONSTRAINT bars_known_after_open CHECK (known_at > open_time)
) PARTITION BY RANGE (open_time);

-- What there is, without a scan of all partitions.
CREATE TABLE series (
    venue text COLLATE "C" NOT NULL,
    interval text COLLATE "C" NOT NULL,
    symbol text COLLATE "C" NOT NULL,
    PRIMARY KEY (symbol, venue, interval)
);
CREATE INDEX series_by_dataset ON series (venue, interval);

-- `version` grows with every batch that changed the month, in the batch's own transaction: copies of a month compare it.
CREATE TABLE bar_months (
    venue text COLLATE "C" NOT NULL,
    interval text COLLATE "C" NOT NULL,
    month date NOT NULL CHECK (extract(day FROM month) = 1),
    version bigint NOT NULL,
    changed_at timestamptz NOT NULL,
    PRIMARY KEY (venue, interval, month)
);

-- A partition is filled before it gets its key and joins `bars`: building an index once is cheaper than growing it. Attaching blocks
-- no reader and no writer of other months (CREATE … PARTITION OF would).
CREATE FUNCTION bars_partition(month date) RETURNS text LANGUAGE sql STABLE AS
$$ SELECT 'bars_' || to_char(month::timestamp, 'YYYY_MM') $$;

CREATE FUNCTION create_bars_partition(month date) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE TABLE %I (LIKE bars INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', bars_partition(month));
END $$;

CREATE FUNCTION attach_bars_partition(month date) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('ALTER TABLE %I ADD PRIMARY KEY (venue, interval, symbol, open_time, known_at)', bars_partition(month));
    EXECUTE format(
        'ALTER TABLE bars ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', bars_partition(month),
        month::timestamp AT TIME ZONE 'UTC', (month + interval '1 month') AT TIME ZONE 'UTC'
    );
END $$;

CREATE TABLE quarantine (
    venue text COLLATE "C" NOT NULL,
    interval text COLLATE "C" NOT NULL,
    symbol text COLLATE "C" NOT NULL,
    open_time timestamptz,
    reason text NOT NULL,
    detail text NOT NULL,
    source text NOT NULL,
    source_line bigint,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    -- Texts are cut before they come here, so the key fits a page of the index.
    UNIQUE NULLS NOT DISTINCT (venue, interval, symbol, open_time, reason, source, source_line)
);

-- A gap stays after it was filled, with the time: its life can be told.
CREATE TABLE gaps (
    venue text COLLATE "C" NOT NULL,
    interval text COLLATE "C" NOT NULL,
    symbol text COLLATE "C" NOT NULL,
    start_time timestamptz NOT NULL,
    end_time timestamptz NOT NULL,
    missing bigint NOT NULL CHECK (missing > 0),
    found_at timestamptz NOT NULL DEFAULT now(),
    filled_at timestamptz,
    PRIMARY KEY (venue, interval, symbol, start_time, end_time),
    CHECK (end_time > start_time)
);

CREATE TABLE adjustments (
    venue text COLLATE "C" NOT NULL,
    symbol text COLLATE "C" NOT NULL,
    kind text NOT NULL CHECK (kind IN ('split', 'dividend')),
    ex_time timestamptz NOT NULL,
    known_at timestamptz NOT NULL,
    value double precision NOT NULL CHECK (value > 0 AND value < 'Infinity'),
    PRIMARY KEY (venue, symbol, kind, ex_time, known_at)
);
