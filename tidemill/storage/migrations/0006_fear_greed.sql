-- The Fear & Greed Index, a value a day. Every version is kept: the first is known one day after its stamp, a later one at its receipt.
CREATE TABLE fear_greed (
    source text COLLATE "C" NOT NULL,
    stamp timestamptz NOT NULL,
    known_at timestamptz NOT NULL,
    value double precision NOT NULL CHECK (value BETWEEN 0 AND 100),
    recorded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source, stamp, known_at),
    CONSTRAINT fear_greed_known_after_its_day CHECK (known_at >= stamp + interval '1 day')
);
