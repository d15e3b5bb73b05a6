-- A bar or an action that its source no longer has stays for whoever asks what was known before, and is in no newest view.
-- All versions of it end together; where it comes back, that is a further version.
ALTER TABLE bars ADD COLUMN ended_at timestamptz;
ALTER TABLE series ADD COLUMN ended_at timestamptz;

-- known_at says from when an action counts, recorded_at when this version of it was received: the first with what it tells of.
ALTER TABLE adjustments ADD COLUMN ended_at timestamptz;
ALTER TABLE adjustments ADD COLUMN recorded_at timestamptz;
UPDATE adjustments SET recorded_at = known_at;
ALTER TABLE adjustments ALTER COLUMN recorded_at SET NOT NULL;
ALTER TABLE adjustments DROP CONSTRAINT adjustments_pkey;
ALTER TABLE adjustments ADD PRIMARY KEY (venue, symbol, kind, ex_time, known_at, recorded_at);
