-- Signals of each experiment for itself: before, two that differed in a parameter overwrote one another's. What stood here cannot be told
-- apart any more; the next run of an experiment puts its own here. account: empty for a backtest. decider: that asked for it. direction: 1
-- long, -1 short, 0 flat. confidence: that the direction is right. expires_at: an order of it may be sent until then. sequence: of the
-- account's signals in the order in which they were given; null for a backtest.
DROP TABLE signals;
CREATE TABLE signals (
    experiment text COLLATE "C" NOT NULL,
    book text COLLATE "C" NOT NULL,
    decider text COLLATE "C" NOT NULL,
    account text COLLATE "C" NOT NULL DEFAULT '',
    mode text COLLATE "C" NOT NULL DEFAULT 'backtest' CHECK (mode IN ('backtest', 'paper', 'live')),
    symbol text COLLATE "C" NOT NULL,
    open_time timestamptz NOT NULL,
    weight double precision NOT NULL CHECK (weight > '-Infinity' AND weight < 'Infinity'),
    direction integer NOT NULL CHECK (direction IN (-1, 0, 1)),
    confidence double precision NOT NULL CHECK (confidence >= 0.0 AND confidence <= 1.0),
    known_at timestamptz NOT NULL,
    expires_at timestamptz,
    status text COLLATE "C" NOT NULL
        CHECK (status IN ('proposed', 'traded', 'clipped', 'rejected', 'superseded', 'missed', 'expired')),
    sequence bigint,
    PRIMARY KEY (experiment, decider, account, mode, symbol, open_time),
    CHECK (known_at > open_time),
    CHECK (expires_at > known_at)
);
CREATE INDEX signals_of_books ON signals (experiment, book, mode, open_time);
