-- How many bars a month holds (versions of one bar count once), so that a reader can ask for pieces of a bounded size.
ALTER TABLE bar_months ADD COLUMN rows bigint NOT NULL DEFAULT 0;
