-- All that decides for one book of an experiment from valid_from until before valid_to (null: open), named by its content. A run makes
-- one for each fold and book; what it replaces is superseded and stays to be read. A promotion makes that of its champion. made_of:
-- fingerprint of what the schedule of a run was made of, the same in all of its rows that are in force; empty for a champion.
CREATE TABLE deciders (
    id text COLLATE "C" NOT NULL,
    experiment text COLLATE "C" NOT NULL,
    book text COLLATE "C" NOT NULL,
    made_for text NOT NULL CHECK (made_for IN ('run', 'champion')),
    valid_from timestamptz NOT NULL,
    valid_to timestamptz,
    content text NOT NULL,
    made_of text COLLATE "C" NOT NULL DEFAULT '',
    made_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    superseded_at timestamptz,
    PRIMARY KEY (id, experiment, made_for, valid_from),
    CHECK (valid_to > valid_from)
);
CREATE INDEX deciders_in_force ON deciders (experiment, book, valid_from) WHERE superseded_at IS NULL;
-- Id of the decider that a promotion judged and that trades; empty for champions of before.
ALTER TABLE champions ADD COLUMN decider text NOT NULL DEFAULT '';
