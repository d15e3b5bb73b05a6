-- What a trial was, and the moments of its net returns: the deflated Sharpe ratio needs them of every trial, without its series.
-- family: trials that compete for the same selection (venue and interval). sharpe: per period, not annualised. kurtosis: 3 for a
-- normal distribution. returns_digest: of the stored series, so that a rerun with the same result writes nothing.
ALTER TABLE trials
    ADD COLUMN family text NOT NULL DEFAULT '',
    ADD COLUMN kind text NOT NULL DEFAULT 'run',
    ADD COLUMN config jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN start_time timestamptz,
    ADD COLUMN end_time timestamptz,
    ADD COLUMN observations bigint NOT NULL DEFAULT 0 CHECK (observations >= 0),
    ADD COLUMN periods_per_year double precision,
    ADD COLUMN sharpe double precision CHECK (sharpe > '-Infinity' AND sharpe < 'Infinity'),
    ADD COLUMN skew double precision CHECK (skew > '-Infinity' AND skew < 'Infinity'),
    ADD COLUMN kurtosis double precision CHECK (kurtosis > '-Infinity' AND kurtosis < 'Infinity'),
    ADD COLUMN returns_digest text NOT NULL DEFAULT '';
CREATE INDEX trials_by_family ON trials (family, counted_at);
CREATE INDEX trials_by_experiment ON trials (experiment, counted_at);

-- Since when the ledger counts. Its first row is made here; every reset adds one, with how many trials it forgot.
CREATE TABLE trial_ledger (
    since timestamptz PRIMARY KEY DEFAULT clock_timestamp(),
    forgotten bigint NOT NULL DEFAULT 0 CHECK (forgotten >= 0),
    reason text NOT NULL DEFAULT ''
);
INSERT INTO trial_ledger DEFAULT VALUES;
