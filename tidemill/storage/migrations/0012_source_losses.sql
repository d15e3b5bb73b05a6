-- A source that lost more than a tenth of its bars: nothing of it is promoted until a person confirms that it is whole.
-- held: bars of the part that was read before it lost some.
CREATE TABLE source_losses (
    venue text COLLATE "C",
    interval text COLLATE "C",
    lost bigint NOT NULL,
    held bigint NOT NULL,
    found_at timestamptz NOT NULL,
    confirmed_at timestamptz,
    PRIMARY KEY (venue, interval)
);
