-- A calendar that was told by the bars follows them when they are read again. What a home holds already counts as named: it stays
-- until somebody names another.
ALTER TABLE instruments ADD COLUMN calendar_inferred boolean NOT NULL DEFAULT false;
